"""Requeueing: the positions in which classic and quorum queues put messages, and the order of dead letters."""

from typing import Final

from rabbitry.amqp.protocol import methods as m
from rabbitry.amqp.protocol.tables import Table
from tests.differential.peer import Peer
from tests.differential.registry import add, case, of

_SETTLES: Final = 0.3
"""Seconds of silence after which a quorum queue is done: its answers are asynchronous."""


def _queue(kind: str, count: int, peer: Peer, **arguments: int) -> None:
    """Declare a queue with a dead letter queue beside it, and publish messages 1 to `count` to it."""
    more: Table = {name.replace("_", "-"): value for name, value in arguments.items()}
    dead: Table = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}
    peer.queue("dead")
    peer.call(m.QueueDeclare(queue="q", durable=True, arguments={"x-queue-type": kind, **dead, **more}))
    peer.call(m.ConfirmSelect())
    for number in range(1, count + 1):
        peer.publish("", "q", b"%d" % number)
    peer.until_it_has("q", count)
    peer.open(2)


def _consume(peer: Peer, *tags: str, prefetch: int) -> None:
    """Start consumers on channel 2 one after the other, let each fill its prefetch, and cancel them."""
    peer.call(m.BasicQos(0, prefetch, False), 2)
    for tag in tags:
        peer.consume("q", tag, channel=2)
        peer.quiet(_SETTLES)
    for tag in tags:
        peer.call(m.BasicCancel(tag), 2)


def _get(peer: Peer, count: int) -> None:
    for _ in range(count):
        peer.get("q", no_ack=False, channel=2)


def _nack(peer: Peer, tag: int, *, multiple: bool = False, requeue: bool = True) -> None:
    peer.send(m.BasicNack(tag, multiple, requeue), 2)
    peer.quiet(_SETTLES)


def _drain(peer: Peer, queue: str = "q") -> None:
    """Get messages until the queue is empty."""
    while "BasicGetEmpty" not in peer.log[-1] and peer.is_open:
        peer.get(queue)


def _one_by_one(kind: str, limit: bool, peer: Peer) -> None:
    arguments = {"x_delivery_limit": 5} if limit else {}
    _queue(kind, 6, peer, **arguments)
    _get(peer, 4)
    _nack(peer, 3)
    _nack(peer, 1)
    _drain(peer)
    _nack(peer, 4, multiple=True)
    _drain(peer)


def _by_recover(kind: str, peer: Peer) -> None:
    _queue(kind, 4, peer)
    _get(peer, 2)
    peer.call(m.BasicRecover(True), 2)
    peer.quiet(_SETTLES)
    _drain(peer)


def _by_the_channels_end(kind: str, peer: Peer) -> None:
    _queue(kind, 8, peer)
    _get(peer, 2)
    _consume(peer, "b", "a", prefetch=2)
    _nack(peer, 3)
    peer.call(m.ChannelClose(200, "", 0, 0), 2)
    peer.quiet(_SETTLES)
    _drain(peer)


def _of_two_consumers(kind: str, requeue: bool, peer: Peer) -> None:
    _queue(kind, 8, peer)
    _get(peer, 2)
    _consume(peer, "b", "a", prefetch=2)
    _nack(peer, 0, multiple=True, requeue=requeue)
    _drain(peer, "q" if requeue else "dead")


def _at_a_commit(kind: str, peer: Peer) -> None:
    _queue(kind, 8, peer)
    peer.call(m.TxSelect(), 2)
    _consume(peer, "b", "a", prefetch=2)
    _nack(peer, 2)
    _nack(peer, 1)
    _nack(peer, 0, multiple=True)
    peer.call(m.TxCommit(), 2)
    peer.quiet(_SETTLES)
    _drain(peer)


def _beyond_a_length(kind: str, peer: Peer) -> None:
    _queue(kind, 3, peer, x_max_length=3)
    _get(peer, 2)
    for body in (b"4", b"5"):
        peer.publish("", "q", body)
    peer.until_it_has("q", 3)
    _nack(peer, 1)
    _drain(peer)


for _kind in ("classic", "quorum"):
    add(f"requeue_one_by_one_{_kind}", of(_one_by_one, _kind, False))
    add(f"requeue_by_recover_{_kind}", of(_by_recover, _kind))
    add(f"requeue_by_the_channels_end_{_kind}", of(_by_the_channels_end, _kind))
    add(f"requeue_of_two_consumers_{_kind}", of(_of_two_consumers, _kind, True))
    add(f"reject_of_two_consumers_{_kind}", of(_of_two_consumers, _kind, False))
    add(f"requeue_at_a_commit_{_kind}", of(_at_a_commit, _kind))
    add(f"requeue_beyond_a_length_{_kind}", of(_beyond_a_length, _kind))
add("requeue_one_by_one_with_a_delivery_limit", of(_one_by_one, "quorum", True))


@case
def requeue_eleven_gets_by_the_channels_end(peer: Peer) -> None:
    _queue("quorum", 12, peer)
    _get(peer, 11)
    peer.call(m.ChannelClose(200, "", 0, 0), 2)
    peer.quiet(_SETTLES)
    _drain(peer)


@case
def requeue_to_a_consumer_that_waits(peer: Peer) -> None:
    _queue("quorum", 4, peer)
    peer.call(m.BasicQos(0, 2, False), 2)
    peer.consume("q", "c", channel=2)
    peer.quiet(_SETTLES)
    for tag in (2, 1, 3):
        _nack(peer, tag)
    peer.count("q")
