"""Queues: declaring and its refusals, arguments, deleting, quorum queues."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

from rabbitry.amqp.protocol import methods as m
from rabbitry.amqp.protocol.properties import Properties
from rabbitry.amqp.protocol.tables import FieldValue, Float32, Table, TaggedInt
from tests.differential.peer import Peer
from tests.differential.registry import add, case, flagged, of

_FLAGS: Final = ("durable", "exclusive", "auto_delete")


def _declared(arguments: Mapping[str, FieldValue], peer: Peer, **flags: bool) -> None:
    peer.call(flagged(m.QueueDeclare(queue="q", arguments=arguments), **flags))
    may_be_gone = arguments.get("x-expires") == 1  # a millisecond
    if peer.log[-1].startswith("1: QueueDeclareOk") and not may_be_gone:
        peer.count("q")


_VALUES: Final[tuple[FieldValue, ...]] = (0, 1, -1, 1000, 2**31, 2**32, "1", "word", True, 1.5, None, [1], {"a": 1})
for _argument in ("x-message-ttl", "x-expires", "x-max-length", "x-max-length-bytes", "x-max-priority"):
    for _index, _value in enumerate(_VALUES):
        add(f"declare_{_argument}_{_index}", of(_declared, {_argument: _value}))
for _argument in ("x-dead-letter-exchange", "x-overflow", "x-queue-mode", "x-queue-type", "x-single-active-consumer"):
    for _index, _value in enumerate((1, "", "word", True, None)):
        add(f"declare_{_argument}_{_index}", of(_declared, {_argument: _value}))
for _index, _arguments in enumerate(
    (
        {"x-overflow": "drop-head"},
        {"x-overflow": "reject-publish"},
        {"x-overflow": "reject-publish-dlx"},
        {"x-queue-mode": "lazy"},
        {"x-queue-mode": "default"},
        {"x-queue-version": 2},
        {"x-queue-version": 3},
        {"x-queue-version": -1},
        {"x-queue-version": "2"},
        {"x-queue-type": "classic"},
        {"x-dead-letter-routing-key": "k"},
        {"x-dead-letter-routing-key": 1, "x-dead-letter-exchange": ""},
        {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "k"},
        {"x-max-priority": 255},
        {"x-max-priority": 256},
        {"x-message-ttl": TaggedInt(5, b"b")},
        {"x-message-ttl": TaggedInt(5, b"s")},
        {"x-message-ttl": TaggedInt(5, b"l")},
        {"x-delivery-limit": 3},
        {"x-dead-letter-strategy": "at-least-once"},
        {"x-unknown": "whatever"},
        {"unknown": [1, {"a": None}]},
        {"x-max-length": -1, "x-expires": 0},
        {"x-quorum-initial-group-size": 1},
        {"x-queue-leader-locator": "client-local"},
        {"x-queue-master-locator": "min-masters"},
        {"x-max-age": "1h"},
    )
):
    add(f"declare_arguments_{_index}", of(_declared, _arguments))
_QUORUM: Final[tuple[Mapping[str, FieldValue], ...]] = (
    {},
    {"x-delivery-limit": 2},
    {"x-delivery-limit": -1},
    {"x-delivery-limit": "2"},
    {"x-max-priority": 3},
    {"x-queue-mode": "lazy"},
    {"x-message-ttl": 1000},
    {"x-expires": 100000},
    {"x-overflow": "reject-publish"},
    {"x-overflow": "reject-publish-dlx"},
    {"x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish", "x-dead-letter-exchange": ""},
    {"x-dead-letter-strategy": "sometimes"},
    {"x-single-active-consumer": True},
    {"x-max-in-memory-length": 5},
    {"x-queue-version": 2},
)
_ORDER: Final[tuple[Mapping[str, FieldValue], ...]] = (
    {"x-queue-type": "x", "x-max-length": -1},
    {"x-queue-type": 10, "x-max-length": -1},
    {"x-delivery-limit": 1, "x-max-length": -1},
    {"x-max-in-memory-length": 1, "x-max-length": -1},
    {"x-max-in-memory-bytes": "x"},
    {"x-quorum-initial-group-size": -1},
    {"x-queue-type": "quorum", "x-max-priority": "x"},
    {"x-queue-type": "quorum", "x-max-priority": 3, "x-max-length": -1},
    {"x-queue-type": "quorum", "x-queue-leader-locator": "x"},
    {"x-queue-type": "quorum", "x-queue-leader-locator": 1.5},
    {"x-queue-type": "quorum", "x-queue-leader-locator": "balanced"},
    {"x-queue-leader-locator": "x"},
    {"x-queue-type": "quorum", "x-max-in-memory-length": "x"},
)
for _index, _several in enumerate(_ORDER):
    add(f"declare_first_fault_{_index}", of(_declared, _several))
    add(f"declare_first_fault_durable_{_index}", of(_declared, _several, durable=True))
for _index, _more in enumerate(_QUORUM):
    add(f"declare_quorum_{_index}", of(_declared, {"x-queue-type": "quorum", **_more}, durable=True))
for _flag in ({}, {"durable": True, "exclusive": True}, {"durable": True, "auto_delete": True}):
    _name = "_".join(_flag) or "transient"
    add(f"declare_quorum_{_name}", of(_declared, {"x-queue-type": "quorum"}, **_flag))


_MIXED: Final[Sequence[FieldValue]] = [1.5, "a", None]
_NESTED: Final[Table] = {"a": "b", "c": [b"\0"]}
_OTHER_TYPES: Final[tuple[FieldValue, ...]] = (
    *(10.0, Float32(10.0), Float32(0.1), -0.5, 1e100, 1.5e-7, 123456789.25, 100000.0, 1e21, 0.0),
    *(Decimal(10), Decimal("1.0"), "10", "", "ü", b"10", b"\0\xff", True, None, datetime(2020, 1, 1, tzinfo=UTC)),
    [10],
    [],
    {},
    {"a": 1},
    _MIXED,
    _NESTED,
)
"""Values that are not the integer 10, whatever they look like."""


def _redeclared(
    first: Mapping[str, FieldValue],
    second: Mapping[str, FieldValue],
    peer: Peer,
    *,
    durable: bool = False,
) -> None:
    for arguments in (first, second):
        peer.call(m.QueueDeclare(queue="q", durable=durable, arguments=arguments))


_LIMIT: Final[Table] = {"x-queue-type": "quorum", "x-delivery-limit": 2}
_OTHERWISE: Final[tuple[Table, ...]] = (
    {**_LIMIT, "x-delivery-limit": 2.0},
    {**_LIMIT, "x-queue-leader-locator": "client-local"},
    {**_LIMIT, "x-queue-type": 10},
)
for _index, _other in enumerate(_OTHERWISE):
    add(f"redeclare_quorum_{_index}", of(_redeclared, _LIMIT, _other, durable=True))
for _index, (_first, _second) in enumerate(
    (
        ({}, {"x-message-ttl": 1}),
        ({"x-message-ttl": 1}, {}),
        ({"x-message-ttl": 1}, {"x-message-ttl": 2}),
        ({"x-message-ttl": 1}, {"x-message-ttl": TaggedInt(1, b"l")}),
        ({"x-message-ttl": 1}, {"x-message-ttl": TaggedInt(1, b"b")}),
        ({"x-max-length": 5, "x-expires": 100000}, {"x-max-length": 6, "x-expires": 100001}),
        ({"x-overflow": "drop-head"}, {"x-overflow": "reject-publish"}),
        ({"x-overflow": "drop-head"}, {}),
        ({"x-max-priority": 5}, {"x-max-priority": 6}),
        ({"x-single-active-consumer": True}, {"x-single-active-consumer": False}),
        ({"x-single-active-consumer": True}, {}),
        ({"x-queue-mode": "lazy"}, {"x-queue-mode": "default"}),
        ({"x-queue-type": "classic"}, {}),
        ({}, {"x-queue-type": "classic"}),
        ({}, {"x-queue-type": "quorum"}),
        ({"x-dead-letter-exchange": "a"}, {"x-dead-letter-exchange": "b"}),
        ({"x-dead-letter-exchange": "a"}, {"x-dead-letter-exchange": "a", "x-dead-letter-routing-key": "k"}),
        ({"x-own": 1}, {"x-own": 2}),
        ({"x-own": 1}, {}),
        ({}, {"x-message-ttl": "word"}),
        ({}, {"x-message-ttl": None}),
        ({"x-max-length": 5, "x-message-ttl": 10}, {"x-max-length": 5.0, "x-message-ttl": 10.0}),
        ({"x-single-active-consumer": True}, {"x-single-active-consumer": 1}),
        ({"x-dead-letter-exchange": "1"}, {"x-dead-letter-exchange": 1}),
        ({"x-queue-type": "classic"}, {"x-queue-type": "Classic"}),
        ({}, {"x-queue-type": "Classic"}),
        ({"x-own": Decimal(1)}, {"x-own": 1.0}),
    )
):
    add(f"redeclare_{_index}", of(_redeclared, _first, _second))


for _index, _value in enumerate(_OTHER_TYPES):
    add(f"redeclare_another_type_{_index}", of(_redeclared, {"x-message-ttl": 10}, {"x-message-ttl": _value}))
    add(f"redeclare_more_{_index}", of(_redeclared, {}, {"x-message-ttl": _value}))


def _redeclared_flags(first: str, second: str, peer: Peer) -> None:
    peer.call(flagged(m.QueueDeclare(queue="q"), **({first: True} if first else {})))
    peer.call(flagged(m.QueueDeclare(queue="q"), **({second: True} if second else {})))


for _a in ("", *_FLAGS):
    for _b in ("", *_FLAGS):
        add(f"redeclare_flags_{_a or 'none'}_{_b or 'none'}", of(_redeclared_flags, _a, _b))


def _named(name: str, peer: Peer) -> None:
    peer.call(m.QueueDeclare(queue=name))
    peer.quiet()


for _index, _name in enumerate(("amq.mine", "amq.gen-mine", "amqp", "with space", "x" * 255, "ü", "a\nb", "")):
    add(f"declare_name_{_index}", of(_named, _name))


@case
def passive_declare_of_what_is_missing(peer: Peer) -> None:
    peer.call(m.QueueDeclare(queue="missing", passive=True))
    peer.open(1)
    peer.call(m.QueueDeclare(queue="", passive=True))


@case
def passive_declare_ignores_flags(peer: Peer) -> None:
    peer.queue("q")
    peer.call(m.QueueDeclare(queue="q", passive=True, durable=True, arguments={"x-message-ttl": -5}))


@case
def empty_name_means_the_last_declared(peer: Peer) -> None:
    peer.call(m.QueueBind(queue="", exchange="amq.direct", routing_key="k"))
    peer.open(1)
    peer.queue("one")
    peer.queue("two")
    peer.call(m.QueueBind(queue="", exchange="amq.direct", routing_key=""))
    peer.publish("amq.direct", "two", b"by its own name")
    peer.get("two")
    peer.call(m.QueuePurge(queue=""))
    peer.call(m.QueueDelete(queue=""))
    peer.call(m.QueueDelete(queue=""))


@case
def an_exclusive_queue_of_another_connection(peer: Peer) -> None:
    peer.queue("q", exclusive=True)
    peer.queue("q", exclusive=True)
    peer.queue("q")


@case
def deleting(peer: Peer) -> None:
    peer.call(m.QueueDelete(queue="missing"))
    peer.queue("q")
    peer.publish("", "q")
    peer.publish("", "q")
    peer.quiet()
    peer.count("q")
    peer.call(m.QueueDelete(queue="q", if_empty=True))
    peer.open(1)
    peer.consume("q", no_ack=True)
    peer.quiet()
    peer.call(m.QueueDelete(queue="q", if_unused=True))
    peer.open(1)
    peer.call(m.QueueDelete(queue="q"))


@case
def deleting_what_the_channel_consumes(peer: Peer) -> None:
    for durable in (False, True):
        peer.queue("q", durable=durable)
        peer.consume("q")
        peer.call(m.QueueDelete(queue="q"))  # the answer comes before the cancel
        peer.quiet()


@case
def deleting_cancels_consumers(peer: Peer) -> None:
    peer.queue("q")
    peer.consume("q")
    peer.open(2)
    peer.call(m.QueueDelete(queue="q"), 2)
    peer.quiet()
    peer.log.sort()  # the cancel may overtake the answer on the other channel
    peer.publish("", "q", mandatory=True)
    peer.quiet()


@case
def auto_delete_with_the_last_consumer(peer: Peer) -> None:
    peer.queue("q", auto_delete=True)
    peer.consume("q", "a")
    peer.consume("q", "b")
    peer.call(m.BasicCancel("a"))
    peer.count("q")
    peer.call(m.BasicCancel("b"))
    peer.count("q")


@case
def auto_delete_needs_a_first_consumer(peer: Peer) -> None:
    peer.queue("q", auto_delete=True)
    peer.get("q")
    peer.count("q")


@case
def purging(peer: Peer) -> None:
    peer.call(m.QueuePurge(queue="missing"))
    peer.open(1)
    peer.queue("q")
    for _ in range(3):
        peer.publish("", "q")
    peer.get("q", no_ack=False)
    peer.call(m.QueuePurge(queue="q"))
    peer.send(m.BasicNack(1))
    peer.get("q")


@case
def nowait_has_no_answers(peer: Peer) -> None:
    peer.send(m.QueueDeclare(queue="q", nowait=True))
    peer.send(m.QueueBind(queue="q", exchange="amq.fanout", nowait=True))
    peer.send(m.BasicConsume(queue="q", consumer_tag="c", nowait=True, no_ack=True))
    peer.publish("amq.fanout", "")
    peer.quiet()
    peer.send(m.BasicCancel("c", nowait=True))
    peer.send(m.QueuePurge(queue="q", nowait=True))
    peer.count("q")
    peer.send(m.QueueDelete(queue="q", nowait=True))
    peer.count("q")


def _quorum(limit: int | None, peer: Peer) -> None:
    arguments: dict[str, FieldValue] = {"x-queue-type": "quorum", "x-dead-letter-exchange": "amq.fanout"}
    if limit is not None:
        arguments["x-delivery-limit"] = limit
    peer.queue("dead")
    peer.call(m.QueueBind(queue="dead", exchange="amq.fanout"))
    peer.call(m.QueueDeclare(queue="q", durable=True, arguments=arguments))
    peer.call(m.ConfirmSelect())
    peer.publish("", "q", b"poison", Properties(headers={"a": 1}))
    peer.quiet(0.3)
    peer.call(m.BasicQos(prefetch_count=1))
    peer.consume("q")
    for _ in range(4):
        peer.quiet(0.2)
        peer.send(m.BasicNack(peer.tag))
    peer.quiet(0.3)
    peer.get("dead")


for _maximum in (None, 0, 1, 2):
    add(f"quorum_delivery_limit_{_maximum}", of(_quorum, _maximum))


@case
def quorum_and_global_qos(peer: Peer) -> None:
    peer.call(m.QueueDeclare(queue="q", durable=True, arguments={"x-queue-type": "quorum"}))
    peer.call(m.BasicQos(prefetch_count=5, global_=True))
    peer.consume("q")


@case
def quorum_purge_and_delete(peer: Peer) -> None:
    peer.call(m.QueueDeclare(queue="q", durable=True, arguments={"x-queue-type": "quorum"}))
    peer.call(m.ConfirmSelect())
    peer.publish("", "q")
    peer.quiet(0.3)
    peer.call(m.QueuePurge(queue="q"))
    peer.call(m.QueueDelete(queue="q"))


@case
def quorum_delete_if_unused(peer: Peer) -> None:
    peer.call(m.QueueDeclare(queue="q", durable=True, arguments={"x-queue-type": "quorum"}))
    peer.call(m.QueueDelete(queue="q", if_unused=True))


@case
def quorum_exclusive_consumer(peer: Peer) -> None:
    peer.call(m.QueueDeclare(queue="q", durable=True, arguments={"x-queue-type": "quorum"}))
    peer.consume("q", "a", exclusive=True)
    peer.consume("q", "b")


@case
def unbinding_what_another_connection_owns(peer: Peer) -> None:
    peer.queue("q", exclusive=True)
    peer.call(m.QueueBind(queue="q", exchange="amq.direct", routing_key="k"))
    with Peer(peer.url, patience=peer.patience) as other:
        other.call(m.QueueUnbind(queue="q", exchange="amq.direct", routing_key="missing"))
        other.call(m.QueueUnbind(queue="q", exchange="amq.direct", routing_key="k"))
        peer.log += other.log
    peer.publish("amq.direct", "k")
    peer.get("q")


def _after_delete(method: m.Method, peer: Peer) -> None:
    """Settle a delivery whose queue was deleted."""
    peer.queue("dl")
    peer.call(m.ConfirmSelect())
    soon = int(400 * peer.patience)
    arguments: Table = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dl", "x-message-ttl": soon}
    peer.call(m.QueueDeclare(queue="q", arguments=arguments))
    peer.publish("", "q")
    peer.quiet(0.2)
    peer.get("q", no_ack=False)
    peer.call(m.QueueDelete(queue="q"))
    peer.send(method)
    peer.quiet(0.9)
    peer.get("dl")


for _index, _method in enumerate(
    (m.BasicReject(1, False), m.BasicReject(1, True), m.BasicAck(1), m.BasicRecover(True))
):
    add(f"settled_after_its_queue_was_deleted_{_index}", of(_after_delete, _method))
for _argument in ("x-message-ttl", "x-expires"):
    for _value in (315_360_000_000, 315_360_000_001):
        add(f"declare_{_argument}_of_{_value}", of(_declared, {_argument: _value}))


@case
def unbind_without_a_queue(peer: Peer) -> None:
    peer.call(m.QueueUnbind("", "amq.direct", "k"))


@case
def a_long_text_is_cut(peer: Peer) -> None:
    for name in ("a" * 255, "\u00e9" * 127):
        peer.count(name)
        peer.open(1)


@case
def quorum_get_counts_deliveries(peer: Peer) -> None:
    peer.call(m.QueueDeclare(queue="q", durable=True, arguments={"x-queue-type": "quorum"}))
    peer.call(m.ConfirmSelect())
    peer.publish("", "q", b"1", Properties(headers={"a": 1}))
    peer.publish("", "q", b"2")
    peer.quiet(0.4)
    peer.get("q")
    for _ in range(2):
        peer.get("q", no_ack=False)
        peer.send(m.BasicReject(peer.tag, True))
        peer.quiet(0.3)
    peer.get("q")


@case
def quorum_get_beside_a_single_active_consumer(peer: Peer) -> None:
    arguments: Table = {"x-queue-type": "quorum", "x-single-active-consumer": True}
    peer.call(m.QueueDeclare(queue="q", durable=True, arguments=arguments))
    peer.get("q")
