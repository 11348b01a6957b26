"""The order of a queue: requeued messages return to their places; and the routing of its dead letters."""

import gc

from hypothesis import given
from hypothesis import strategies as st

import rabbitry
from rabbitry.amqp.protocol.layouts import NO_ARGUMENTS
from rabbitry.amqp.protocol.tables import Table
from rabbitry.broker import Broker, BrokerConfig
from rabbitry.broker._queues import ClassicQueue, Queue
from rabbitry.broker._queues.arguments import Rules
from rabbitry.broker.message import Entry, Message


def _queue(count: int) -> Queue:
    queue = ClassicQueue(
        Broker().vhosts["/"],
        "q",
        durable=False,
        auto_delete=False,
        owner=None,
        arguments=NO_ARGUMENTS,
        rules=Rules(),
    )
    for number in range(count):
        queue.push(Message(b"", b"", b"%d" % number, False))
    return queue


def _take(queue: Queue) -> Entry | None:
    """Take a message as a delivery does."""
    entry = queue.get()
    if entry is not None:
        queue.delivered += 1
    return entry


@given(st.integers(0, 12), st.lists(st.integers(0, 11), unique=True), st.randoms(use_true_random=False))
def test_requeued_messages_keep_the_order(taken: int, back: list[int], random: object) -> None:
    queue = _queue(12)
    entries: list[Entry] = []
    for _ in range(taken):
        entry = _take(queue)
        assert entry is not None
        entries.append(entry)
    returned = [number for number in back if number < taken]
    for number in returned:
        queue.requeue(entries[number])
    assert len(queue) == 12 - taken + len(returned)
    left: list[tuple[bytes, bool]] = []
    while (entry := _take(queue)) is not None:
        left.append((entry.message.body, entry.redelivered))
    again = [(b"%d" % number, True) for number in sorted(returned)]
    assert left == again + [(b"%d" % number, False) for number in range(taken, 12)]


def test_purge_counts_ready_messages() -> None:
    queue = _queue(5)
    entry = _take(queue)
    assert entry is not None
    queue.requeue(entry)
    assert _take(queue) is entry
    assert queue.purge()[0] == 4
    assert len(queue) == 0


async def test_a_too_long_dead_letter_key_is_cut() -> None:
    arguments: Table = {"x-dead-letter-exchange": "amq.fanout", "x-dead-letter-routing-key": "k" * 300}
    async with Broker(BrokerConfig(port=0)) as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        await channel.declare_queue("q", arguments=arguments)
        await channel.declare_queue("dead")
        await channel.bind_queue("dead", "amq.fanout")
        await channel.publish(b"1", routing_key="q")
        delivery = await channel.get("q")
        assert delivery is not None
        delivery.reject(requeue=False)
        async with channel.consume("dead") as deliveries:
            letter = await anext(deliveries)
            letter.ack()
        assert (letter.body, letter.routing_key) == (b"1", "k" * 255)


async def test_messages_are_not_tracked_by_the_garbage_collector() -> None:
    queue = _queue(2)
    entry = _take(queue)
    assert entry is not None
    queue.requeue(entry)
    assert entry in set(queue.held()), "its identity counts"
    for held in queue.held():
        assert not gc.is_tracked(held)
        assert not gc.is_tracked(held.message)
