"""Exchanges: declaring and its refusals, routing by type, bindings, alternate exchanges."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Final

from rabbitry.amqp.protocol import methods as m
from rabbitry.amqp.protocol.properties import Properties
from rabbitry.amqp.protocol.tables import FieldValue, TaggedInt
from tests.differential.peer import Peer
from tests.differential.registry import add, case, flagged, of

_FLAGS: Final = ("durable", "auto_delete", "internal")


def _declare(name: str, kind: str, peer: Peer) -> None:
    peer.call(m.ExchangeDeclare(name, kind))
    peer.quiet()


for _kind in ("direct", "fanout", "topic", "headers", "x-unknown", "", "DIRECT"):
    add(f"exchange_type_{_kind or 'empty'}", of(_declare, "e", _kind))
for _index, _name in enumerate(("", "amq.mine", "amq.direct", "amq.fanout", "x" * 255, "a b", "ü")):
    add(f"exchange_name_{_index}", of(_declare, _name, "direct"))


def _redeclared(first: str, second: str, peer: Peer) -> None:
    peer.call(flagged(m.ExchangeDeclare("e", "direct"), **({first: True} if first else {})))
    peer.call(flagged(m.ExchangeDeclare("e", "direct"), **({second: True} if second else {})))


for _a in ("", *_FLAGS):
    for _b in ("", *_FLAGS):
        if _a != _b:
            add(f"exchange_redeclare_{_a or 'none'}_{_b or 'none'}", of(_redeclared, _a, _b))


def _predeclared(name: str, kind: str, peer: Peer) -> None:
    peer.call(m.ExchangeDeclare(name, passive=True))
    peer.call(m.ExchangeDeclare(name, kind, durable=True))
    peer.call(m.ExchangeDelete(name))


for _name, _kind in (
    ("amq.direct", "direct"),
    ("amq.fanout", "fanout"),
    ("amq.topic", "topic"),
    ("amq.headers", "headers"),
    ("amq.match", "headers"),
    ("amq.rabbitmq.trace", "topic"),
    ("amq.rabbitmq.log", "topic"),
    ("", "direct"),
):
    add(f"predeclared_{_name or 'default'}", of(_predeclared, _name, _kind))


def _arguments(first: Mapping[str, FieldValue], second: Mapping[str, FieldValue], peer: Peer) -> None:
    peer.call(m.ExchangeDeclare("e", "direct", arguments=first))
    peer.call(m.ExchangeDeclare("e", "direct", arguments=second))


for _index, (_first, _second) in enumerate(
    (
        ({"alternate-exchange": "a"}, {"alternate-exchange": "a"}),
        ({"alternate-exchange": "a"}, {"alternate-exchange": "b"}),
        ({"alternate-exchange": "a"}, {}),
        ({}, {"alternate-exchange": "a"}),
        ({"alternate-exchange": 5}, {}),
        ({"own": 1}, {"own": 2}),
    )
):
    add(f"exchange_arguments_{_index}", of(_arguments, _first, _second))


@case
def exchange_other_type(peer: Peer) -> None:
    peer.call(m.ExchangeDeclare("e", "direct"))
    peer.call(m.ExchangeDeclare("e", "topic"))


@case
def exchange_passive(peer: Peer) -> None:
    peer.call(m.ExchangeDeclare("missing", passive=True))
    peer.open(1)
    peer.call(m.ExchangeDeclare("e", "fanout"))
    peer.call(m.ExchangeDeclare("e", "direct", passive=True, durable=True))


@case
def exchange_delete(peer: Peer) -> None:
    peer.call(m.ExchangeDelete("missing"))
    peer.call(m.ExchangeDeclare("e", "fanout"))
    peer.queue("q")
    peer.call(m.QueueBind("q", "e"))
    peer.call(m.ExchangeDelete("e", if_unused=True))
    peer.open(1)
    peer.call(m.QueueUnbind("q", "e"))
    peer.call(m.ExchangeDelete("e", if_unused=True))
    peer.publish("e", "k")
    peer.quiet()


@case
def exchange_auto_delete(peer: Peer) -> None:
    peer.call(m.ExchangeDeclare("e", "fanout", auto_delete=True))
    peer.queue("q")
    peer.call(m.QueueBind("q", "e", "a"))
    peer.call(m.QueueBind("q", "e", "b"))
    peer.call(m.QueueUnbind("q", "e", "a"))
    peer.call(m.ExchangeDeclare("e", passive=True))
    peer.call(m.QueueUnbind("q", "e", "b"))
    peer.call(m.ExchangeDeclare("e", passive=True))


@case
def exchange_auto_delete_by_the_queue(peer: Peer) -> None:
    peer.call(m.ExchangeDeclare("e", "fanout", auto_delete=True))
    peer.queue("q")
    peer.call(m.QueueBind("q", "e"))
    peer.call(m.QueueDelete("q"))
    peer.call(m.ExchangeDeclare("e", passive=True))


@case
def internal_exchange(peer: Peer) -> None:
    peer.call(m.ExchangeDeclare("e", "fanout", internal=True))
    peer.queue("q")
    peer.call(m.QueueBind("q", "e"))
    peer.call(m.ExchangeBind("e", "amq.fanout"))
    peer.publish("amq.fanout", "", b"through")
    peer.get("q")
    peer.publish("e", "", b"straight")
    peer.quiet()


def _bound(method: m.Method, peer: Peer) -> None:
    peer.queue("q")
    peer.call(method)
    peer.quiet()


for _index, _method in enumerate(
    (
        m.QueueBind("q", "", "k"),
        m.QueueBind("q", "missing", "k"),
        m.QueueBind("missing", "amq.direct", "k"),
        m.QueueBind("missing", "missing", "k"),
        m.QueueUnbind("q", "", "k"),
        m.QueueUnbind("q", "missing", "k"),
        m.QueueUnbind("missing", "amq.direct", "k"),
        m.QueueUnbind("q", "amq.direct", "never"),
        m.ExchangeBind("", "amq.direct", "k"),
        m.ExchangeBind("amq.direct", "", "k"),
        m.ExchangeBind("missing", "amq.direct", "k"),
        m.ExchangeBind("amq.direct", "missing", "k"),
        m.ExchangeUnbind("amq.direct", "amq.fanout", "never"),
        m.ExchangeUnbind("missing", "amq.fanout", "never"),
        m.QueueBind("q", "amq.headers", "", arguments={"x-match": "some"}),
        m.QueueBind("q", "amq.headers", "", arguments={"x-match": "sömé"}),
        m.QueueBind("q", "amq.headers", "", arguments={"x-match": 'a"b\\\n'}),
        m.QueueBind("q", "amq.headers", "", arguments={"x-match": 1}),
        m.QueueBind("q", "amq.headers", "", arguments={"x-match": Decimal("1.0")}),
        m.QueueBind("q", "amq.headers", "", arguments={"x-match": None}),
        m.QueueBind("q", "amq.headers", "", arguments={"x-match": {"a": "b"}}),
        m.QueueBind("q", "amq.headers", "", arguments={"x-match": "any-with-x"}),
        m.QueueBind("q", "amq.topic", "", arguments={"x-match": "some"}),
    )
):
    add(f"binding_{_index}", of(_bound, _method))


@case
def bindings_made_twice_and_with_arguments(peer: Peer) -> None:
    peer.queue("q")
    for arguments in ({}, {}, {"a": 1}, {"a": TaggedInt(1, b"l")}):
        peer.call(m.QueueBind("q", "amq.direct", "k", arguments=arguments))
    peer.publish("amq.direct", "k")
    peer.call(m.QueueUnbind("q", "amq.direct", "k"))
    peer.publish("amq.direct", "k")
    peer.call(m.QueueUnbind("q", "amq.direct", "k", {"a": 1}))
    peer.publish("amq.direct", "k")
    peer.quiet()
    peer.count("q")


def _topic(pattern: str, keys: tuple[str, ...], peer: Peer) -> None:
    peer.queue("q")
    peer.call(m.QueueBind("q", "amq.topic", pattern))
    for key in keys:
        peer.publish("amq.topic", key, key.encode())
    for _ in range(len(keys) + 1):
        peer.get("q")


_KEYS: Final = ("", "a", "b", "a.b", "a.b.c", "b.a", "a.", ".a", "a..b", ".", "*", "#", "a.*", "a.#.b")
for _index, _pattern in enumerate(
    ("", "#", "*", "a", "a.*", "a.#", "#.b", "*.b", "a.*.c", "#.a.#", "*.*", "*.#", "#.*", "a..b", ".", "#.#", "a.#.b")
):
    add(f"topic_{_index}", of(_topic, _pattern, _KEYS))


def _headers(arguments: Mapping[str, FieldValue], peer: Peer) -> None:
    peer.queue("q")
    peer.call(m.QueueBind("q", "amq.headers", "", arguments=arguments))
    for number, headers in enumerate(_MESSAGES):
        peer.publish("amq.headers", "", b"%d" % number, Properties(headers=headers))
    for _ in range(len(_MESSAGES) + 1):
        peer.get("q")


_MESSAGES: Final[tuple[Mapping[str, FieldValue] | None, ...]] = (
    None,
    {},
    {"a": 1},
    {"a": TaggedInt(1, b"l")},
    {"a": 1.0},
    {"a": "1"},
    {"a": True},
    {"a": 1, "b": "x"},
    {"b": "x"},
    {"a": None},
    {"x-a": 1},
    {"x-a": 1, "a": 1},
    {"c": {"d": 1}, "e": [1, 2]},
)
for _index, _arguments_of in enumerate(
    (
        {},
        {"a": 1},
        {"a": None},
        {"a": 1, "b": "x"},
        {"x-match": "all", "a": 1, "b": "x"},
        {"x-match": "any", "a": 1, "b": "x"},
        {"x-match": "any"},
        {"x-match": "all"},
        {"x-match": "all", "x-a": 1},
        {"x-match": "all-with-x", "x-a": 1},
        {"x-match": "any-with-x", "x-a": 1, "b": "x"},
        {"x-match": "any", "x-a": 1, "b": "x"},
        {"a": True},
        {"a": 1.0},
        {"a": TaggedInt(1, b"l")},
        {"c": {"d": 1}},
        {"e": [1, 2]},
    )
):
    add(f"headers_{_index}", of(_headers, _arguments_of))


@case
def exchanges_to_exchanges(peer: Peer) -> None:
    for name in ("a", "b", "c"):
        peer.call(m.ExchangeDeclare(name, "fanout"))
    peer.call(m.ExchangeBind("b", "a"))
    peer.call(m.ExchangeBind("c", "b"))
    peer.call(m.ExchangeBind("a", "c"))
    peer.call(m.ExchangeBind("c", "a"))
    peer.queue("q")
    peer.call(m.QueueBind("q", "c"))
    peer.publish("a", "k", b"once")
    peer.get("q")
    peer.get("q")
    peer.call(m.ExchangeUnbind("c", "a"))
    peer.call(m.ExchangeDelete("b"))
    peer.publish("a", "k", b"nowhere", mandatory=True)
    peer.quiet()


@case
def alternate_exchange(peer: Peer) -> None:
    peer.call(m.ExchangeDeclare("other", "fanout"))
    peer.call(m.ExchangeDeclare("e", "direct", arguments={"alternate-exchange": "other"}))
    peer.call(m.ExchangeDeclare("broken", "direct", arguments={"alternate-exchange": "missing"}))
    peer.queue("q")
    peer.publish("e", "k", b"lost", mandatory=True)
    peer.quiet()
    peer.call(m.QueueBind("q", "other"))
    peer.publish("e", "k", b"other way", mandatory=True)
    peer.get("q")
    peer.publish("broken", "k", b"nowhere", mandatory=True)
    peer.quiet()


@case
def default_exchange(peer: Peer) -> None:
    peer.queue("q")
    peer.publish("", "q", b"there")
    peer.publish("", "missing", b"nowhere")
    peer.get("q")
    peer.get("q")


@case
def binding_with_both_ends_missing(peer: Peer) -> None:
    peer.call(m.ExchangeBind("destination", "source", "k"))
    peer.open(1)
    peer.call(m.QueueBind("destination", "source", "k"))


@case
def local_random_bindings(peer: Peer) -> None:
    peer.call(m.ExchangeDeclare("e", "x-local-random"))
    if not peer.is_open:
        return  # RabbitMQ 3.10 does not know it
    peer.queue("a")
    for kind in ("quorum", "stream"):
        peer.call(m.QueueDeclare(kind, durable=True, arguments={"x-queue-type": kind}))
        peer.queues.add(kind)
    peer.call(m.ExchangeDeclare("f", "fanout"))
    for name in ("a", "quorum", "stream", "missing"):
        for key in ("", "key"):
            before = len(peer.log)
            peer.call(m.QueueBind(name, "e", key))
            if any("ChannelClose" in line for line in peer.log[before:]):
                peer.open(1)
    for key in ("", "key"):
        peer.call(m.ExchangeBind("f", "e", key))
        peer.open(1)
    peer.call(m.ExchangeBind("e", "f", "any"))
    peer.call(m.ConfirmSelect())
    for exchange in ("e", "f"):
        peer.publish(exchange, "whatever", exchange.encode(), mandatory=True)
        peer.quiet()
        peer.get("a")
    peer.call(m.QueueUnbind("a", "e", "key"))
    peer.call(m.QueueUnbind("a", "e", ""))
    peer.publish("e", "", b"unroutable", mandatory=True)
    peer.quiet()


@case
def local_random_ignores_copies(peer: Peer) -> None:
    peer.call(m.ExchangeDeclare("e", "x-local-random"))
    if not peer.is_open:
        return  # RabbitMQ 3.10 does not know it
    names = ("a", "b", "c")
    for name in names:
        peer.queue(name)
        peer.call(m.QueueBind(name, "e", ""))
    peer.call(m.ConfirmSelect())
    for _ in range(30):
        peer.publish("e", "key", b"x", Properties(headers={"CC": ["a", "b"]}))
    peer.quiet()
    peer.log = [line for line in peer.log if "ack" not in line]
    counts = []
    for name in names:
        peer.count(name)
        counts.append(int(peer.log.pop().partition("message_count=")[2].partition(",")[0]))
    peer.log.append(f"{sum(counts)} messages in all, some everywhere: {all(counts)}")
