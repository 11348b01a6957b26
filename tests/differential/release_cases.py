"""The differences between the releases of RabbitMQ that `rabbitry.broker.compat` names, one script or family each."""

from collections.abc import Sequence
from typing import Final

from rabbitry.amqp.protocol import methods as m
from rabbitry.amqp.protocol.constants import PROTOCOL_HEADER
from rabbitry.amqp.protocol.properties import Properties, encode_header
from rabbitry.amqp.protocol.tables import Table
from tests.differential.peer import CAPABILITIES, Peer
from tests.differential.registry import add, case, of

_SETTLES: Final = 0.3
"""Seconds of silence after which a quorum queue is done: its answers are asynchronous."""
_QUORUM: Final[Table] = {"x-queue-type": "quorum", "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}


def _quorum(peer: Peer, **arguments: int) -> None:
    """Declare a quorum queue with a dead letter queue beside it, and confirm publishes from now on."""
    more: Table = {name.replace("_", "-"): value for name, value in arguments.items()}
    peer.queue("dead")
    peer.call(m.QueueDeclare(queue="q", durable=True, arguments={**_QUORUM, **more}))
    peer.call(m.ConfirmSelect())


def _publish(peer: Peer, priorities: Sequence[int | None]) -> None:
    """Publish messages that have their number and priority as body, each after the last one's confirm."""
    for number, priority in enumerate(priorities):
        peer.publish("", "q", f"{number}:{priority}".encode(), Properties(priority=priority))
        peer.quiet()


def _drain(peer: Peer, queue: str = "q") -> None:
    while peer.is_open:
        peer.get(queue)
        if "BasicGetEmpty" in peer.log[-1]:
            return


def _returned_often(times: int, peer: Peer, **arguments: int) -> None:
    _quorum(peer, **arguments)
    _publish(peer, [None, None])
    for _ in range(times):
        peer.get("q", no_ack=False)
        peer.send(m.BasicNack(peer.tag, requeue=True))
        peer.quiet()
    _drain(peer)
    peer.quiet(_SETTLES)
    _drain(peer, "dead")


def _limited(limit: int, peer: Peer) -> None:
    _returned_often(4, peer, x_delivery_limit=limit)


@case
def quorum_returned_22_times(peer: Peer) -> None:
    _returned_often(22, peer)


for _limit in (-2, -1, 0, 2):
    add(f"quorum_returned_with_limit_{_limit}", of(_limited, _limit))
_PRIORITIES: Final = (0, 4, 5, None, 9, 255, 1, 6, None, 7, 8, 5, None, None)


@case
def quorum_priorities(peer: Peer) -> None:
    _quorum(peer)
    _publish(peer, _PRIORITIES)
    _drain(peer)


@case
def quorum_priorities_after_other_messages(peer: Peer) -> None:
    _quorum(peer)
    _publish(peer, (None, None))
    _drain(peer)
    _publish(peer, _PRIORITIES)
    _drain(peer)


@case
def quorum_priorities_and_returns(peer: Peer) -> None:
    _quorum(peer)
    _publish(peer, (9, 0, 9, 0, 9, 0, 9))
    for _ in range(4):
        peer.get("q", no_ack=False)
    for tag in (3, 1):
        peer.send(m.BasicNack(tag, requeue=True))
        peer.quiet(_SETTLES)
    _drain(peer)


@case
def quorum_priorities_beyond_a_length(peer: Peer) -> None:
    _quorum(peer, x_max_length=3)
    _publish(peer, (9, 0, 9, 0, 9, 0, 9))
    peer.quiet(_SETTLES)
    _drain(peer)
    _drain(peer, "dead")


@case
def quorum_priorities_to_a_consumer(peer: Peer) -> None:
    _quorum(peer)
    _publish(peer, (0, 0, 9, 9, 9, 0, 9))
    peer.consume("q", no_ack=True)
    peer.quiet(_SETTLES)


@case
def deaths_published_again(peer: Peer) -> None:
    """A consumer publishes a dead letter again with its headers, as programs that retry do."""
    peer.queue("dead")
    dead: Table = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}
    peer.call(m.QueueDeclare(queue="q", arguments=dead))
    peer.publish("", "q", b"x")
    for _ in range(3):
        peer.get("q", no_ack=False)
        peer.send(m.BasicReject(peer.tag, requeue=False))
        peer.quiet()
        peer.get("dead")
        assert peer.properties is not None
        peer.publish("", "q", b"x", peer.properties)
        peer.quiet()
    peer.get("q")


def _cycle(reject: bool, again: bool, peer: Peer) -> None:
    """Let a message go in a circle of two queues; again: publish it once with the deaths of the first rounds."""
    for queue, other in (("q", "w"), ("w", "q")):
        ttl: Table = {"x-message-ttl": 100} if queue == "w" else {}
        arguments: Table = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": other, **ttl}
        peer.call(m.QueueDeclare(queue=queue, arguments=arguments))
    peer.publish("", "w" if again else "q", b"x")
    for number in range(3):
        if reject or not number:
            peer.until_it_has("q", 1)
        peer.quiet(0.4)
        peer.get("q", no_ack=False)
        if "BasicGetEmpty" in peer.log[-1]:
            return
        if again:
            peer.send(m.BasicAck(peer.tag))
            assert peer.properties is not None
            peer.publish("", "w", b"x", peer.properties)
        else:
            peer.send(m.BasicReject(peer.tag, requeue=False))
    peer.quiet(0.4)


add("deaths_in_a_circle", of(_cycle, True, False))
add("deaths_in_a_circle_published_again", of(_cycle, False, True))


@case
def message_above_16_mib(peer: Peer) -> None:
    peer.queue("q")
    size = (16 << 20) + 1
    peer.send(m.BasicPublish("", "q"))
    peer.frame(2, 1, encode_header(Properties(), size))
    for start in range(0, size, 131_000):
        peer.frame(3, 1, bytes(min(131_000, size - start)))
    peer.carried_out()
    if "ChannelClose(" in peer.log[-1]:
        peer.open(1)
    peer.count("q")


def _anonymous(response: bytes, peer: Peer) -> None:
    with Peer(peer.url, log_in=False) as other:
        other.raw(PROTOCOL_HEADER)
        other.call_on(0, None)
        other.call_on(0, m.ConnectionStartOk({"capabilities": CAPABILITIES}, "ANONYMOUS", response, "en_US"))
        peer.log += other.log
        other.drop()


add("login_anonymous", of(_anonymous, b""))
add("login_anonymous_with_a_trace", of(_anonymous, b"somebody"))


@case
def declared_arguments_are_compared_with_the_type(peer: Peer) -> None:
    peer.queue("q")
    for kind in ("classic", "quorum", None):
        peer.call(m.QueueDeclare("q", arguments={"x-queue-type": kind}))
        if "ChannelClose(" in peer.log[-1]:
            peer.open(1)
