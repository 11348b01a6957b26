"""Routing of the exchange types and of a virtual host, without a connection."""

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rabbitry.amqp.protocol.methods import NO_ARGUMENTS
from rabbitry.amqp.protocol.tables import Table
from rabbitry.broker import Broker
from rabbitry.broker.errors import Refusal
from rabbitry.broker.exchanges import TYPES, Binding, Exchange, topic
from rabbitry.broker.queues import Queue
from rabbitry.broker.queues.arguments import Rules
from rabbitry.broker.vhost import VirtualHost


def _queue(name: str) -> Queue:
    vhost = Broker().vhosts["/"]
    return Queue(vhost, name, durable=False, auto_delete=False, owner=None, arguments=NO_ARGUMENTS, rules=Rules())


def _exchange(kind: str, name: str = "e") -> Exchange:
    return TYPES[kind](name, arguments=NO_ARGUMENTS)


def _matches(pattern: list[str], words: list[str]) -> bool:
    """The specification's rule, as plainly as it can be said."""
    if not pattern:
        return not words
    if pattern[0] == "#":
        return any(_matches(pattern[1:], words[cut:]) for cut in range(len(words) + 1))
    return bool(words) and pattern[0] in ("*", words[0]) and _matches(pattern[1:], words[1:])


_word = st.sampled_from(["a", "b", "c", "", "*", "#"])
_words = st.lists(_word, min_size=1, max_size=5)


def _split(key: str) -> list[str]:
    return key.split(".") if key else []


@pytest.mark.parametrize("most_places", [1, 1000])
@given(st.lists(_words, max_size=8), st.lists(st.sampled_from(["a", "b", "c", ""]), min_size=1, max_size=5))
def test_topic_matches_as_the_plain_rule_does(most_places: int, patterns: list[list[str]], words: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(topic, "_MOST_PLACES", most_places)
        _match_as_the_plain_rule_does(patterns, words)


def _match_as_the_plain_rule_does(patterns: list[list[str]], words: list[str]) -> None:
    exchange = _exchange("topic")
    queues = [_queue(str(number)) for number in range(len(patterns))]
    for pattern, queue in zip(patterns, queues, strict=True):
        assert exchange.bind(Binding(exchange, queue, ".".join(pattern), NO_ARGUMENTS))
    key = ".".join(words)
    expected = {
        queue.name
        for pattern, queue in zip(patterns, queues, strict=True)
        if _matches(_split(".".join(pattern)), _split(key))
    }
    for _ in range(2):  # the second time by what was kept
        assert {found.name for found in exchange.match(key, {})} == expected
    for pattern, queue in zip(patterns, queues, strict=True):
        assert exchange.unbind(Binding(exchange, queue, ".".join(pattern), NO_ARGUMENTS))
    assert not list(exchange.match(key, {}))


def test_patterns_of_many_stars_and_hashes_are_matched_without_going_over_their_places(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    visits = 0
    known = topic._with_hash

    def counted(*arguments: Any) -> Any:
        nonlocal visits
        result = known(*arguments)
        visits += len(result)
        return result

    monkeypatch.setattr(topic, "_with_hash", counted)
    exchange, chance = _exchange("topic"), random.Random(1)
    for number in range(300):
        pattern = ".".join(chance.choice("#*ab") for _ in range(20))
        exchange.bind(Binding(exchange, _queue(str(number)), pattern, NO_ARGUMENTS))
    for _ in range(10):
        exchange.match(".".join(chance.choice("ab") for _ in range(120)), {})
    assert visits < 10_000, "and not a million"


def test_a_star_in_a_routing_key_is_a_word() -> None:
    exchange, literal, star = _exchange("topic"), _queue("literal"), _queue("star")
    exchange.bind(Binding(exchange, literal, "a.b", NO_ARGUMENTS))
    exchange.bind(Binding(exchange, star, "a.*", NO_ARGUMENTS))
    assert [found.name for found in exchange.match("a.*", {})] == ["star"]
    assert [found.name for found in exchange.match("a.#", {})] == ["star"]


_header = st.sampled_from(["a", "b", "x-c"])
_value = st.sampled_from([None, True, False, 1, 1.0, 0, "1", b"1", [1], [True], {"n": 1}])
_kind = st.sampled_from([None, "all", "any", "all-with-x", "any-with-x"])
_headers = st.dictionaries(_header, _value, max_size=3)


def _satisfies(kind: str | None, wanted: Table, headers: Table) -> bool:
    """RabbitMQ's rule, as plainly as it can be said."""
    with_x = kind in ("all-with-x", "any-with-x")
    hits = [
        key in headers
        and (value is None or ((type(value) is bool) == (type(headers[key]) is bool) and value == headers[key]))
        for key, value in wanted.items()
        if with_x or not key.startswith("x-")
    ]
    return any(hits) if kind in ("any", "any-with-x") else all(hits)


@given(st.lists(st.tuples(_kind, _headers), max_size=8), st.lists(_headers, min_size=1, max_size=4))
def test_headers_match_as_the_plain_rule_does(bound: list[tuple[str | None, Table]], messages: list[Table]) -> None:
    exchange = _exchange("headers")
    bindings = []
    for number, (kind, wanted) in enumerate(bound):
        arguments = wanted if kind is None else {**wanted, "x-match": kind}
        bindings.append(Binding(exchange, _queue(str(number)), "", arguments))
        assert exchange.bind(bindings[-1])
    for there in (bindings, bindings[::2]):
        for binding in bindings:
            if binding not in there:
                exchange.unbind(binding)
        for headers in messages:
            expected = [binding for binding in there if _satisfies(*bound[bindings.index(binding)], headers)]
            found = [queue.name for queue in exchange.match("", headers)]
            assert sorted(found) == sorted(binding.destination.name for binding in expected)
    for binding in bindings[::2]:
        assert exchange.unbind(binding)
    assert not list(exchange.match("", {"a": 1}))


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
    ],
)
def test_headers_match(arguments: Table, headers: Table, expected: bool) -> None:
    exchange, queue = _exchange("headers"), _queue("q")
    exchange.bind(Binding(exchange, queue, "", arguments))
    assert bool(list(exchange.match("any key", headers))) is expected


def test_a_binding_that_is_made_twice_is_one() -> None:
    for kind in TYPES:
        exchange, queue = _exchange(kind), _queue("q")
        binding = Binding(exchange, queue, "k", NO_ARGUMENTS)
        assert exchange.bind(binding)
        assert not exchange.bind(binding)
        assert len(list(exchange.match("k", {}))) == 1
        assert exchange.unbind(binding)
        assert not exchange.unbind(binding)
        assert not list(exchange.match("k", {}))


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
    queues, by_headers = vhost.route(vhost.exchange("b"), ["k"], {})
    assert [queue.name for queue in queues] == ["q"]
    assert not by_headers


def test_an_alternate_exchange_takes_what_goes_nowhere() -> None:
    vhost = _vhost()
    vhost.declare_exchange(
        "d", "direct", durable=False, auto_delete=False, internal=False, arguments={"alternate-exchange": "a"}
    )
    vhost.bind("a", vhost.queues["q"], "", NO_ARGUMENTS)
    assert [queue.name for queue in vhost.route(vhost.exchange("d"), ["k"], {})[0]] == ["q"]


def test_deleting_takes_bindings_along_and_auto_delete_follows() -> None:
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
