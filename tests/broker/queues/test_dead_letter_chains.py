"""Dead letters that pass many queues in a row: none is lost, and no other client waits for them."""

from pathlib import Path

import pytest

import rabbitry
from rabbitry.amqp.protocol import methods as m
from rabbitry.amqp.protocol.layouts import NO_ARGUMENTS
from rabbitry.amqp.protocol.properties import Properties, decode_header, encode_header
from rabbitry.amqp.protocol.tables import FieldValue, Table
from rabbitry.broker import Broker, BrokerConfig
from rabbitry.broker._queues import Queue
from rabbitry.broker._queues.arguments import Rules
from rabbitry.broker._queues.dead_letter import dead_letter
from rabbitry.broker.compat import RELEASES
from rabbitry.broker.message import Message
from rabbitry.testing._broker import RunningBroker
from tests.differential.peer import Peer
from tests.support.waiting import eventually

KINDS: dict[str, Table] = {
    "expired": {"x-message-ttl": 0},
    "maxlen": {"x-max-length": 0},
    "refused": {"x-max-length": 0, "x-overflow": "reject-publish-dlx"},
}


def _chain(broker: Broker, arguments: Table, length: int) -> Queue:
    """Declare queues of which each dead-letters into the next one; return the last one, which keeps its messages."""
    vhost = broker.vhosts["/"]
    for number in range(length):
        next_one: Table = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": f"q{number + 1}"}
        _declare(broker, f"q{number}", {**arguments, **next_one})
    _declare(broker, f"q{length}", NO_ARGUMENTS)
    return vhost.queues[f"q{length}"]


def _declare(broker: Broker, name: str, arguments: Table) -> None:
    vhost = broker.vhosts["/"]
    vhost.declare_queue(name, None, durable=True, exclusive=False, auto_delete=False, arguments=arguments)


def _deaths(message: Message) -> list[object]:
    deaths = (decode_header(message.header).headers or {})["x-death"]
    assert isinstance(deaths, list)
    return deaths


async def _pass(broker: Broker, kind: str, length: int) -> None:
    last = _chain(broker, KINDS[kind], length)
    async with rabbitry.connect(broker.url) as connection, await connection.channel() as channel:
        await channel.publish(b"1", routing_key="q0", timeout=60)
        assert not len(last), "the confirm does not wait for all of the chain"
        await channel.declare_queue("other")  # nor does anybody else
        assert not len(last)
        await eventually(lambda: len(last) == 1, "the letter has passed all queues", within=240)
    assert all(not len(queue) for queue in broker.vhosts["/"].queues.values() if queue is not last)
    (entry,) = last.held()
    assert entry.message.body == b"1"
    assert len(_deaths(entry.message)) == length


@pytest.mark.parametrize("kind", ["expired", "maxlen"])
async def test_a_letter_passes_a_chain_of_queues(kind: str, tmp_path: Path) -> None:
    async with Broker(BrokerConfig(port=0, data=tmp_path)) as broker:
        await _pass(broker, kind, 400)


@pytest.mark.faults
async def test_a_letter_passes_a_chain_of_two_thousand_queues() -> None:
    async with Broker(BrokerConfig(port=0)) as broker:
        await _pass(broker, "expired", 2000)


async def test_a_letter_refused_by_a_chain_of_full_queues_reaches_its_end() -> None:
    async with Broker(BrokerConfig(port=0)) as broker, rabbitry.connect(broker.url) as connection:
        last = _chain(broker, KINDS["refused"], 400)
        channel = await connection.channel()
        with pytest.raises(rabbitry.PublishRefused):
            await channel.publish(b"1", routing_key="q0", timeout=60)
        await eventually(lambda: len(last) == 1, "the letter has passed all queues")


async def test_a_letter_with_a_time_to_live_of_zero_goes_to_a_waiting_consumer() -> None:
    async with Broker(BrokerConfig(port=0)) as broker, rabbitry.connect(broker.url) as connection:
        last = _chain(broker, KINDS["expired"], 2)
        channel = await connection.channel()
        async with channel.consume("q1") as deliveries:
            for body in (b"1", b"2"):
                await channel.publish(body, routing_key="q0")
                delivery = await anext(deliveries)
                assert delivery.body == body
                delivery.ack()
        assert not len(last)


def test_queues_deliver_dead_letters_in_the_order_in_which_they_got_them() -> None:
    with RunningBroker() as broker, Peer(broker.url) as peer:
        for source, target in (("from-1", "b"), ("from-2", "c"), ("from-3", "a")):
            peer.queue(target)
            dead: Table = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": target}
            peer.call(m.QueueDeclare(queue=source, arguments=dead))
        for target in ("a", "b", "c"):
            peer.consume(target, target, no_ack=True)
        for body in (b"1", b"2"):
            for source in ("from-1", "from-2", "from-3"):
                peer.publish("", source, body)
                peer.get(source, no_ack=False)
        peer.log.clear()
        peer.send(m.BasicNack(6, multiple=True, requeue=False))
        while len(peer.log) < 6 and peer.is_open:
            peer.quiet()
    order = [(line.split("consumer_tag='")[1][0], line[-2]) for line in peer.log[:6]]
    assert list(dict(order)) == ["b", "c", "a"]
    for target in ("a", "b", "c"):
        assert [body for queue, body in order if queue == target] == ["1", "2"]


@pytest.mark.parametrize("first", ["full", "end"])
async def test_a_letter_that_a_full_queue_refuses_follows_the_one_being_published(first: str) -> None:
    async with Broker(BrokerConfig(port=0)) as broker, rabbitry.connect(broker.url) as connection:
        vhost = broker.vhosts["/"]
        _declare(broker, "end", NO_ARGUMENTS)
        to_end: Table = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "end"}
        _declare(broker, "full", {**KINDS["refused"], **to_end})
        _declare(broker, "start", {"x-max-length": 0, "x-dead-letter-exchange": "amq.fanout"})
        for name in dict.fromkeys((first, "full", "end")):
            vhost.bind("amq.fanout", vhost.queues[name], "", NO_ARGUMENTS)
        channel = await connection.channel()
        await channel.publish(b"1", routing_key="start")
        end = vhost.queues["end"]
        await eventually(lambda: len(end) == 2, "both copies are at the end")
        assert [len(_deaths(entry.message)) for entry in end.held()] == [1, 2]


def test_deaths_are_counted_in_time_that_grows_with_their_number() -> None:
    """A client may send thousands of them; comparing each with each would take minutes."""
    deaths: list[FieldValue] = [{"queue": f"q{number % 20_000}", "reason": "expired"} for number in range(40_000)]
    deaths += [{"queue": ["no name"], "reason": {"of": "any kind"}}] * 2
    header = encode_header(Properties(headers={"x-death": deaths}), 1)
    letter, properties, _ = dead_letter(
        Message(b"\0\1q", header, b"x", False), "q7", "expired", "", Rules(), RELEASES["3.10"]
    )
    assert len(_deaths(letter)) == 20_001
    counted = (properties.headers or {})["x-death"]
    assert isinstance(counted, list)
    assert counted[0] == {"queue": "q7", "reason": "expired", "count": 3}
    assert counted[1] == {"queue": ["no name"], "reason": {"of": "any kind"}, "count": 2}
