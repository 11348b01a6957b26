"""The blocking client beside pika's BlockingConnection: confirmed one by one, sent in a window, consumed with acks.

make bench ARGS=blocking
"""

import statistics
import time
from collections.abc import Callable
from typing import Any, Final

import pika
from tests.support.embedded import BrokerProcess
from tests.support.rabbitmq import RabbitMQ

import rabbitry
from rabbitry.amqp.client.blocking import BlockingChannel

_BODY: Final = b"x" * 200
_ONE_BY_ONE: Final = 1_000
_MANY: Final = 20_000
_ROUNDS: Final = 3
_DURABLE: Final = pika.BasicProperties(delivery_mode=2)


def _pika(url: str, work: Callable[[Any], int]) -> float:
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        channel.queue_declare("bench", durable=True)
        channel.confirm_delivery()
        channel.basic_qos(prefetch_count=200)
        started = time.perf_counter()
        count = work(channel)
        return count / (time.perf_counter() - started)


def _pika_publish(channel: Any) -> int:
    for _ in range(_ONE_BY_ONE):
        channel.basic_publish("", "bench", _BODY, _DURABLE, mandatory=True)
    return _ONE_BY_ONE


def _pika_consume(channel: Any) -> int:
    for method, _, _ in channel.consume("bench"):
        channel.basic_ack(method.delivery_tag)
        if method.delivery_tag == _MANY:
            break
    return _MANY


def _rabbitry(url: str, work: Callable[[BlockingChannel], int]) -> float:
    with rabbitry.connect_blocking(url) as connection:
        channel = connection.channel(prefetch=200)
        channel.declare_queue("bench", durable=True)
        started = time.perf_counter()
        count = work(channel)
        return count / (time.perf_counter() - started)


def _publish(channel: BlockingChannel) -> int:
    for _ in range(_ONE_BY_ONE):
        channel.publish(_BODY, routing_key="bench")
    return _ONE_BY_ONE


def _send(channel: BlockingChannel) -> int:
    for _ in range(_MANY):
        channel.send(_BODY, routing_key="bench")
    channel.wait_for_confirms()
    return _MANY


def _consume(channel: BlockingChannel) -> int:
    with channel.consume("bench") as deliveries:
        for number, delivery in enumerate(deliveries, 1):
            delivery.ack()
            if number == _MANY:
                return number
    return 0


def _purge(url: str) -> None:
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        channel.queue_declare("bench", durable=True)
        channel.queue_purge("bench")


def _rounds(url: str) -> dict[str, float]:
    rates: dict[str, list[float]] = {}
    for _ in range(_ROUNDS):
        _purge(url)
        measures: list[tuple[str, Callable[[], float]]] = [
            ("pika publish one by one", lambda: _pika(url, _pika_publish)),
            ("rabbitry publish one by one", lambda: _rabbitry(url, _publish)),
            ("rabbitry send in a window", lambda: _rabbitry(url, _send)),
            ("pika consume", lambda: _pika(url, _pika_consume)),
            ("rabbitry send again", lambda: _rabbitry(url, _send)),
            ("rabbitry consume", lambda: _rabbitry(url, _consume)),
        ]
        for name, measure in measures:
            rates.setdefault(name, []).append(measure())
    return {name: statistics.median(values) for name, values in rates.items()}


def main() -> None:
    """Measure on both brokers and print messages a second, and the ratios to pika."""
    for label, broker in (("RabbitMQ 3.10.8", RabbitMQ()), ("the embedded broker", BrokerProcess(anew=True))):
        with broker:
            rates = _rounds(broker.url)
        print(f"on {label}, messages of {len(_BODY)} bytes, durable, median of {_ROUNDS}:")
        for name, rate in rates.items():
            if name != "rabbitry send again":
                print(f"  {name:28} {rate:10,.0f}/s")
        publish = rates["rabbitry publish one by one"] / rates["pika publish one by one"]
        consume = rates["rabbitry consume"] / rates["pika consume"]
        print(f"  {'ratio to pika':28} publish {publish:.2f}, consume {consume:.2f}")


if __name__ == "__main__":
    main()
