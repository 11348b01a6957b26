"""What NServiceBus does at its start and with a delayed message, with pika: .NET can't be installed here.

Read in the source of its transport for RabbitMQ (conventional routing, quorum queues): the check that streams exist,
the levels of delayed delivery, the exchanges of endpoints and message types, the requests to the management API.
"""

import asyncio
from typing import Final

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from rabbitry.broker import Broker, BrokerConfig
from rabbitry.broker.compat import Compat
from tests.support.management import Api

_LEVELS: Final = 28
_DELIVERY: Final = "nsb.v2.delay-delivery"
_ENDPOINT: Final = "Shop.Sales"
_ERRORS: Final = "error"


def _level(number: int) -> str:
    return f"nsb.v2.delay-level-{number:02}"


def _build_delays(channel: BlockingChannel) -> None:
    before = ""
    for number in reversed(range(_LEVELS)):
        channel.exchange_declare(_level(number), "topic", durable=True)
        arguments = {
            "x-queue-type": "quorum",
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
            "x-message-ttl": 2**number * 1000,
            "x-dead-letter-exchange": _level(number - 1) if number else _DELIVERY,
        }
        channel.queue_declare(_level(number), durable=True, arguments=arguments)
        channel.queue_bind(_level(number), _level(number), f"{before}1.#")
        before += "*."
    before = ""
    for number in reversed(range(1, _LEVELS)):
        channel.exchange_bind(_level(number - 1), _level(number), f"{before}0.#")
        before += "*."
    channel.exchange_declare(_DELIVERY, "topic", durable=True)
    channel.exchange_bind(_DELIVERY, _level(0), f"{before}0.#")


def _build_endpoint(channel: BlockingChannel) -> None:
    for address in (_ENDPOINT, _ERRORS):
        channel.queue_declare(address, durable=True, arguments={"x-queue-type": "quorum"})
        channel.exchange_declare(address, "fanout", durable=True)
        channel.queue_bind(address, address, "")
    channel.exchange_bind(_ENDPOINT, _DELIVERY, f"#.{_ENDPOINT}")
    for kind in ("Shop.Events:OrderPlaced", "Shop.Events:IOrderEvent"):
        channel.exchange_declare(kind, "fanout", durable=True)
    channel.exchange_bind("Shop.Events:IOrderEvent", "Shop.Events:OrderPlaced", "")
    channel.exchange_bind(_ENDPOINT, "Shop.Events:IOrderEvent", "")


def test_an_endpoint_starts_and_gets_commands_events_and_delayed_messages(broker_url: str) -> None:
    with pika.BlockingConnection(pika.URLParameters(broker_url)) as connection:
        channel = connection.channel()
        channel.queue_declare("nsb.v2.verify-stream-flag-enabled", durable=True, arguments={"x-queue-type": "stream"})
        for _ in range(2):  # each start declares everything again
            _build_delays(channel)
            _build_endpoint(channel)
        channel.confirm_delivery()
        channel.basic_qos(prefetch_count=3)
        headers = {
            "NServiceBus.MessageId": "1",
            "NServiceBus.ReplyToAddress": _ENDPOINT,
            "NServiceBus.NonDurableMessage": "False",
        }
        properties = pika.BasicProperties(message_id="1", delivery_mode=2, headers=headers, type="OrderPlaced")
        channel.basic_publish(_ENDPOINT, "", b"command", properties, mandatory=True)
        channel.basic_publish("Shop.Events:OrderPlaced", "", b"event", properties)
        delayed = pika.BasicProperties(
            delivery_mode=2, headers={**headers, "NServiceBus.Transport.RabbitMQ.DelayInSeconds": 1}
        )
        key = "0." * (_LEVELS - 1) + f"1.{_ENDPOINT}"
        channel.basic_publish(_level(0), key, b"delayed", delayed, mandatory=True)
        found: dict[bytes, dict[str, object]] = {}
        for method, received, body in channel.consume(_ENDPOINT, inactivity_timeout=120):
            assert method is not None, f"only {list(found)} came"
            found[body] = received.headers
            channel.basic_ack(method.delivery_tag)
            if len(found) == 3:
                break
        channel.cancel()
        channel.basic_publish(
            _ERRORS, "", b"failed", pika.BasicProperties(headers=headers, delivery_mode=2), mandatory=True
        )
        assert channel.basic_get(_ERRORS, auto_ack=True)[2] == b"failed"
    assert set(found) == {b"command", b"event", b"delayed"}
    deaths = found[b"delayed"]["x-death"]
    assert isinstance(deaths, list)
    assert [(death["queue"], death["reason"]) for death in deaths] == [(_level(0), "expired")]


@pytest.mark.parametrize(("compat", "unlimited"), [("3.10", False), ("4.0", True)])
async def test_the_management_api_answers_what_it_verifies(compat: Compat, unlimited: bool) -> None:
    async with Broker(BrokerConfig(port=0, management_port=0, compat=compat)) as broker:
        api = Api(broker.management_url)

        async def ask(method: str, path: str, body: object = None) -> tuple[int, object]:
            return await asyncio.to_thread(api, method, path, body)

        _, overview = await ask("GET", "/api/overview")
        assert isinstance(overview, dict)
        assert tuple(map(int, str(overview["rabbitmq_version"]).split("."))) >= (3, 10, 0)
        _, flags = await ask("GET", "/api/feature-flags")
        assert isinstance(flags, list)
        assert {flag["name"]: flag["state"] for flag in flags}["stream_queue"] == "enabled"
        await ask("PUT", "/api/queues/%2F/q", {"durable": True, "arguments": {"x-queue-type": "quorum"}})
        policy = {"pattern": "q", "definition": {"delivery-limit": -1}, "apply-to": "quorum_queues", "priority": 100}
        status, _ = await ask("PUT", "/api/policies/%2F/nsb.q.delivery-limit", policy)
        assert (status < 300) == unlimited
        assert (broker.vhosts["/"].queues["q"].rules.delivery_limit is None) == (unlimited or compat == "3.10")
