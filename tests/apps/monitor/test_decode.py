"""Decoding samples of hostile and careless publishers."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rabbitry.apps.monitor.decode import MAX_BODY, MAX_DEPTH, InvalidSample, decode, printable, utilization
from rabbitry.apps.monitor.statistics import MAX_INTERFACES


def read(body: bytes) -> Any:
    return utilization(decode(body))


def test_the_contract_s_own_example() -> None:
    found = read(b'{"cpu": 0.27, "net": {"eth0": {"rx": 1200, "tx": 800}, "lo": {"rx": 0, "tx": 0}}}')
    assert found.cpu == 0.27
    assert found.net == {"eth0": (1200, 800), "lo": (0, 0)}
    assert found.problems == []


def test_unknown_fields_are_ignored() -> None:
    found = read(b'{"cpu": 1, "net": {"a": {"rx": 1.5, "tx": 2, "mtu": 1500}}, "hostname": 7, "x": [null]}')
    assert found.net == {"a": (1.5, 2)}
    assert found.problems == []


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b"hello", "no JSON"),
        (b'{"cpu": 0.1, "net": {}} x', "no JSON"),
        (b'{"cpu": NaN, "net": {}}', "no JSON"),
        (b'{"cpu": -Infinity, "net": {}}', "no JSON"),
        (b'{"cpu": 1e999, "net": {}}', "no JSON"),
        (b'{"cpu": ' + b"9" * 10_000 + b', "net": {}}', "no JSON"),
        (b"[]", "no object"),
        (b"null", "no object"),
        (b'"cpu"', "no object"),
        (b'{"net": {}}', "lacks 'cpu'"),
        (b'{"cpu": 0.5}', "lacks 'net'"),
        (b'{"cpu": "0.5", "net": {}}', "'cpu'"),
        (b'{"cpu": true, "net": {}}', "'cpu'"),
        (b'{"cpu": null, "net": {}}', "'cpu'"),
        (b'{"cpu": 27, "net": {}}', "'cpu'"),
        (b'{"cpu": -0.5, "net": {}}', "'cpu'"),
        (b'{"cpu": ' + b"9" * 400 + b', "net": {}}', "'cpu'"),
        (b'{"cpu": 0.5, "net": []}', "'net'"),
        (b'{"cpu": 0.5, "net": "eth0"}', "'net'"),
        (b"[" * 100_000, "nested deeper"),
        (b'{"a":' * 40 + b"1" + b"}" * 40, "nested deeper"),
        (b'{"cpu": 0.5, "net": {}, "x": "' + b"x" * MAX_BODY + b'"}', "too large"),
    ],
)
def test_malformed_samples_are_refused_with_the_reason(body: bytes, reason: str) -> None:
    with pytest.raises(InvalidSample, match=reason):
        read(body)


def test_depth_is_allowed_up_to_its_limit() -> None:
    inner = b'{"a":' * (MAX_DEPTH - 1) + b"1" + b"}" * (MAX_DEPTH - 1)
    assert read(b'{"cpu": 0, "net": {}, "deep": ' + inner + b"}").cpu == 0


@pytest.mark.parametrize(
    ("rates", "reason"),
    [
        ({}, "'rx'"),
        ({"rx": 1}, "'tx'"),
        ({"tx": 1}, "'rx'"),
        ({"rx": "1", "tx": 1}, "'rx'"),
        ({"rx": 1, "tx": True}, "'tx'"),
        ({"rx": -1, "tx": 1}, "'rx'"),
        ({"rx": 10**40, "tx": 1}, "'rx'"),
        ({"rx": 1, "tx": 1e300}, "'tx'"),
        ([1, 2], "'rx'"),
        (None, "'rx'"),
    ],
)
def test_an_interface_without_usable_rates_is_skipped_and_named(rates: Any, reason: str) -> None:
    body = json.dumps({"cpu": 0.5, "net": {"bad": rates, "good": {"rx": 1, "tx": 2}}}).encode()
    found = read(body)
    assert found.net == {"good": (1, 2)}
    [problem] = found.problems
    assert "'bad'" in problem
    assert reason in problem


def test_fractions_a_tick_beyond_their_range_are_clamped() -> None:
    assert read(b'{"cpu": 1.01, "net": {}}').cpu == 1
    assert read(b'{"cpu": -0.01, "net": {}}').cpu == 0


def test_interfaces_of_one_sample_are_bounded() -> None:
    net = {f"veth{number}": {"rx": 1, "tx": 1} for number in range(MAX_INTERFACES + 5)}
    found = read(json.dumps({"cpu": 0.5, "net": net}).encode())
    assert len(found.net) == MAX_INTERFACES
    assert len(found.problems) == 1


def test_names_can_t_steer_a_terminal() -> None:
    name = "eth0\x1b[2J\r\n\x9b31m‮evil"
    body = json.dumps({"cpu": 0.5, "net": {name: {"rx": 1}, "x" * 300: {"rx": 1, "tx": 1}}}).encode()
    found = read(body)
    assert found.net == {}
    assert all(problem.isprintable() for problem in found.problems)
    assert printable(name) == "eth0\\x1b[2J\\r\\n\\x9b31m\\u202eevil"
    assert len(printable("x" * 1000)) == 256


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
near_samples = st.fixed_dictionaries({}, optional={"cpu": json_values, "net": json_values, "hostname": json_values})


@given(st.binary(max_size=100) | (json_values | near_samples).map(lambda value: json.dumps(value).encode()))
def test_nothing_but_a_sample_or_a_named_reason_comes_out(body: bytes) -> None:
    try:
        found = read(body)
    except InvalidSample as error:
        reason = str(error)
        assert reason.isprintable()
        return
    assert 0 <= found.cpu <= 1
    assert all(rate >= 0 for pair in found.net.values() for rate in pair)
