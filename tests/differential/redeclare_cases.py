"""Redeclaring queues, exchanges and consumers with arguments that are similar but differ.

A refusal closes the channel, or the connection where RabbitMQ fails (541). The channel is opened again, so a case
holds many pairs; a pair that ends the connection is a case of its own.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

from rabbitry.amqp.protocol import methods as m
from rabbitry.amqp.protocol.methods import Method
from rabbitry.amqp.protocol.tables import FieldValue, Float32, Table, TaggedInt
from tests.differential.peer import Peer
from tests.differential.registry import add, of

_NAN: Final = b"\x7f\xf8" + bytes(6)
_INFINITE: Final = b"\x7f\xf0" + bytes(6)
_LOOKING_LIKE_10: Final[tuple[FieldValue, ...]] = (
    *(10, TaggedInt(10, b"b"), TaggedInt(10, b"l"), 10.0, Float32(10.0), "10", b"10", True, False, None),
    *(datetime(1970, 1, 1, 0, 0, 10, tzinfo=UTC), [10], {"10": 10}, Decimal("10.0"), Decimal(10)),
)
_LOOKING_LIKE_A_WORD: Final[tuple[FieldValue, ...]] = (
    *("word", b"word", "Word", " word", "", 10, 10.0, True, None, ["word"], {"word": "word"}, Decimal(10)),
)
_LOOKING_TRUE: Final[tuple[FieldValue, ...]] = (True, False, 1, 0, 1.0, "true", "", None, [True], {}, Decimal(1))
"""A decimal is last: RabbitMQ closes the connection if it differs."""


def _again(first: Method, others: Sequence[Method], peer: Peer) -> None:
    """Declare the first, then the others under its name, each on an open channel of an open connection."""
    for method in (first, *others):
        if not peer.is_open:
            return
        before = len(peer.log)
        peer.call(method)
        if peer.is_open and any("ChannelClose" in line for line in peer.log[before:]):
            peer.open(1)


def _queue(arguments: Table, durable: bool = True) -> Method:
    return m.QueueDeclare(queue="q", durable=durable, arguments=arguments)


def _exchange(arguments: Table) -> Method:
    return m.ExchangeDeclare("e", "direct", arguments=arguments)


def _pairs(name: str, given: Sequence[tuple[Table, Sequence[FieldValue]]], argument: str) -> None:
    """Add a case for each value of an argument: declare with it, then redeclare with each other value."""
    for index, (arguments, values) in enumerate(given):
        others = [{**arguments, argument: value} for value in values]
        without = {key: value for key, value in arguments.items() if key != argument}
        add(f"redeclare_{name}_{index}", of(_again, _queue(arguments), [_queue(without), *map(_queue, others)]))


_QUORUM: Final[Table] = {"x-queue-type": "quorum"}
for _argument in ("x-message-ttl", "x-expires", "x-max-length", "x-max-length-bytes", "x-max-priority", "x-own"):
    _first: FieldValue = 100_000 if _argument == "x-expires" else 10
    _pairs(f"numbers_{_argument}", [({_argument: _first}, _LOOKING_LIKE_10)], _argument)
for _argument in ("x-delivery-limit", "x-max-in-memory-length", "x-max-in-memory-bytes", "x-max-length"):
    _pairs(f"quorum_{_argument}", [({**_QUORUM, _argument: 10}, _LOOKING_LIKE_10)], _argument)
_ANY: Final[Sequence[FieldValue]] = ({}, [], None, 10.0, True, datetime(1970, 1, 1, 0, 0, 10, tzinfo=UTC), "10", [10])
_OTHERS: Final[Sequence[FieldValue]] = ({}, [], "undefined", "true", [TaggedInt(10, b"l")], *_LOOKING_LIKE_10)
_pairs("quorum_any", [({**_QUORUM, "x-delivery-limit": value}, _OTHERS) for value in _ANY], "x-delivery-limit")
for _argument in ("x-dead-letter-routing-key", "x-dead-letter-exchange"):
    _given: Table = {"x-dead-letter-exchange": "word", _argument: "word"}
    _pairs(f"words_{_argument}", [(_given, _LOOKING_LIKE_A_WORD)], _argument)
_pairs("words_of_its_own", [({"x-own": "word"}, _LOOKING_LIKE_A_WORD)], "x-own")
_pairs("floats", [({"x-own": 10.0}, _LOOKING_LIKE_10), ({"x-own": Decimal(10)}, _LOOKING_LIKE_10)], "x-own")
_pairs("booleans", [({"x-single-active-consumer": True}, _LOOKING_TRUE)], "x-single-active-consumer")
for _argument, _value in (("x-overflow", "reject-publish"), ("x-queue-mode", "lazy")):
    _spellings: tuple[FieldValue, ...] = (_value, _value.encode(), _value.upper(), f"{_value} ", "", 1, True, None)
    _pairs(f"spelling_{_argument}", [({_argument: _value}, _spellings)], _argument)


_TYPES: Final[tuple[FieldValue, ...]] = (
    *("Classic", "CLASSIC", " classic", "Quorum", "quorum ", "", "rabbit_classic_queue", b"classic", b"quorum"),
    *(1, 1.5, True, None, ["quorum"]),
)
for _index, _type in enumerate(_TYPES):
    add(f"queue_type_{_index}", of(_again, _queue({"x-queue-type": _type}), []))
    for _label, _before in (("classic", {}), ("quorum", _QUORUM)):
        _declared = [_queue({"x-queue-type": _type})]
        add(f"redeclare_queue_type_{_label}_{_index}", of(_again, _queue(_before), _declared))
for _argument in ("x-max-in-memory-length", "x-max-in-memory-bytes", "x-delivery-limit"):
    _refused = [_queue({_argument: value}) for value in _LOOKING_LIKE_10]
    add(f"classic_with_{_argument}", of(_again, _queue({}), _refused))
    add(f"new_classic_with_{_argument}", of(_again, _refused[0], _refused[1:]))

_ALTERNATES: Final[tuple[Table, ...]] = tuple({"alternate-exchange": value} for value in _LOOKING_LIKE_A_WORD)
_OWN: Final[tuple[Table, ...]] = tuple({"x-own": value} for value in _LOOKING_LIKE_10)
add("redeclare_exchange", of(_again, _exchange(_ALTERNATES[0]), [_exchange({}), *map(_exchange, _ALTERNATES)]))
add("redeclare_exchange_with_its_own", of(_again, _exchange(_OWN[0]), [_exchange(given) for given in _OWN]))
add("redeclare_exchange_with_more", of(_again, _exchange({}), [*map(_exchange, _ALTERNATES), *map(_exchange, _OWN)]))
for _argument, _values in (("x-priority", _LOOKING_LIKE_10), ("x-cancel-on-ha-failover", _LOOKING_TRUE)):
    for _label, _before in (("classic", {}), ("quorum", _QUORUM)):
        _consumers = [
            m.BasicConsume(queue="q", consumer_tag=f"c{index}", arguments={_argument: value})
            for index, value in enumerate(_values)
        ]
        add(f"consumer_{_argument}_{_label}", of(_again, _queue(_before), _consumers))


def _field_twice(second: bytes, peer: Peer) -> None:
    """Declare a queue whose arguments hold one name twice, and declare it again with each of the values."""
    table = b"\x0cx-max-lengthI\0\0\0\5\x0cx-max-length" + second
    peer.queues.add("q")
    peer.frame(1, 1, b"\0\x32\0\x0a\0\0\1q\2" + len(table).to_bytes(4, "big") + table)
    peer.quiet()
    for value in (5, 6):
        peer.call(_queue({"x-max-length": value}))


for _label, _second in (("equal", b"I\0\0\0\5"), ("other", b"I\0\0\0\6"), ("text", b"S\0\0\0\1a")):
    add(f"declare_with_a_field_twice_{_label}", of(_field_twice, _second))


_FOREIGN: Final[Table] = {
    "x-max-priority": 2,
    "x-queue-mode": "lazy",
    "x-queue-version": 2,
    "x-queue-master-locator": "client-local",
    "x-max-age": "1h",
    "x-stream-max-segment-size-bytes": 1000,
    "x-initial-cluster-size": 1,
    "x-quorum-initial-group-size": 1,
    "x-dead-letter-strategy": "at-most-once",
    "x-queue-leader-locator": "client-local",
    "x-max-in-memory-length": 10,
    "x-max-in-memory-bytes": 10,
    "x-delivery-limit": 10,
}
"""Arguments that only some types of queues have."""
for _label, _before in (("classic", {}), ("quorum", _QUORUM)):
    _more = [_queue({**_before, argument: value}) for argument in _FOREIGN for value in (2, "lazy")]
    add(f"redeclare_{_label}_with_arguments_of_other_types", of(_again, _queue(_before), _more))
    _new: list[Method] = [
        m.QueueDeclare(queue=f"q-{argument}", durable=True, arguments={**_before, argument: value})
        for argument, value in _FOREIGN.items()
    ]
    add(f"declare_{_label}_with_arguments_of_other_types", of(_again, _new[0], _new[1:]))


def _float(name: bytes, number: bytes, peer: Peer) -> None:
    """Declare a queue with a float that Erlang cannot represent."""
    table = bytes((len(name),)) + name + b"d" + number
    peer.frame(1, 1, b"\0\x32\0\x0a\0\0\1q\2" + len(table).to_bytes(4, "big") + table)
    peer.quiet()


for _label, _number in (("nan", _NAN), ("infinity", _INFINITE)):
    add(f"declare_{_label}", of(_float, b"x-message-ttl", _number))
