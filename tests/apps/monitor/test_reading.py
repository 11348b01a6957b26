"""Fields that the dashboard reads from samples, whatever else they hold."""

import json

import pytest

from rabbitry.apps.monitor.reading import UNNAMED, Reading, read


def reading(key: str = "k", **fields: object) -> Reading:
    return read(json.dumps(fields).encode(), key)


def rates(*names: str) -> dict[str, dict[str, int]]:
    return {name: {"rx": 10, "tx": 1} for name in names}


def test_traffic_counts_once_by_the_agents_uplinks() -> None:
    net = rates("lan", "docker0", "veth1", "wifi")
    assert reading(net=net, uplinks=["lan", "wifi"]).values[2:] == (20.0, 2.0)


@pytest.mark.parametrize("uplinks", [None, [], ["gone"], "eth0", [1, None], {}])
def test_traffic_counts_once_by_names_without_uplinks(uplinks: object) -> None:
    net = rates("eth0", "docker0", "veth1a2b3c4", "br-0a1b2c3d4e5f", "lo")
    assert reading(net=net, uplinks=uplinks).values[2:] == (10.0, 1.0)


def test_an_uplink_that_is_named_twice_counts_once() -> None:
    assert reading(net=rates("eth0"), uplinks=["eth0", "eth0"]).values[2:] == (10.0, 1.0)


def test_infinite_rates_are_left_out() -> None:
    net = {name: {"rx": 1e308, "tx": 1} for name in ("eth0", "eth1")}
    assert reading(net=net).values[2:] == (None, 2.0)


@pytest.mark.parametrize("percent", [-6, 106, 1e300, -1e308])
def test_an_impossible_percentage_is_left_out(percent: float) -> None:
    assert reading(cpu=percent / 100, memory={"percent": percent}).values[:2] == (None, None)
    assert reading(cpu_percent=percent).values[0] is None
    assert reading(cpu=percent / 100, cpu_percent=7).values[0] == 7.0


def test_a_share_that_rounding_made_more_than_full_is_full() -> None:
    assert reading(cpu=1.02, memory={"percent": -0.5}).values[:2] == (100.0, 0.0)


def test_a_negative_rate_takes_nothing_from_the_others() -> None:
    net = {"eth0": {"rx": -5, "tx": 1}, "eth1": {"rx": 10, "tx": 1}}
    assert reading(net=net, uplinks=["eth0", "eth1"]).values[2:] == (10.0, 2.0)


@pytest.mark.parametrize("name", [None, "", "  \t", 7, [], {}])
def test_a_host_without_a_name_has_that_of_its_routing_key(name: object) -> None:
    assert reading("the-key", hostname=name).source.host == "the-key"
    assert reading("", hostname=name).source.host == UNNAMED


def test_names_are_shown_with_hidden_characters_and_cut() -> None:
    assert reading(hostname="pay\u202egpj.exe\u0000\u200b").source.host == r"pay\u202egpj.exe\x00\u200b"
    first, second = (reading(hostname="x" * 300 + end).source for end in "ab")
    assert first.host == second.host == "x" * 255 + "…"
    assert first.id != second.id


@pytest.mark.parametrize("name", ["__proto__", "constructor", "toString", "hasOwnProperty", "<b>", "\u202e", "é" * 999])
def test_an_id_is_hexadecimal_whatever_the_name_is(name: str) -> None:
    found = reading(name, hostname=name, machine=name).source.id
    assert len(found) == 16
    assert not set(found) - set("0123456789abcdef")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-01T00:01:00+00:00", 60.0), ("1970-01-01T00:01:00Z", 60.0), ("1970-01-01T01:01:00.5+01:00", 60.5),
        ("1970-01-01T00:01:00", None), ("yesterday", None), (60, None), (None, None), ("", None),
        ("9" * 10_000, None), ("0001-01-01T00:00:00+23:59", -62135683140.0),
    ],
)  # fmt: skip
def test_only_a_timestamp_with_a_zone_is_one(text: object, expected: float | None) -> None:
    assert reading(timestamp=text).timestamp == expected
