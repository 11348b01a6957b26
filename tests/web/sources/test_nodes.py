"""Nodes that report: rates, sums, silence and short lives, and reports that make no sense."""

import msgspec
import pytest

from rabbitry.telemetry import Histogram, Limits, Report, ScheduleState, Wiring
from rabbitry.telemetry._report import ReportKind
from rabbitry.web.sources import nodes
from rabbitry.web.sources.nodes import LONGEST_NAME, MOST_NAMES, OFTEN, REMEMBERED, SHORT, Nodes
from rabbitry.web.sources.reported import reported


class _Scene:
    """Nodes, and a clock for them and for what they report."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.nodes = Nodes(lambda: self.now, lambda: self.now)

    def report(self, id: str = "a", kind: ReportKind = "heartbeat", *, started: float = 1.0, **more: object) -> None:
        given = {"app": "shop", "role": "pack", "host": "h", "pid": 7, "at": self.now} | more
        self.nodes.take(Report(kind=kind, id=id, started=started, **given))  # type: ignore[arg-type] # tests' own


def _durations(*seconds: float) -> list[int]:
    histogram = Histogram()
    for one in seconds:
        histogram.observe(one)
    return histogram.trimmed()


def test_counters_become_rates_and_nodes_of_a_stage_add_up() -> None:
    scene = _Scene()
    for id in "ab":
        scene.report(id, counters={"received": 100}, histograms={"handling": _durations(3.0)})
    scene.now += 10
    slow = _durations(3.0, *[0.1] * 98, 0.5, 0.5)
    scene.report("a", counters={"received": 120, "dead": 5}, gauges={"in_hand": 2.0}, histograms={"handling": slow})
    scene.report("b", counters={"received": 130}, gauges={"in_hand": 3.0}, histograms={"handling": _durations(3.0)})
    (stage,) = scene.nodes.stages().values()
    assert stage["nodes"] == 2
    assert stage["rates"] == {"received": 5.0, "dead": 0.5}
    assert stage["counters"] == {"received": 250, "dead": 5}
    assert stage["gauges"] == {"in_hand": 5.0}
    assert stage["handling"]["count"] == 100  # those before the first report are not of the last minute
    assert 0.065 <= stage["handling"]["p50"] < 0.132 <= 0.26 < stage["handling"]["p99"] <= 0.525
    assert stage["moved"] == 1010
    rows = {row[2]: row for row in scene.nodes.rows()}
    assert rows["a"][3:] == ("h", 7, "live", 1.0, 2.0, 0.0, 2.0)


def test_a_node_that_stops_is_gone_and_one_that_falls_silent_needs_attention() -> None:
    scene = _Scene()
    scene.report("a")
    scene.report("b")
    scene.report("a", "stop")
    scene.now += 21
    assert scene.nodes.stages() == {}
    assert [(row[2], row[5]) for row in scene.nodes.rows()] == [("b", "silent")]
    ((title, problem),) = scene.nodes.problems().items()
    assert title == "shop pack, node b on h"
    assert problem["bad"]
    scene.nodes.excuse()  # nobody listened
    assert scene.nodes.problems() == {}
    scene.now += 21
    scene.report("c", started=500.0)  # took its place
    assert scene.nodes.problems() == {}
    scene.report("c", "stop", started=500.0)
    scene.now += REMEMBERED
    scene.nodes.forget()
    assert scene.nodes.rows() == []


def test_workers_that_end_often_need_attention_until_they_hold() -> None:
    scene = _Scene()
    scene.report("steady", role="other")
    for number in range(OFTEN):
        scene.report(f"w{number}", "start", started=scene.now)
        scene.now += 5
        scene.report(f"w{number}", "stop" if number else "heartbeat", started=scene.now - 5)
    scene.report("w0", started=scene.now)  # the same id, and another life: the one before was not stopped
    (title,) = (title for title, problem in scene.nodes.problems().items() if "ended within" in problem["what"])
    assert title == "shop pack on h"
    scene.now += REMEMBERED + SHORT
    scene.nodes.forget()
    assert not [one for one in scene.nodes.problems().values() if "ended within" in one["what"]]


def test_reports_that_make_no_sense_stop_nothing() -> None:
    scene = _Scene()
    evil = {str(number) * 9: 10**400 for number in range(MOST_NAMES + 10)} | {"x" * (LONGEST_NAME + 1): 1}
    for shift in (0, 1e300, -1e300):
        scene.report(
            "a" * 1000, at=shift, pid=10**30, counters=evil, gauges={"in_hand": 1e308, "less": -1e308},
            histograms={"handling": [10**300] * 1000},
            wiring=Wiring("e" * 1000, "k" * 1000, "q" * 1000, "t" * 1000, dict.fromkeys(evil, "o" * 1000)),
            schedule=ScheduleState("w" * 1000, "m" * 1000, 1e15, [(1e15, shift, "h" * 1000)] * 1000),
            limits=Limits("r" * 1000, "t" * 1000, 10**30, "b" * 1000, "e" * 1000, 10**30), share=shift, missed=10**30,
            document={"x": "y" * 10**5}, takes={"x": "y" * 10**5},
        )  # fmt: skip
        scene.now += 1
    told = msgspec.json.encode(
        [scene.nodes.stages(), scene.nodes.rows(), scene.nodes.problems(), reported(scene.nodes.live(), "/")]
    )
    assert len(told) < 200_000
    (node,) = scene.nodes.live()
    schedule = node.report.schedule
    assert schedule is not None
    # A browser's Date ends at 8.64e12 seconds.
    assert (schedule.next, schedule.fired) == (0.0, [(0.0, 0.0, "h" * LONGEST_NAME)] * 10)
    found = node.report.wiring
    assert found is not None
    assert {len(name) for name in (found.exchange, found.key, found.queue, found.to)} == {LONGEST_NAME}
    assert len(found.other) == MOST_NAMES
    assert set(found.other.values()) == {"o" * LONGEST_NAME}
    longest = {name: name[0] * LONGEST_NAME for name in ("rate", "tokens", "by")}
    assert node.report.limits == Limits(**longest, slots=0, rate_each="e" * LONGEST_NAME, slots_each=0)
    assert len(schedule.when) == len(schedule.missed) == LONGEST_NAME
    assert (node.report.share, node.report.missed) == (1.0, 0)
    assert node.report.document is node.report.takes is None  # others keep these


def test_the_names_of_all_nodes_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "MOST_OF_ALL", 1000)
    scene = _Scene()
    many = {str(number): number for number in range(MOST_NAMES)}

    def kept() -> dict[str, int]:
        return {node.report.id: len(node.report.counters) for node in scene.nodes.live()}

    for id in "abcde":
        for _ in range(3):
            scene.report(id, counters=many)
    assert list(kept()) == list("abcde"), "each node is known"
    assert sum(kept().values()) <= 1000
    assert kept()["a"] == MOST_NAMES
    assert kept()["e"] < MOST_NAMES
    for id in "abcd":
        scene.report(id, "stop")
    scene.report("e", counters=many)
    assert kept() == {"e": MOST_NAMES}, "there is room again"
