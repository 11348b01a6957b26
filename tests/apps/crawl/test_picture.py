"""The live picture of log lines and telemetry, and its bounds."""

import json

import msgspec
import pytest

from rabbitry.apps.crawl.lines import LONGEST_SAID, parse_line
from rabbitry.apps.crawl.picture import AT_ONCE, MOST_NODES, SILENCE, Page, Picture, Update
from rabbitry.telemetry import Report, ReportKind


class _Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> _Clock:
    return _Clock()


@pytest.fixture
def picture(clock: _Clock) -> Picture:
    return Picture("amqp://127.0.0.1/", clock, clock)


def _all(page: Page) -> Update:
    """Return the state of a page after all waiting changes were sent."""
    first = page.take()
    nodes, totals = dict(first.nodes), first.totals
    while (more := page.take()).nodes:
        nodes |= more.nodes
    return msgspec.structs.replace(first, nodes=nodes, totals=totals)


@pytest.mark.parametrize(
    ("body", "kind", "identity", "text"),
    [
        (b"crawler|a3f|2026-11-21T10:00:00|http://example.org/|log", "crawler", "a3f", "http://example.org/"),
        (b"crawler|a3f|2026-11-21T10:00:00+00:00|http://e.org/|fetched, 200", "crawler", "a3f",
         "http://e.org/|fetched, 200"),
        (b"processor|b7c|crawler|a3f|2011-11-21T10:00:00|<html>\n|one|</html>|log", "processor", "b7c",
         "crawler|a3f|2011-11-21T10:00:00|<html>\n|one|</html>"),
        (b"Crawler|A3F|", "crawler", "A3F", ""),
        ("keeper|ä-1|zwölf".encode(), "keeper", "ä-1", "zwölf"),
        (b"processor|1|\xff\xfe\x00", "processor", "1", "\ufffd\ufffd\x00"),
    ],
)  # fmt: skip
def test_a_log_line_of_any_program_is_read(body: bytes, kind: str, identity: str, text: str) -> None:
    line = parse_line(body)
    assert line is not None
    assert (line.kind, line.id, line.text) == (kind, identity, text)


@pytest.mark.parametrize(
    "body",
    [b"", b"|", b"||||", b"crawler", b"crawler|a3f", b"|a3f|x|log", b"crawler||x|log", b"cr awler|a|x", b"\x00\x01|a|b",
     b"crawler|\xff|x|log", b"crawler|a\nb|x|log", b"crawler|" + b"a" * 41 + b"|x", "crawler|\u202eabc|x".encode(),
     b"x" * 21 + b"|a|b", b'{"kind": "crawler"}', b"crawler|" * 100_000, b"9|a|b"],
)  # fmt: skip
def test_a_malformed_log_line_is_counted_without_a_node(picture: Picture, body: bytes) -> None:
    if body.startswith(b"crawler|crawler|"):
        assert parse_line(body) is not None  # its id may be any word
        return
    picture.receive(body, None, is_ours=False)
    assert picture.totals.unread == 1
    with picture.page() as page:
        assert page.take().nodes == {}


def test_only_the_beginning_of_a_huge_line_is_kept() -> None:
    line = parse_line(b"processor|b7c|" + b"<p>|</p>\n" * 1_000_000 + b"|log")
    assert line is not None
    assert len(line.said) == LONGEST_SAID


def test_a_node_appears_with_its_first_message_and_goes_after_the_silence(picture: Picture, clock: _Clock) -> None:
    with picture.page() as page:
        assert page.take().reset
        picture.receive(b"crawler|a3f|2026-11-21T10:00:00|http://example.org/|log", None, is_ours=False)
        picture.tick()
        clock.now += 0.5
        picture.tick()
        shown = page.take()
        node = shown.nodes["crawler|a3f"]
        assert (node.kind, node.id, node.total, node.lines, node.last) == (
            "crawler",
            "a3f",
            1,
            1,
            "http://example.org/",
        )
        assert shown.totals is not None
        assert (shown.totals.crawled, shown.totals.processed) == (1, 0)
        clock.now += SILENCE - 1
        picture.tick()
        assert page.take().gone == []
        clock.now += 1
        picture.tick()
        assert page.take().gone == ["crawler|a3f"]
        assert picture.totals.crawled == 1


def test_pages_are_counted_by_kind_and_outcome(picture: Picture) -> None:
    for outcome, wire in (("page", 1000), ("page", 500), ("not-text", 70), ("robots", 30), ("nonsense", True), (7, -1)):
        headers: dict[str, object] = {"x-rabbitry-outcome": outcome, "x-rabbitry-wire": wire}
        picture.receive(b"crawler|a3f|t|u|x", headers, is_ours=True)
    picture.receive(b"crawler|a3f|t|u|waits for its host", {}, is_ours=True)
    picture.receive(b"processor|b7c|t|u|x", {"x-rabbitry-outcome": "document"}, is_ours=True)
    picture.receive(b"processor|b7c|t|u|x", {"x-rabbitry-outcome": "unreadable"}, is_ours=True)
    picture.receive(b"processor|old|<html>|log", None, is_ours=False)
    picture.receive(b"crawler|old|t|u|log", None, is_ours=False)
    picture.receive(b"indexer|i1|t|u|log", None, is_ours=False)
    totals = picture.totals
    assert (totals.crawled, totals.processed, totals.lines) == (3, 3, 12)
    assert totals.wire == 1600
    assert totals.outcomes["page"] == 2
    assert totals.outcomes["other"] == 1


def _report(role: str, identity: str, kind: ReportKind = "heartbeat", **counters: int) -> Report:
    named = {name.replace("_", "."): number for name, number in counters.items()}
    return Report(kind, "crawl", role, identity, "machine-1", 7, 1.0, 1.0, counters=named)


def test_telemetry_keeps_a_silent_node_and_names_its_machine(picture: Picture, clock: _Clock) -> None:
    picture.receive(b"crawler|a3f|t|u|x", {"x-rabbitry-outcome": "page"}, is_ours=True)
    with picture.page() as page:
        for _ in range(30):
            picture.report(_report("crawler", "a3f", to_rproc=40))
            picture.tick()
            clock.now += 2
        picture.report(_report("keeper", "c01"))
        picture.report(_report("questions", "c01"))
        picture.report(msgspec.structs.replace(_report("crawler", "other"), app="grading"))
        picture.tick()
        known = _all(page)
        assert sorted(known.nodes) == ["crawler|a3f", "keeper|c01"]
        assert (known.nodes["crawler|a3f"].host, known.nodes["crawler|a3f"].total) == ("machine-1", 40)
        assert picture.totals.crawled == 40
        picture.report(_report("crawler", "a3f", "stop"))
        assert page.take().gone == ["crawler|a3f"]


def test_forged_reports_are_bounded(picture: Picture) -> None:
    for identity in ("", "x" * 41, "a\nb", "\u202e"):
        picture.report(_report("crawler", identity))
    for number in (1 << 62, -5):
        picture.report(msgspec.structs.replace(_report("crawler", "a3f", to_rproc=number), host="h" * 100_000))
    picture.tick()
    with picture.page() as page:
        nodes = _all(page).nodes
        assert list(nodes) == ["crawler|a3f"]
        assert (nodes["crawler|a3f"].total, len(nodes["crawler|a3f"].host)) == (0, 100)


def test_earlier_pages_are_counted_but_not_in_the_rate(picture: Picture, clock: _Clock) -> None:
    picture.tick()
    picture.report(_report("crawler", "a3f", to_rproc=100_000))
    clock.now += 1
    picture.tick()
    assert (picture.totals.crawled, picture.totals.crawling) == (100_000, 0.0)
    picture.report(_report("crawler", "a3f", to_rproc=100_100))
    clock.now += 1
    picture.tick()
    assert 10 < picture.totals.crawling <= 100


def test_rates_follow_the_counts_and_end(picture: Picture, clock: _Clock) -> None:
    picture.tick()
    for _ in range(60):
        for _ in range(10):
            picture.receive(b"crawler|a3f|t|u|log", None, is_ours=False)
        clock.now += 0.5
        picture.tick()
    assert 19 < picture.totals.crawling <= 20
    with picture.page() as page:
        assert 19 < _all(page).nodes["crawler|a3f"].rate <= 20
    for _ in range(80):
        clock.now += 0.5
        picture.tick()
    assert picture.totals.crawling == 0.0


def test_a_thousand_new_ids_a_second_stay_bounded(picture: Picture, clock: _Clock) -> None:
    with picture.page() as page:
        page.take()
        for second in range(10):
            for number in range(1000):
                picture.receive(f"crawler|{second:x}-{number:x}|t|u|log".encode(), None, is_ours=False)
            picture.receive(b"crawler|busy|t|u|log", None, is_ours=False)
            clock.now += 1
            picture.tick()
        update = page.take()
        assert len(update.nodes) == AT_ONCE
        assert len(msgspec.json.encode(update)) < 150_000
        nodes = update.nodes | _all(page).nodes
        assert len(nodes) == MOST_NODES
        assert nodes["crawler|busy"].total == 10
        assert picture.totals.crawled == 10_010
        assert picture.totals.forgotten == 10_001 - MOST_NODES


def test_an_update_holds_only_changes(picture: Picture, clock: _Clock) -> None:
    for number in range(3):
        picture.receive(f"crawler|{number}|t|u|log".encode(), None, is_ours=False)
    picture.set_broker("connected")
    with picture.page() as page:
        assert len(_all(page).nodes) == 3
        for _ in range(18):  # until all rates are 0
            clock.now += 1
            picture.tick()
        page.take()
        clock.now += 1
        picture.tick()
        assert json.loads(msgspec.json.encode(page.take())) == {"now": clock.now}
        picture.receive(b"crawler|2|t|u|log", None, is_ours=False)
        clock.now += 0.25
        picture.tick()
        assert list(page.take().nodes) == ["crawler|2"]
