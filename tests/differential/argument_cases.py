"""Values of all kinds for each argument of queues, consumers and exchanges, for limits and for modes of a channel.

A refusal closes the channel, which is opened again, so a case holds many values. A decimal is a case of its own where
RabbitMQ ends the connection. The cases named `argument_…` are run by `make faults`.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

from rabbitry.amqp.protocol import methods as m
from rabbitry.amqp.protocol.methods import Method
from rabbitry.amqp.protocol.tables import FieldValue, Float32, Table, TaggedInt
from tests.differential.peer import Peer
from tests.differential.registry import add, of

_TIME: Final = datetime(2020, 1, 1, tzinfo=UTC)
_VALUES: Final[Mapping[str, Sequence[FieldValue]]] = {
    "numbers": (0, 1, 5, -1, TaggedInt(5, b"b"), TaggedInt(5, b"l"), 255, 256, 2**31 - 1, 2**31, 2**32, 2**62),
    "floats": (0.0, 1.0, 1.5, -1.5, Float32(2.0)),
    "words": ("", "1", "word", "classic", "quorum", "lazy", b"bytes", "ü", "x" * 100),
    "others": (True, False, None, [], [1], {}, {"a": 1}, _TIME),
    "decimals": (Decimal("1.5"), Decimal(2)),
}
_QUEUE: Final = (
    *("x-message-ttl", "x-expires", "x-max-length", "x-max-length-bytes", "x-max-priority", "x-overflow"),
    *("x-dead-letter-exchange", "x-dead-letter-routing-key", "x-dead-letter-strategy", "x-single-active-consumer"),
    *("x-queue-mode", "x-queue-version", "x-queue-master-locator", "x-queue-leader-locator", "x-queue-type"),
    *("x-quorum-initial-group-size", "x-delivery-limit", "x-max-in-memory-length", "x-max-in-memory-bytes"),
    *("x-max-age", "x-stream-max-segment-size-bytes", "x-initial-cluster-size", "x-cancel-on-ha-failover"),
    *("alternate-exchange", "x-ha-policy", "own"),
)
_CONSUMER: Final = (
    *("x-priority", "x-cancel-on-ha-failover", "x-stream-offset", "x-single-active-consumer", "x-credit", "own"),
)


def _each(methods: Sequence[Method], reverse: Method, peer: Peer) -> None:
    """Call each method on an open channel, and `reverse` after each that succeeded."""
    for method in methods:
        if not peer.is_open:
            return
        before = len(peer.log)
        peer.call(method)
        if any("ChannelClose" in line for line in peer.log[before:]):
            peer.open(1)
        elif peer.is_open:
            peer.call(reverse)


def _queues(kind: str, argument: str, values: Sequence[FieldValue], peer: Peer) -> None:
    # A queue that lives for a few milliseconds may be gone before it is deleted.
    values = [value for value in values if argument != "x-expires" or value not in (1, 5)]
    arguments: list[Table] = [{"x-queue-type": kind, argument: value} for value in values]
    _each([m.QueueDeclare("q", durable=True, arguments=one) for one in arguments], m.QueueDelete("q"), peer)


def _consumers(kind: str, argument: str, values: Sequence[FieldValue], peer: Peer) -> None:
    peer.call(m.QueueDeclare("q", durable=True, arguments={"x-queue-type": kind}))
    consume = m.BasicConsume(queue="q", consumer_tag="c")
    _each([consume._replace(arguments={argument: value}) for value in values], m.BasicCancel("c"), peer)


def _exchanges(kind: str, argument: str, values: Sequence[FieldValue], peer: Peer) -> None:
    declared = [m.ExchangeDeclare("e", kind, arguments={argument: value}) for value in values]
    _each(declared, m.ExchangeDelete("e"), peer)


for _kind, _values in _VALUES.items():
    for _of in ("classic", "quorum"):
        for _argument in _QUEUE:
            add(f"argument_queue_{_of}_{_argument}_{_kind}", of(_queues, _of, _argument, _values))
        for _argument in _CONSUMER:
            add(f"argument_consumer_{_of}_{_argument}_{_kind}", of(_consumers, _of, _argument, _values))
    for _type in ("direct", "headers"):
        for _argument in ("alternate-exchange", "x-delayed-type", "own"):
            add(f"argument_exchange_{_type}_{_argument}_{_kind}", of(_exchanges, _type, _argument, _values))
for _value in (1, "x", True, None):
    add(f"consumer_credit_{_value}", of(_consumers, "classic", "x-credit", [{}, {"a": 1}, _value]))
add("queue_group_size", of(_queues, "quorum", "x-quorum-initial-group-size", [0, -1, 1, "1", 0.0]))
_FLAGS: Final = [
    m.ExchangeDeclare(
        "e", "fanout", durable=a, auto_delete=b, internal=c, arguments={"alternate-exchange": "amq.fanout"}
    )
    for a in (False, True)
    for b in (False, True)
    for c in (False, True)
]
add("exchange_flags_with_an_alternate", of(_each, _FLAGS, m.ExchangeDelete("e")))
for _type in ("x-consistent-hash", "x-delayed-message", "x-modulus-hash", "x-random", "x-local-random", "system"):
    add(f"exchange_of_a_plugin_{_type}", of(_each, [m.ExchangeDeclare("e", _type)], m.ExchangeDelete("e")))


def _limited(kind: str, steps: Sequence[tuple[int, int, bool]], peer: Peer) -> None:
    peer.call(m.QueueDeclare("q", durable=True, arguments={"x-queue-type": kind}))
    for step in steps:
        consume = m.BasicConsume(queue="q", consumer_tag="c")
        _each([m.BasicQos(*step)], consume, peer)
        _each([m.BasicCancel("c")], m.BasicCancel("c"), peer)


_LIMITS: Final = [(0, 0, False), (0, 1, False), (0, 65535, False), (0, 1, True), (0, 65535, True), (0, 0, True)]
for _of in ("classic", "quorum"):
    for _index, _step in enumerate(_LIMITS):
        add(f"limit_{_of}_{_index}", of(_limited, _of, [_step, (0, 1, False)]))
    for _index, _step in enumerate([(1, 0, False), (1, 1, True), (2**32 - 1, 65535, False)]):
        add(f"limit_of_bytes_{_of}_{_index}", of(_limited, _of, [_step]))

_MODES: Final[Mapping[str, Method]] = {
    "confirm": m.ConfirmSelect(),
    "confirm_nowait": m.ConfirmSelect(nowait=True),
    "tx": m.TxSelect(),
    "commit": m.TxCommit(),
    "rollback": m.TxRollback(),
    "publish": m.BasicPublish("", "q"),
    "refused": m.BasicPublish("missing", "q"),
}


def _modes(names: Sequence[str], peer: Peer) -> None:
    peer.queue("q")
    for name in names:
        if not peer.is_open:
            return
        before = len(peer.log)
        method = _MODES[name]
        if isinstance(method, m.BasicPublish):
            peer.publish(method.exchange, method.routing_key)
            peer.quiet()
        elif name == "confirm_nowait":
            peer.send(method)
            peer.quiet()
        else:
            peer.call(method)
        if peer.is_open and any("ChannelClose" in line for line in peer.log[before:]):
            peer.open(1)
    if peer.is_open:
        peer.count("q")


_SEQUENCES: Final = """
confirm tx, tx confirm, confirm confirm publish, tx tx publish commit, commit, rollback, confirm commit,
confirm rollback, tx publish confirm, tx publish commit confirm, confirm publish tx, confirm_nowait tx,
tx confirm_nowait, tx commit commit, tx rollback rollback, tx publish rollback commit, tx refused commit,
tx publish refused, confirm refused publish, confirm refused confirm publish, tx publish refused tx commit,
confirm_nowait publish confirm publish
"""
for _sequence in _SEQUENCES.split(","):
    add(f"modes_{'_'.join(_sequence.split())}", of(_modes, _sequence.split()))
