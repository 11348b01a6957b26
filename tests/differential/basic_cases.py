"""Consuming: consumers and their refusals, prefetch, settling, get, recover."""

from typing import Final

from rabbitry.amqp.protocol import methods as m
from rabbitry.amqp.protocol.tables import FieldValue, Table
from tests.differential.peer import Peer
from tests.differential.registry import add, case, of


def _fill(peer: Peer, count: int, **arguments: FieldValue) -> None:
    peer.queue("q", **arguments)
    for number in range(1, count + 1):
        peer.publish("", "q", b"%d" % number)


@case
def consume_and_cancel(peer: Peer) -> None:
    _fill(peer, 2)
    peer.consume("q")
    peer.quiet()
    peer.call(m.BasicCancel("c"))
    peer.publish("", "q", b"after")
    peer.call(m.BasicCancel("c"))
    peer.call(m.BasicCancel("never"))
    peer.count("q")
    peer.send(m.BasicAck(2, True))
    peer.get("q")


@case
def consume_missing(peer: Peer) -> None:
    peer.consume("missing")
    peer.open(1)
    peer.consume("")


@case
def consumer_tag_twice(peer: Peer) -> None:
    _fill(peer, 0)
    peer.consume("q", "c")
    peer.consume("q", "c")


@case
def consumer_tag_on_two_channels(peer: Peer) -> None:
    _fill(peer, 0)
    peer.open(2)
    peer.consume("q", "c")
    peer.consume("q", "c", channel=2)


@case
def consumer_tag_of_the_broker(peer: Peer) -> None:
    _fill(peer, 1)
    peer.consume("q", "", no_ack=True)
    peer.quiet()


@case
def exclusive_consumer(peer: Peer) -> None:
    _fill(peer, 0)
    peer.open(2)
    peer.open(3)
    peer.consume("q", "a", exclusive=True)
    peer.consume("q", "b", channel=2)
    peer.call(m.BasicGet("q"), 3)


@case
def exclusive_where_others_are(peer: Peer) -> None:
    _fill(peer, 0)
    peer.consume("q", "a")
    peer.consume("q", "b", exclusive=True)


@case
def no_local_is_ignored(peer: Peer) -> None:
    peer.queue("q")
    peer.consume("q", no_local=True, no_ack=True)
    peer.publish("", "q", b"own")
    peer.quiet()


def _prioritised(value: FieldValue, peer: Peer) -> None:
    peer.queue("q")
    peer.consume("q", "low", no_ack=True)
    peer.consume("q", "high", no_ack=True, arguments={"x-priority": value})
    for number in range(3):
        peer.publish("", "q", b"%d" % number)
    peer.quiet()


for _index, _value in enumerate((5, -5, "5", True, None, 1.5)):
    add(f"consumer_priority_{_index}", of(_prioritised, _value))


@case
def consumer_priority_and_prefetch(peer: Peer) -> None:
    peer.queue("q")
    peer.consume("q", "low", no_ack=True)
    peer.call(m.BasicQos(prefetch_count=1))
    peer.consume("q", "high", arguments={"x-priority": 5})
    for number in range(3):
        peer.publish("", "q", b"%d" % number)
        peer.quiet()


@case
def single_active_consumer(peer: Peer) -> None:
    peer.queue("q", x_single_active_consumer=True)
    peer.consume("q", "a", no_ack=True)
    peer.consume("q", "b", no_ack=True)
    peer.consume("q", "c", no_ack=True)
    for number in range(3):
        peer.publish("", "q", b"%d" % number)
    peer.quiet()
    peer.call(m.BasicCancel("a"))
    for number in range(3):
        peer.publish("", "q", b"%d" % number)
    peer.quiet()


@case
def single_active_consumer_and_exclusive(peer: Peer) -> None:
    peer.queue("q", x_single_active_consumer=True)
    peer.consume("q", "a", exclusive=True)
    peer.open(1)
    peer.get("q")


@case
def turns(peer: Peer) -> None:
    peer.queue("q")
    peer.consume("q", "a", no_ack=True)
    peer.consume("q", "b", no_ack=True)
    for number in range(6):
        peer.publish("", "q", b"%d" % number)
        peer.quiet(0.02)


@case
def prefetch(peer: Peer) -> None:
    _fill(peer, 5)
    peer.call(m.BasicQos(prefetch_count=2))
    peer.consume("q")
    peer.quiet()
    peer.send(m.BasicAck(1))
    peer.quiet()
    peer.send(m.BasicAck(3, True))
    peer.quiet()


@case
def prefetch_of_the_channel(peer: Peer) -> None:
    _fill(peer, 5)
    peer.call(m.BasicQos(prefetch_count=2, global_=True))
    peer.consume("q", "a")
    peer.consume("q", "b")
    peer.quiet()
    peer.send(m.BasicAck(1))
    peer.quiet()
    peer.call(m.BasicQos(prefetch_count=0, global_=True))
    peer.quiet()


def _consumed_with(kind: str, arguments: Table, peer: Peer) -> None:
    peer.queue("q", durable=True, x_queue_type=kind)
    peer.consume("q", arguments=arguments)


for _kind in ("classic", "quorum"):
    for _index, _arguments in enumerate(
        (
            {"x-cancel-on-ha-failover": True},
            {"x-cancel-on-ha-failover": 1},
            {"x-cancel-on-ha-failover": "true", "x-priority": "1"},
            {"x-stream-offset": 1},
            {"x-stream-offset": "first", "x-priority": 1.0},
            {"x-stream-offset": "first", "x-cancel-on-ha-failover": None},
            {"x-own": 1},
        )
    ):
        add(f"consume_arguments_{_kind}_{_index}", of(_consumed_with, _kind, _arguments))


def _prefetches(steps: tuple[tuple[int, bool] | str, ...], peer: Peer) -> None:
    """Set prefetch limits (count, global) and start consumers in turn, each on a queue of its own; then settle all."""
    for queue in ("left", "right"):
        peer.queue(queue)
        for number in range(10):
            peer.publish("", queue, b"%d" % number)
    peer.until_it_has("right", 10)
    for step in steps:
        if isinstance(step, str):
            peer.consume(step, step)
        else:
            peer.call(m.BasicQos(0, *step))
        peer.quiet()
    peer.send(m.BasicAck(0, True))
    peer.quiet()
    peer.log = [f"{sum('BasicDeliver' in line for line in peer.log)} delivered"]  # which queue sends it is chance


_LIMITS: Final[tuple[tuple[tuple[int, bool] | str, ...], ...]] = (
    ((4, True), (3, False), "left", "right"),
    ((4, True), "left", (3, False), "right"),
    ((4, True), "left", "right", (0, False)),
    ((4, True), "left", "right", (2, False)),
    ((3, False), (4, True), "left", "right"),
    ((3, False), (4, True), "left", "right", (0, True)),
    ((4, True), (3, False), (5, True), "left", "right"),
    ((2, True), "left", (5, True), "right"),
    ((5, True), "left", (2, True), "right", (1, False)),
)
for _index, _steps in enumerate(_LIMITS):
    add(f"prefetches_{_index}", of(_prefetches, _steps))


@case
def a_channel_prefetch_that_was_lifted_is_none_to_a_quorum_queue(peer: Peer) -> None:
    peer.queue("q", durable=True, x_queue_type="quorum")
    peer.call(m.BasicQos(0, 4, True))
    peer.call(m.BasicQos(0, 2, False))
    peer.consume("q")
    peer.call(m.BasicQos(0, 4, True))
    peer.consume("q", "d")


@case
def prefetch_counts_no_gets(peer: Peer) -> None:
    _fill(peer, 4)
    peer.call(m.BasicQos(prefetch_count=1))
    peer.get("q", no_ack=False)
    peer.consume("q")
    peer.quiet()


@case
def prefetch_size(peer: Peer) -> None:
    peer.call(m.BasicQos(prefetch_size=10))


@case
def prefetch_changes_for_later_consumers(peer: Peer) -> None:
    _fill(peer, 6)
    peer.call(m.BasicQos(prefetch_count=1))
    peer.consume("q", "a")
    peer.quiet()
    peer.call(m.BasicQos(prefetch_count=2))
    peer.quiet()
    peer.consume("q", "b")
    peer.quiet()


@case
def getting(peer: Peer) -> None:
    _fill(peer, 2)
    peer.get("q", no_ack=False)
    peer.get("q")
    peer.get("q")
    peer.send(m.BasicReject(1, True))
    peer.get("q", no_ack=False)
    peer.send(m.BasicAck(peer.tag))
    peer.get("q")


@case
def get_missing(peer: Peer) -> None:
    peer.get("missing")
    peer.open(1)
    peer.get("")


_WRONG: Final[dict[str, tuple[m.Method, ...]]] = {
    "ack_unknown": (m.BasicAck(7),),
    "ack_unknown_multiple": (m.BasicAck(7, True),),
    "ack_nothing_multiple": (m.BasicAck(0, True),),
    "ack_zero": (m.BasicAck(0),),
    "ack_twice": (m.BasicAck(1), m.BasicAck(1)),
    "ack_multiple_twice": (m.BasicAck(2, True), m.BasicAck(2, True)),
    "ack_beyond_multiple": (m.BasicAck(9, True),),
    "nack_unknown": (m.BasicNack(7),),
    "nack_twice": (m.BasicNack(1, requeue=False), m.BasicNack(1)),
    "nack_all": (m.BasicNack(0, True, False),),
    "reject_unknown": (m.BasicReject(7),),
    "reject_zero": (m.BasicReject(0),),
}
for _name, _methods in _WRONG.items():

    def _settled(methods: tuple[m.Method, ...], peer: Peer) -> None:
        _fill(peer, 3)
        for _ in range(3):
            peer.get("q", no_ack=False)
        for method in methods:
            peer.send(method)
        peer.quiet()
        if peer.log[-1].startswith("1: ChannelClose"):
            peer.open(1)
        peer.count("q")

    add(f"settle_{_name}", of(_settled, _methods))


@case
def ack_on_another_channel(peer: Peer) -> None:
    _fill(peer, 1)
    peer.open(2)
    peer.get("q", no_ack=False)
    peer.send(m.BasicAck(1), 2)
    peer.quiet()


@case
def ack_of_no_ack(peer: Peer) -> None:
    _fill(peer, 1)
    peer.get("q")
    peer.send(m.BasicAck(1))
    peer.quiet()


@case
def what_comes_back_goes_to_its_place(peer: Peer) -> None:
    _fill(peer, 4)
    for _ in range(3):
        peer.get("q", no_ack=False)
    peer.send(m.BasicReject(3, True))
    peer.send(m.BasicReject(1, True))
    for _ in range(4):
        peer.get("q")


@case
def closing_the_channel_gives_back(peer: Peer) -> None:
    _fill(peer, 3)
    peer.open(2)
    peer.consume("q", channel=2)
    peer.quiet()
    peer.call(m.ChannelClose(200, "bye"), 2)
    for _ in range(4):
        peer.get("q")


@case
def cancel_keeps_what_is_unsettled(peer: Peer) -> None:
    _fill(peer, 2)
    peer.consume("q")
    peer.quiet()
    peer.call(m.BasicCancel("c"))
    peer.count("q")
    peer.send(m.BasicNack(0, True))
    peer.quiet()
    peer.count("q")


@case
def recovering(peer: Peer) -> None:
    _fill(peer, 2)
    peer.get("q", no_ack=False)
    peer.get("q", no_ack=False)
    peer.call(m.BasicRecover(True))
    peer.get("q", no_ack=False)
    peer.send(m.BasicRecoverAsync(True))
    peer.get("q")
    peer.get("q")


@case
def recovering_to_a_consumer(peer: Peer) -> None:
    _fill(peer, 2)
    peer.consume("q")
    peer.quiet()
    peer.call(m.BasicRecover(True))
    peer.quiet()


@case
def recover_without_requeue(peer: Peer) -> None:
    peer.call(m.BasicRecover(False))


@case
def recover_async_without_requeue(peer: Peer) -> None:
    peer.send(m.BasicRecoverAsync(False))
    peer.quiet()


@case
def unacked_messages_do_not_count(peer: Peer) -> None:
    _fill(peer, 3)
    peer.get("q", no_ack=False)
    peer.count("q")
    peer.consume("q")
    peer.quiet()
    peer.count("q")


@case
def an_empty_body(peer: Peer) -> None:
    peer.queue("q")
    peer.publish("", "q", b"")
    peer.get("q")


@case
def a_body_of_several_frames(peer: Peer) -> None:
    peer.queue("q")
    peer.publish("", "q", b"y" * 100_000)
    peer.get("q")


@case
def channel_flow(peer: Peer) -> None:
    peer.call(m.ChannelFlow(True))
    peer.call(m.ChannelFlow(False))


@case
def cancel_is_not_sent_to_whom_it_does_not_interest(peer: Peer) -> None:
    with Peer(peer.url, capabilities={}) as other:
        other.queue("q")
        other.consume("q")
        other.open(2)
        other.call(m.QueueDelete("q"), 2)
        other.quiet()
        peer.log += other.log


@case
def consumers_come_before_what_follows(peer: Peer) -> None:
    """Send all in one write: a published message has reached the consumer when the next method is carried out."""
    peer.queue("q")
    peer.consume("q", "first", no_ack=True)
    peer.consume("q", "second", no_ack=True)
    for following in (
        m.BasicGet("q", True),
        m.QueuePurge("q"),
        m.BasicCancel("first"),
        m.QueueDeclare("q", passive=True),
        m.QueueDelete("q"),
    ):
        seen = len(peer.log)
        peer.publish("", "q", b"one")
        peer.publish("", "q", b"two")
        peer.call(following)
        peer.quiet()
        peer.log[:] = [*peer.log[:seen], *sorted(peer.log[seen:])]  # the answer may overtake the deliveries


@case
def channel_prefetch_holds_back_those_who_need_not_acknowledge(peer: Peer) -> None:
    peer.call(m.BasicQos(0, 1, True))
    for queue, no_ack in (("a", False), ("b", True)):
        peer.queue(queue)
        peer.consume(queue, queue, no_ack=no_ack)
        peer.publish("", queue)
        peer.quiet()
    peer.send(m.BasicAck(1))
    peer.quiet()
    peer.publish("", "b", b"without an acknowledgement it takes no room")
    peer.quiet()
    peer.publish("", "a")
    peer.quiet()


@case
def channel_prefetch_over_several_queues(peer: Peer) -> None:
    """Check that each queue gets its share of the prefetch."""
    peer.call(m.BasicQos(0, 1, True))
    for queue in "abc":
        peer.queue(queue)
        for _ in range(20):
            peer.publish("", queue)
        peer.consume(queue, queue)
    for _ in range(20):
        peer.quiet(0.02)
        peer.send(m.BasicAck(0, True))
    peer.quiet()
    peer.log = [f"{queue}: {any(f'consumer_tag={queue!r}' in line for line in peer.log)}" for queue in "abc"]


def _limits(steps: tuple[tuple[int, bool] | str, ...], peer: Peer) -> None:
    """Set limits (prefetch, global) and start consumers of the named queues, step by step."""
    for name in ("a", "b"):
        peer.queue(name)
        for number in range(6):
            peer.publish("", name, b"%d" % number)
    peer.carried_out()
    for index, step in enumerate(steps):
        if isinstance(step, str):
            peer.consume(step, f"c{index}")
        else:
            peer.call(m.BasicQos(0, *step))
        peer.quiet()


for _index, _steps in enumerate(
    (
        ((0, True), "a", "b"),
        ((5, True), "a", (2, True), "b"),
        ((2, False), (3, True), "a", "b"),
        ((3, True), "a", (2, False), (4, True), "b"),
        ((4, True), (0, False), (0, True), "a"),
        ((1, False), "a", "a", "b"),
    )
):
    add(f"limits_of_channel_and_consumers_{_index}", of(_limits, _steps))
