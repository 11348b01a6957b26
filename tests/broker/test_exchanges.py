"""Routing of the exchange types and of a virtual host, without a connection."""

import functools
import random
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

import rabbitry
from rabbitry.amqp.protocol.layouts import NO_ARGUMENTS
from rabbitry.amqp.protocol.properties import Properties
from rabbitry.amqp.protocol.tables import FieldValue, Table, TaggedInt
from rabbitry.broker import Broker
from rabbitry.broker._errors import Refusal
from rabbitry.broker._exchanges import TYPES, Binding, Exchange
from rabbitry.broker._queues import ClassicQueue, Queue
from rabbitry.broker._queues.arguments import Rules
from rabbitry.broker._vhost import VirtualHost


def _queue(name: str) -> Queue:
    vhost = Broker().vhosts["/"]
    return ClassicQueue(
        vhost, name, durable=False, auto_delete=False, owner=None, arguments=NO_ARGUMENTS, rules=Rules()
    )


_known_queue = functools.cache(_queue)
"""Queues for tests that need many, and ask only for their names."""


def _exchange(kind: str, name: str = "e") -> Exchange:
    arguments: Table = {"x-delayed-type": "direct"} if kind == "x-delayed-message" else NO_ARGUMENTS
    return TYPES[kind](name, arguments=arguments)


def _matches(pattern: list[str], words: list[str]) -> bool:
    """The specification's rule in its plainest form."""
    if not pattern:
        return not words
    if pattern[0] == "#":
        return any(_matches(pattern[1:], words[cut:]) for cut in range(len(words) + 1))
    return bool(words) and pattern[0] in ("*", words[0]) and _matches(pattern[1:], words[1:])


_word = st.sampled_from(["a", "b", "c", "", "*", "#"])
_words = st.lists(_word, min_size=1, max_size=5)


def _split(key: str) -> list[str]:
    return key.split(".") if key else []


@given(st.lists(_words, max_size=8), st.lists(st.sampled_from(["a", "b", "c", ""]), min_size=1, max_size=5))
def test_topic_matching_follows_the_plain_rule(patterns: list[list[str]], words: list[str]) -> None:
    exchange = _exchange("topic")
    queues = [_known_queue(str(number)) for number in range(len(patterns))]
    for pattern, queue in zip(patterns, queues, strict=True):
        assert exchange.bind(Binding(exchange, queue, ".".join(pattern), NO_ARGUMENTS))
    key = ".".join(words)
    expected = {
        queue.name
        for pattern, queue in zip(patterns, queues, strict=True)
        if _matches(_split(".".join(pattern)), _split(key))
    }
    assert {found.name for found in exchange.match(key, Properties())} == expected
    for pattern, queue in zip(patterns, queues, strict=True):
        assert exchange.unbind(Binding(exchange, queue, ".".join(pattern), NO_ARGUMENTS))
    assert not list(exchange.match(key, Properties()))


def _matches_in_line(pattern: list[str], words: list[str]) -> bool:
    """The same rule in time by the product of both lengths: which numbers of words the pattern so far can match."""
    reached = {0}
    for word in pattern:
        if word == "#":
            reached = set(range(min(reached), len(words) + 1)) if reached else reached
        else:
            reached = {number + 1 for number in reached if number < len(words) and word in ("*", words[number])}
    return len(words) in reached


def test_long_patterns_with_many_wildcards_follow_the_plain_rule() -> None:
    exchange, chance = _exchange("topic"), random.Random(1)
    patterns = [".".join(chance.choices("#*ab", k=chance.randrange(1, 20))) for _ in range(300)]
    for pattern in patterns:
        exchange.bind(Binding(exchange, _known_queue(pattern), pattern, NO_ARGUMENTS))
    for length in (3, 10, 20, 120):
        words = chance.choices("ab", k=length)
        expected = {pattern for pattern in patterns if _matches_in_line(pattern.split("."), words)}
        assert {found.name for found in exchange.match(".".join(words), Properties())} == expected


def test_a_star_in_a_routing_key_is_a_word() -> None:
    exchange, literal, star = _exchange("topic"), _queue("literal"), _queue("star")
    exchange.bind(Binding(exchange, literal, "a.b", NO_ARGUMENTS))
    exchange.bind(Binding(exchange, star, "a.*", NO_ARGUMENTS))
    assert [found.name for found in exchange.match("a.*", Properties())] == ["star"]
    assert [found.name for found in exchange.match("a.#", Properties())] == ["star"]


@pytest.mark.parametrize(
    ("arguments", "headers", "expected"),
    [
        ({"a": 1}, {"a": 1, "b": 2}, True),
        ({"a": 1, "b": 2}, {"a": 1}, False),
        ({"x-match": "any", "a": 1, "b": 2}, {"b": 2}, True),
        ({"x-match": "any", "a": 1}, {"a": 2}, False),
        ({"x-match": "any"}, {"a": 2}, False),
        ({}, {"a": 2}, True),
        ({"a": None}, {"a": "whatever"}, True),
        ({"a": None}, {}, False),
        ({"a": 1}, {"a": True}, False),
        ({"a": "1"}, {"a": 1}, False),
        ({"x-a": 1}, {}, True),
        ({"x-match": "all-with-x", "x-a": 1}, {}, False),
        ({"x-match": "any-with-x", "x-a": 1, "b": 1}, {"x-a": 1}, True),
        ({"x-match": "any", "x-a": 1}, {"x-a": 1}, False),
        ({"x-match": "any-with-x"}, {}, False),
        ({"x-match": "all-with-x"}, {}, True),
        ({"a": None, "b": None}, {"a": None, "b": None}, True),
        ({"a": 5}, {"a": 5.0}, True),
        ({"a": 5}, {"a": TaggedInt(5, b"l")}, True),
        ({"a": 5}, {"a": datetime.fromtimestamp(5, UTC)}, True),
        ({"a": 5}, {"a": Decimal(5)}, False),
        ({"a": Decimal(5)}, {"a": Decimal("5.0")}, False),
        ({"a": 0.0}, {"a": -0.0}, True),
        ({"a": "x"}, {"a": b"x"}, True),
        ({"a": [5]}, {"a": [5]}, True),
        ({"a": [5]}, {"a": [5.0]}, False),
        ({"a": {"b": 5}}, {"a": {"b": TaggedInt(5, b"l")}}, False),
        ({"a": {"b": 1, "c": 2}}, {"a": {"c": 2, "b": 1}}, False),
    ],
)
def test_headers_match(arguments: Table, headers: Table, expected: bool) -> None:
    exchange, queue = _exchange("headers"), _queue("q")
    exchange.bind(Binding(exchange, queue, "", arguments))
    assert bool(list(exchange.match("any key", Properties(headers=headers)))) is expected


def _satisfies(arguments: Table, headers: Table) -> bool:
    """The rule for headers in its plainest form, for values of types that equal no other's."""
    kind = str(arguments.get("x-match", "all"))
    hits = [
        key in headers and (value is None or value == headers[key])
        for key, value in arguments.items()
        if key != "x-match" and (kind.endswith("-with-x") or not key.startswith("x-"))
    ]
    return any(hits) if kind.startswith("any") else all(hits)


_keys = st.sampled_from(["a", "b", "c", "x-a", "x-b"])
_values = st.sampled_from([None, 1, 2, "1"])
_headers = st.dictionaries(_keys, _values, max_size=5)
_kinds = st.sampled_from([{}, *({"x-match": kind} for kind in ("all", "any", "all-with-x", "any-with-x"))])


@given(st.lists(st.tuples(_kinds, _headers), max_size=8), _headers)
def test_headers_matching_follows_the_plain_rule(bindings: list[tuple[Table, Table]], headers: Table) -> None:
    exchange = _exchange("headers")
    queues = [_known_queue(str(number)) for number in range(len(bindings))]
    bound = [
        Binding(exchange, queue, "", {**kind, **arguments})
        for queue, (kind, arguments) in zip(queues, bindings, strict=True)
    ]
    for binding in bound:
        assert exchange.bind(binding)
    expected = {str(number) for number, binding in enumerate(bound) if _satisfies(binding.arguments, headers)}
    assert {found.name for found in exchange.match("", Properties(headers=headers))} == expected
    for binding in bound[::2]:
        assert exchange.unbind(binding)
    assert {found.name for found in exchange.match("", Properties(headers=headers))} == {
        name for name in expected if int(name) % 2
    }
    for binding in bound[1::2]:
        assert exchange.unbind(binding)
    assert not list(exchange.match("", Properties(headers=headers)))


def test_patterns_stay_bound_when_many_others_are_unbound() -> None:
    exchange = _exchange("topic")
    bindings = [
        Binding(exchange, _known_queue(str(number % 10)), f"#.{number}.*.#", NO_ARGUMENTS) for number in range(2_000)
    ]
    for binding in bindings:
        exchange.bind(binding)
    for binding in bindings[:1_990]:
        exchange.unbind(binding)
    assert [found.name for found in exchange.match("a.1995.b", Properties())] == ["5"]
    assert not list(exchange.match("a.5.b", Properties()))
    exchange.bind(bindings[5])
    assert [found.name for found in exchange.match("a.5.b", Properties())] == ["5"]


def test_binding_twice_creates_one_binding() -> None:
    for kind in TYPES:  # the key is a number: the weight of a binding of x-consistent-hash
        exchange, queue = _exchange(kind), _queue("q")
        binding = Binding(exchange, queue, "1", NO_ARGUMENTS)
        assert exchange.bind(binding)
        assert not exchange.bind(binding)
        assert len(list(exchange.match("1", Properties()))) == 1
        assert exchange.unbind(binding)
        assert not exchange.unbind(binding)
        assert not list(exchange.match("1", Properties()))


def _vhost() -> VirtualHost:
    vhost = Broker().vhosts["/"]
    for name in "abc":
        vhost.declare_exchange(name, "fanout", durable=False, auto_delete=False, internal=False, arguments=NO_ARGUMENTS)
    vhost.queues["q"] = _queue("q")
    return vhost


def test_exchanges_in_a_circle_route_once() -> None:
    vhost = _vhost()
    for source, destination in ("ab", "bc", "ca"):
        vhost.bind(source, vhost.exchange(destination), "", NO_ARGUMENTS)
    vhost.bind("c", vhost.queues["q"], "", NO_ARGUMENTS)
    vhost.bind("a", vhost.queues["q"], "", NO_ARGUMENTS)
    queues, by_properties = vhost.route(vhost.exchange("b"), ["k"], Properties())
    assert [queue.name for queue in queues] == ["q"]
    assert not by_properties


def test_an_alternate_exchange_gets_unroutable_messages() -> None:
    vhost = _vhost()
    vhost.declare_exchange(
        "d", "direct", durable=False, auto_delete=False, internal=False, arguments={"alternate-exchange": "a"}
    )
    vhost.bind("a", vhost.queues["q"], "", NO_ARGUMENTS)
    assert [queue.name for queue in vhost.route(vhost.exchange("d"), ["k"], Properties())[0]] == ["q"]


def test_deleting_removes_bindings_and_auto_delete_exchanges() -> None:
    vhost = _vhost()
    vhost.declare_exchange("d", "direct", durable=False, auto_delete=True, internal=False, arguments=NO_ARGUMENTS)
    vhost.bind("d", vhost.exchange("a"), "k", NO_ARGUMENTS)
    vhost.bind("a", vhost.queues["q"], "", NO_ARGUMENTS)
    generation = vhost.generation
    vhost.delete_exchange("a", if_unused=False)
    assert "a" not in vhost.exchanges
    assert "d" not in vhost.exchanges
    assert vhost.generation > generation
    vhost.delete_exchange("a", if_unused=False)
    with pytest.raises(Refusal, match="no exchange 'a' in vhost '/'"):
        vhost.exchange("a")


async def test_headers_are_compared_by_value_across_types(broker_url: str) -> None:
    values: dict[str, FieldValue] = {
        "int": 5,
        "long": TaggedInt(5, b"l"),
        "double": 5.0,
        "timestamp": datetime.fromtimestamp(5, UTC),
        "decimal": Decimal(5),
        "string": "5",
        "bytes": b"5",
        "list": [5],
        "list of long": [TaggedInt(5, b"l")],
        "void": None,
    }
    numbers = {"int", "long", "double", "timestamp", "void"}
    strings = {"string", "bytes", "void"}
    async with rabbitry.connect(broker_url) as connection, await connection.channel() as channel:
        await channel.declare_exchange("compared", "headers", auto_delete=True)
        for name, value in values.items():
            await channel.declare_queue(name, exclusive=True)
            await channel.bind_queue(name, "compared", arguments={"key": value})
        for name, value in values.items():
            properties = Properties(headers={"key": value})
            await channel.publish(b"", exchange="compared", properties=properties)
            found = {queue for queue in values if await channel.get(queue, no_ack=True) is not None}
            assert found == next((equal for equal in (numbers, strings) if name in equal - {"void"}), {name, "void"})
