"""Expiry by a queue's and a message's time-to-live, also of requeued messages and in priority queues."""

from collections.abc import Callable, Mapping
from typing import Final

from rabbitry.amqp.protocol import methods as m
from rabbitry.amqp.protocol.properties import Properties
from rabbitry.amqp.protocol.tables import FieldValue, Table
from tests.differential.peer import Peer
from tests.differential.registry import add, case, of

_DEAD: Final[Table] = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}
_KINDS: Final[Mapping[str, Table]] = {
    "classic": {},
    "quorum": {"x-queue-type": "quorum"},
    "priority": {"x-max-priority": 3},
}
_SOON: Final = 250
"""Milliseconds, times the patience, until the expiry of a message that is delivered and requeued before."""


def _expired(arguments: Mapping[str, FieldValue], expiration: str | None, peer: Peer) -> None:
    peer.queue("dead")
    dead: dict[str, FieldValue] = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}
    peer.call(m.QueueDeclare(queue="q", arguments={**dead, **arguments}))
    peer.publish("", "q", b"one", Properties(expiration=expiration, headers={"a": 1}))
    peer.publish("", "q", b"two")
    peer.quiet(0.2)
    peer.count("q")
    peer.get("dead")
    peer.get("dead")
    peer.get("q")


for _index, (_given, _text) in enumerate(
    (
        ({}, "10"),
        ({}, "0"),
        ({"x-message-ttl": 10}, None),
        ({"x-message-ttl": 0}, None),
        ({"x-message-ttl": 10}, "100000"),
        ({"x-message-ttl": 100000}, "10"),
    )
):
    add(f"expired_{_index}", of(_expired, _given, _text))


@case
def expiry_at_the_head_only(peer: Peer) -> None:
    peer.queue("q")
    peer.publish("", "q", b"stays")
    peer.publish("", "q", b"expired", Properties(expiration="1"))
    peer.quiet(0.1)
    peer.count("q")
    peer.get("q")
    peer.get("q")


@case
def time_to_live_of_zero_and_a_consumer(peer: Peer) -> None:
    peer.queue("q", x_message_ttl=0)
    peer.consume("q", no_ack=True)
    peer.publish("", "q", b"now")
    peer.quiet()


@case
def what_comes_back_expires_too(peer: Peer) -> None:
    peer.queue("q", x_message_ttl=int(50 * peer.patience))
    peer.publish("", "q")
    peer.get("q", no_ack=False)
    peer.quiet(0.2)
    peer.send(m.BasicNack(1))
    peer.get("q")


def _queue(arguments: Table, peer: Peer) -> None:
    """Declare a queue with a dead letter queue beside it."""
    peer.queue("dead")
    more: dict[str, FieldValue] = {**_DEAD, **arguments}
    if isinstance(time_to_live := more.get("x-message-ttl"), int):
        more["x-message-ttl"] = int(time_to_live * peer.patience)
    peer.call(m.QueueDeclare(queue="q", durable=True, arguments=more))


def _publish(peer: Peer, body: bytes, expiration: int | None, priority: int | None = None) -> None:
    text = None if expiration is None else str(int(expiration * peer.patience))
    peer.publish("", "q", body, Properties(expiration=text, delivery_mode=2, priority=priority))


def _take(peer: Peer, *, by_get: bool) -> None:
    """Take two messages, unless they have expired."""
    peer.open(2)
    if by_get:
        for _ in range(2):
            peer.get("q", no_ack=False, channel=2)
    else:
        peer.call(m.BasicQos(0, 2), 2)
        peer.consume("q", channel=2)
        peer.quiet()
        peer.call(m.BasicCancel("c"), 2)


def _reject(peer: Peer) -> None:
    for tag in (1, 2):
        peer.send(m.BasicReject(tag, True), 2)


_WAYS: Final[Mapping[str, Callable[[Peer], None]]] = {
    "reject": _reject,
    "nack": lambda peer: peer.send(m.BasicNack(2, True, True), 2),
    "recover": lambda peer: peer.call(m.BasicRecover(True), 2),
    "channel_close": lambda peer: peer.call(m.ChannelClose(200, "", 0, 0), 2),
}


def _comes_back(arguments: Table, expiration: int | None, by_get: bool, back: str, peer: Peer) -> None:
    _queue(arguments, peer)
    peer.call(m.ConfirmSelect())
    for body in (b"1", b"2"):
        _publish(peer, body, expiration)
    peer.until_it_has("q", 2)
    _take(peer, by_get=by_get)
    _WAYS[back](peer)
    peer.until_it_has("dead", 2)
    for queue in ("dead", "dead", "q"):
        peer.get(queue)


def _left_by_a_connection(arguments: Table, peer: Peer) -> None:
    _queue(arguments, peer)
    with Peer(peer.url, patience=peer.patience) as consumer:
        consumer.consume("q")
        for body in (b"1", b"2"):
            _publish(peer, body, _SOON)
        while consumer.tag < 2 and consumer.is_open:
            consumer.quiet()
        consumer.drop()
    peer.until_it_has("dead", 2)
    for queue in ("dead", "dead", "q"):
        peer.get(queue)


for _kind, _arguments in _KINDS.items():
    for _way in _WAYS:
        add(f"expires_after_{_way}_{_kind}", of(_comes_back, _arguments, _SOON, True, _way))
    add(f"expires_after_its_connection_was_lost_{_kind}", of(_left_by_a_connection, _arguments))
add(
    "expires_after_nack_quorum_with_a_limit",
    of(_comes_back, {"x-queue-type": "quorum", "x-delivery-limit": 5}, _SOON, False, "nack"),
)
for _kind in ("classic", "quorum"):
    for _label, _ttl, _expiration in (
        ("the_queues", _SOON, None),
        ("the_queues_lower", _SOON, 100_000),
        ("the_messages_lower", 100_000, _SOON),
    ):
        _more: Table = {**_KINDS[_kind], "x-message-ttl": _ttl}
        add(f"expires_after_nack_by_{_label}_{_kind}", of(_comes_back, _more, _expiration, False, "nack"))


@case
def expires_at_once_when_it_comes_back(peer: Peer) -> None:
    _queue({}, peer)
    peer.consume("q")
    _publish(peer, b"1", 0)
    peer.quiet()
    peer.send(m.BasicReject(1, True))
    peer.until_it_has("dead", 1)
    peer.get("dead")
    peer.count("q")


def _at_the_head_of_a_priority_queue(
    messages: tuple[tuple[bytes, int | None, int], ...], dead: int, peer: Peer
) -> None:
    """Publish (body, expiration, priority); then log which are left, and which expire once the head is gone."""
    _queue({"x-max-priority": 5}, peer)
    peer.call(m.ConfirmSelect())
    for body, expiration, priority in messages:
        _publish(peer, body, expiration, priority)
    peer.until_it_has("dead", dead)
    peer.quiet(0.1)
    for queue in ("q", "dead"):
        peer.count(queue)
    peer.get("q")
    peer.quiet(0.1)
    for queue in ("q", "dead", "dead", "dead"):
        peer.get(queue)


for _name, _messages, _gone in (
    ("low_waits_for_high", ((b"high", None, 5), (b"low", 1, 1)), 0),
    ("low_waits_for_a_long_high", ((b"high", 100_000, 5), (b"low", 1, 1)), 0),
    ("both", ((b"low", 20, 1), (b"high", 20, 5)), 2),
    ("high_before_low", ((b"high", 50, 5), (b"low", 1, 1)), 2),
    ("high_first", ((b"high", 1, 5), (b"low", None, 1)), 1),
    ("behind_its_own_head", ((b"a", None, 2), (b"b", 1, 2), (b"c", 1, 1)), 0),
):
    add(f"priority_expiry_{_name}", of(_at_the_head_of_a_priority_queue, _messages, _gone))


def _comes_back_twice(arguments: Table, peer: Peer) -> None:
    _queue(arguments, peer)
    _publish(peer, b"1", 2 * _SOON)
    peer.until_it_has("q", 1)
    for tag in (1, 2):
        peer.get("q", no_ack=False)
        peer.send(m.BasicReject(tag, True))
    peer.until_it_has("dead", 1)
    for queue in ("dead", "q"):
        peer.get(queue)


def _comes_back_after_a_purge(arguments: Table, peer: Peer) -> None:
    _queue(arguments, peer)
    for body in (b"1", b"2"):
        _publish(peer, body, 2 * _SOON)
    peer.until_it_has("q", 2)
    peer.get("q", no_ack=False)
    peer.call(m.QueuePurge("q"))
    peer.send(m.BasicNack(1, False, True))
    peer.until_it_has("dead", 1)
    for queue in ("dead", "dead", "q"):
        peer.get(queue)


for _kind in ("classic", "quorum"):
    add(f"expires_when_it_came_back_twice_{_kind}", of(_comes_back_twice, _KINDS[_kind]))
    add(f"expires_when_it_came_back_after_a_purge_{_kind}", of(_comes_back_after_a_purge, _KINDS[_kind]))
