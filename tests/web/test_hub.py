"""The hub: everything is bounded, and a page that reads slowly never misses the newest."""

import json

import pytest

from rabbitry.web import hub as limits
from rabbitry.web.hub import Hub, TooManyPages


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


def test_a_new_page_gets_what_is_known_then_what_comes(hub: Hub) -> None:
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
    assert hub.whole("h0") is None
    for _ in range(limits.HISTORY + 20):
        hub.receive(_sample("long"), "k")
    known = hub.whole("long")
    assert known is not None
    assert len(known.history) == limits.HISTORY


def test_a_silent_host_is_forgotten_and_the_page_told(hub: Hub, clock: _Clock) -> None:
    hub.receive(_sample("quiet"), "k")
    with hub.page() as page:
        page.take()
        clock.now += limits.FORGET_AFTER + 1
        assert page.take().gone == ["quiet"]


def test_what_is_no_sample_is_counted_and_named(hub: Hub) -> None:
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
    known = hub.whole("its-key")
    assert known is not None
    assert known.latest.values == (None, None, None, None)
    assert known.latest.raw == '{"anything": "else"}'


def test_pages_are_bounded(hub: Hub) -> None:
    pages = [hub.page() for _ in range(limits.PAGE_LIMIT)]
    for page in pages:
        page.__enter__()
    with pytest.raises(TooManyPages), hub.page():
        pass
    pages[0].__exit__(None, None, None)
    with hub.page():
        pass
