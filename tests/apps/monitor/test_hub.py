"""The hub: everything is bounded, and a slow page always gets the newest state."""

import contextlib
import json
from datetime import UTC, datetime

import msgspec
import pytest

from rabbitry.apps.monitor import hub as limits
from rabbitry.apps.monitor.hub import HostState, Hub
from rabbitry.apps.monitor.reading import source
from rabbitry.runtime.http.pages import PAGE_LIMIT, PEER_PAGE_LIMIT, TooManyPages


class _Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> _Clock:
    return _Clock()


@pytest.fixture
def hub(clock: _Clock) -> Hub:
    return Hub("amqp://broker/", clock)


def _sample(host: str, cpu: float = 0.5) -> bytes:
    return json.dumps({"hostname": host, "cpu": cpu, "net": {"eth0": {"rx": 1, "tx": 2}}}).encode()


def _known(hub: Hub, name: str, key: str = "k") -> HostState | None:
    return hub.whole(source(name, "", key).id)


def test_a_new_page_gets_known_samples_then_new_ones(hub: Hub) -> None:
    hub.set_broker("connected")
    hub.receive(_sample("a", 0.1), "k")
    hub.receive(_sample("a", 0.2), "k")
    with hub.page() as page:
        first = page.take()
        assert first.reset
        assert first.broker is not None
        assert first.broker.state == "connected"
        assert [host.host for host in first.hosts] == ["a"]
        assert [values[0] for _, values in first.hosts[0].history] == [10.0, 20.0]
        hub.receive(_sample("a", 0.3), "k")
        second = page.take()
        assert not second.reset
        assert second.hosts == []
        assert [(sample.host, sample.values) for sample in second.samples] == [("a", (30.0, None, 1.0, 2.0))]


def test_a_slow_page_misses_samples_but_not_the_newest(hub: Hub) -> None:
    with hub.page() as page:
        page.take()
        for number in range(limits.PENDING_LIMIT + 10):
            hub.receive(_sample(f"h{number % 3}", number / 10_000), "k")
        update = page.take()
        assert update.skipped > limits.PENDING_LIMIT
        assert len(update.samples) <= limits.PENDING_LIMIT
        newest = {host.host: host.latest.seq for host in update.hosts}
        assert set(newest) == {"h0", "h1", "h2"}
        assert max(newest.values()) == hub.received


def test_hosts_and_histories_are_bounded(hub: Hub) -> None:
    for number in range(limits.HOST_LIMIT + 5):
        hub.receive(_sample(f"h{number}"), "k")
    assert hub.host_count == limits.HOST_LIMIT
    assert _known(hub, "h0") is None
    for _ in range(limits.HISTORY + 20):
        hub.receive(_sample("long"), "k")
    known = _known(hub, "long")
    assert known is not None
    assert len(known.history) == limits.HISTORY


def test_a_silent_host_is_dropped_and_the_page_informed(hub: Hub, clock: _Clock) -> None:
    hub.receive(_sample("quiet"), "k")
    with hub.page() as page:
        page.take()
        clock.now += limits.FORGET_AFTER + 1
        assert page.take().gone == [source("quiet", "", "k").id]


def test_malformed_samples_are_counted_and_named(hub: Hub) -> None:
    with hub.page() as page:
        page.take()
        for body in (b"\xff", b"[1]", b"{", b'{"a":' * 500 + b"1" + b"}" * 500):
            hub.receive(body, "the-key")
        unread = page.take().unread
        assert unread is not None
        assert (unread.count, unread.routing_key) == (4, "the-key")
        assert unread.reason


def test_other_json_is_kept_as_it_came(hub: Hub) -> None:
    hub.receive(b'{"anything": "else"}', "its-key")
    known = _known(hub, "its-key", "its-key")
    assert known is not None
    assert known.latest.values == (None, None, None, None)
    assert known.latest.raw == '{"anything": "else"}'


def test_pages_are_bounded(hub: Hub) -> None:
    pages = [hub.page() for _ in range(PAGE_LIMIT)]
    for page in pages:
        page.__enter__()
    with pytest.raises(TooManyPages), hub.page():
        pass
    pages[0].__exit__(None, None, None)
    with hub.page():
        pass


def test_one_address_does_not_shut_out_the_others(hub: Hub) -> None:
    with contextlib.ExitStack() as pages:
        for _ in range(PEER_PAGE_LIMIT):
            pages.enter_context(hub.page("192.0.2.1"))
        with pytest.raises(TooManyPages, match="from your address"), hub.page("192.0.2.1"):
            pass
        pages.enter_context(hub.page("192.0.2.2"))


def test_machines_of_one_name_are_several_hosts(hub: Hub) -> None:
    for machine, key in (("aa", "k"), ("bb", "k"), ("aa", "pi-2"), ("aa", "k")):
        body = {"hostname": "vm", "machine": machine, "cpu": 0.1, "net": {}}
        hub.receive(json.dumps(body).encode(), key)
    hub.receive(_sample("vm"), "k")
    hub.receive(_sample("vm"), "k")
    with hub.page() as page:
        hosts = page.take().hosts
    assert {(host.host, host.latest.machine, host.latest.key) for host in hosts} == {
        ("vm", "aa", "k"), ("vm", "bb", "k"), ("vm", "aa", "pi-2"), ("vm", "", "k"),
    }  # fmt: skip
    assert len({host.id for host in hosts}) == 4


@pytest.mark.parametrize("error", [-7200.0, 7200.0])
def test_a_clock_that_is_wrong_is_pointed_out(hub: Hub, clock: _Clock, error: float) -> None:
    def latest(stamped: float) -> float | None:
        moment = datetime.fromtimestamp(stamped, UTC).isoformat()
        hub.receive(json.dumps({"hostname": "h", "timestamp": moment}).encode(), "k")
        known = _known(hub, "h")
        assert known is not None
        return known.latest.clock

    assert latest(clock.now + error) == error
    assert latest(clock.now + 1) is None  # the event was set


def test_a_message_that_is_late_does_not_make_a_clock_wrong(hub: Hub, clock: _Clock) -> None:
    for late in (1, 60, 30):
        moment = datetime.fromtimestamp(clock.now - late, UTC).isoformat()
        hub.receive(json.dumps({"hostname": "h", "timestamp": moment}).encode(), "k")
        known = _known(hub, "h")
        assert known is not None
        assert known.latest.clock is None


def test_names_that_are_not_text_do_not_stop_the_pages(hub: Hub) -> None:
    with hub.page() as page:
        odd = b"\xff\xfe".decode(errors="surrogateescape")
        hub.receive(b"no sample", odd)
        hub.receive(b'{"cpu": 0.1}', odd)
        update = page.take()
        assert msgspec.json.encode(update)
        assert [host.host for host in update.hosts or update.samples] == [r"\udcff\udcfe"]
