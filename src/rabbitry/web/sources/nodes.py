"""The nodes that report themselves: their rates, and which are silent or end often. Without I/O."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final, TypeAlias, TypeVar

import msgspec

from rabbitry.telemetry import SILENCE, Limits, Report, ScheduleState, Wiring, quantile
from rabbitry.web.feed.tables import Column, Row

MOST_NODES: Final = 5000
"""Nodes that are known at once; others are left out."""
MOST_NAMES: Final = 200
"""Counters, gauges or histograms of one node."""
MOST_OF_ALL: Final = 100_000
"""Names of counters and the like of all nodes together. A worker has 10 to 30, and one more for each key of results."""
LONGEST_NAME: Final = 255
REMEMBERED: Final = 600.0
"""Seconds for which silent nodes are listed, and short lives count."""
SHORT: Final = 300.0
"""Seconds below which a life is a short one."""
OFTEN: Final = 3
"""Short lives of a stage on a machine after which its workers are said to end often."""
MOST_HOSTS: Final = 20
"""Machines that are named for a stage."""
_MARK: Final = 10.0
"""Seconds between the readings that rates and percentiles are counted from."""
_MARKS: Final = 6
_MOST: Final = 1 << 50
"""Numbers beyond it count as 0."""
_KINDS: Final = 4
"""Mappings with names in a report: counters, gauges, histograms, and exchanges of results."""
_LEAST_SHARE: Final = 1e-9
"""A smaller share of chains than this one is none that a worker reports."""
_MOST_PLACES: Final = 2000
"""Pairs of a stage and a machine whose lives are remembered."""
_MOST_TICKS: Final = 10
"""Ticks of a schedule that are shown."""
_FARTHEST: Final = 1e11
"""Times of a schedule after this Unix time count as 0, because a browser's `Date` can't hold every number."""

COLUMNS: Final = (
    Column("app"),
    Column("role"),
    Column("id"),
    Column("host"),
    Column("pid", "number"),
    Column("state"),
    Column("started", "number"),
    Column("received", "number"),
    Column("done", "number"),
    Column("in_hand", "number"),
)
"""Of the table `nodes`: the first three identify a node; `received` and `done` are messages a second."""

N = TypeVar("N", int, float)
T = TypeVar("T")
Key: TypeAlias = tuple[str, str, str]
"""App, role and id of a node."""
Problems: TypeAlias = dict[str, dict[str, Any]]


@dataclass(slots=True)
class NodeState:
    """A node.

    report: its last one, bounded. heard: monotonic seconds. moved: Unix time, 0 for never. names: of counters and the
    like in the report.
    """

    report: Report
    heard: float
    moved: float = 0.0
    names: int = 0
    marks: deque[Report] = field(default_factory=lambda: deque(maxlen=_MARKS))

    def take(self, report: Report, now: float) -> None:
        """Take the next report of the same life of this node."""
        if any(value > self.report.counters.get(name, 0) for name, value in report.counters.items()):
            self.moved = report.at
        self.report, self.heard = report, now
        if not self.marks or report.at - self.marks[-1].at >= _MARK:
            self.marks.append(report)

    def rates(self) -> dict[str, float]:
        """Return the growth of each counter a second, over the last 5 to 15 s."""
        report, base = self.report, self.marks[-1]
        if report.at - base.at < _MARK / 2 and len(self.marks) > 1:
            base = self.marks[-2]
        seconds = report.at - base.at
        if seconds <= 0:
            return {}
        return {
            name: max(0.0, (value - base.counters.get(name, 0)) / seconds) for name, value in report.counters.items()
        }

    def durations(self, name: str) -> list[int]:
        """Return the counts of a histogram over the last minute."""
        before = self.marks[0].histograms.get(name, [])
        return [
            max(0, count - (before[place] if place < len(before) else 0))
            for place, count in enumerate(self.report.histograms.get(name, []))
        ]


class Nodes:
    """The nodes by app, role and id.

    Args:
        now: A monotonic clock, in seconds.
        clock: Returns Unix seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic, clock: Callable[[], float] = time.time) -> None:
        self._now = now
        self._clock = clock
        self._nodes: dict[Key, NodeState] = {}
        self._short: dict[tuple[str, str, str], deque[float]] = {}
        """App, role and host → when lives ended that were short."""
        self.left_out: int = 0
        """Nodes beyond MOST_NODES since the last call of `forget`."""
        self._names = 0

    def take(self, report: Report) -> None:
        """Take a report."""
        key, now = (report.app[:LONGEST_NAME], report.role[:LONGEST_NAME], report.id[:LONGEST_NAME]), self._now()
        node = self._nodes.get(key)
        room = MOST_OF_ALL - self._names + (0 if node is None else node.names)
        report = _bounded(report, min(MOST_NAMES, room // _KINDS))
        if node is not None and report.started != node.report.started:
            self._remove(key)
            node = None
        if node is None:
            if report.kind == "stop":
                return
            if len(self._nodes) >= MOST_NODES:
                self.left_out += 1
                return
            node = self._nodes[key] = NodeState(report, now)
        node.take(report, now)
        self._names -= node.names
        node.names = _number_of_names(report)
        self._names += node.names
        if report.kind == "stop":
            self._remove(key)

    def excuse(self) -> None:
        """Restart the clock of every node's silence: this program was cut off from the broker, or has just started."""
        now = self._now()
        for node in self._nodes.values():
            node.heard = now

    def forget(self) -> None:
        """Forget nodes that have been silent for long, and lives that ended long ago."""
        now = self._now()
        self.left_out = 0
        for key in [key for key, node in self._nodes.items() if node.heard < now - REMEMBERED]:
            self._remove(key)
        for place, ends in list(self._short.items()):
            while ends and ends[0] < now - REMEMBERED:
                ends.popleft()
            if not ends:
                del self._short[place]

    def live(self) -> Iterator[NodeState]:
        """Yield the nodes that reported within the last 20 s."""
        oldest = self._now() - SILENCE
        return (node for node in self._nodes.values() if node.heard >= oldest)

    def rows(self) -> list[Row]:
        """Return the rows of the table `nodes`."""
        oldest = self._now() - SILENCE
        return [_row(node, is_live=node.heard >= oldest) for node in self._nodes.values()]

    def stages(self) -> dict[str, Any]:
        """Return the stages: `APP/ROLE` → the sum of the nodes that live.

        Members of a stage: `app`, `role`, `nodes` (how many), `hosts`, `rates` (counter → a second, see
        `rabbitry.flow`: received, done, retry, failed, rejected, dead, waiting, `to.KEY` …), `counters` (since the
        nodes' starts), `gauges`, `moved` (Unix time, or None), `wiring` (or None), and `handling` and `passing`: the
        seconds below which 50, 95 and 99 % of the last minute's messages were handled, and were settled after their
        delivery (`p50`, `p95`, `p99`, and `count`; empty if there were none).
        """
        members: defaultdict[tuple[str, str], list[NodeState]] = defaultdict(list)
        for node in self.live():
            members[node.report.app, node.report.role].append(node)
        return {f"{app}/{role}": _stage(app, role, nodes) for (app, role), nodes in members.items()}

    def problems(self) -> Problems:
        """Return what needs attention: title → `bad`, `what` and `todo`."""
        now = self._now()
        found: Problems = {}
        began: dict[tuple[str, str, str], float] = {}
        for node in self.live():
            place = _place(node.report)
            began[place] = max(began.get(place, 0.0), node.report.started)
        for node in self._nodes.values():
            report, silent = node.report, now - node.heard
            # A newer worker of the stage on that machine took its place.
            if silent < SILENCE or began.get(_place(report), 0.0) > report.started:
                continue
            found[f"{report.app} {report.role}, node {report.id} on {report.host}"] = {
                "bad": True,
                "what": "it stopped reporting without having ended",
                "todo": f"See whether process {report.pid} still runs there, and what its log says last. It also goes "
                "silent if its connection is lost, or the broker blocks publishers",
            }
        for (app, role, host), ends in self._short.items():
            recent = sum(end >= now - REMEMBERED for end in ends)
            if recent >= OFTEN:
                found[f"{app} {role} on {host}"] = {
                    "bad": True,
                    "what": f"{recent} workers ended within {SHORT / 60:.0f} min of their start in the last "
                    f"{REMEMBERED / 60:.0f} min",
                    "todo": "Read the log of whatever starts them: why did the last one end?",
                }
        return found

    def _remove(self, key: Key) -> None:
        """Remove a node that ended, and note its life if it was short."""
        node, now = self._nodes.pop(key), self._now()
        self._names -= node.names
        lived = node.report.at - node.report.started
        place = _place(node.report)
        if (
            lived < SHORT
            and node.heard >= now - REMEMBERED
            and (place in self._short or len(self._short) < _MOST_PLACES)
        ):
            self._short.setdefault(place, deque(maxlen=100)).append(node.heard)


def _place(report: Report) -> tuple[str, str, str]:
    return report.app, report.role, report.host


def _bounded(report: Report, most: int) -> Report:
    """Return a report that takes no more memory than an honest one, without what others keep of it.

    Args:
        report: The report.
        most: The most counters, gauges or histograms that are kept.
    """
    return msgspec.structs.replace(
        report,
        pid=_within(report.pid),
        at=_within(report.at),
        started=_within(report.started),
        app=report.app[:LONGEST_NAME],
        role=report.role[:LONGEST_NAME],
        id=report.id[:LONGEST_NAME],
        host=report.host[:LONGEST_NAME],
        counters={name: _within(value) for name, value in _few(report.counters, most)},
        gauges={name: _within(value) for name, value in _few(report.gauges, most)},
        histograms={name: [_within(count) for count in counts[:64]] for name, counts in _few(report.histograms, most)},
        passages=[],
        share=report.share if _LEAST_SHARE <= report.share <= 1 else 1.0,
        missed=_within(report.missed),
        wiring=None if report.wiring is None else _bounded_wiring(report.wiring, most),
        declares=None,
        document=None,
        takes=None,
        schedule=None if report.schedule is None else _bounded_schedule(report.schedule),
        limits=None if report.limits is None else _bounded_limits(report.limits),
    )


def _bounded_schedule(schedule: ScheduleState) -> ScheduleState:
    fired = [
        (_within(due, _FARTHEST), _within(at, _FARTHEST), host[:LONGEST_NAME])
        for due, at, host in schedule.fired[-_MOST_TICKS:]
    ]
    due = _within(schedule.next, _FARTHEST)
    return ScheduleState(schedule.when[:LONGEST_NAME], schedule.missed[:LONGEST_NAME], due, fired)


def _bounded_limits(limits: Limits) -> Limits:
    texts = (text[:LONGEST_NAME] for text in (limits.rate, limits.tokens, limits.by, limits.rate_each))
    rate, tokens, by, rate_each = texts
    return Limits(rate, tokens, _within(limits.slots), by, rate_each, _within(limits.slots_each))


def _bounded_wiring(wiring: Wiring, most: int) -> Wiring:
    return Wiring(
        wiring.exchange[:LONGEST_NAME],
        wiring.key[:LONGEST_NAME],
        wiring.queue[:LONGEST_NAME],
        wiring.to[:LONGEST_NAME],
        {key: exchange[:LONGEST_NAME] for key, exchange in _few(wiring.other, most)},
    )


def _within(value: N, most: float = _MOST) -> N:
    """Return a number that can be added up and written as JSON: reports may hold any."""
    return value if 0 <= value <= most else type(value)(0)


def _few(named: Mapping[str, T], most: int) -> Iterator[tuple[str, T]]:
    return ((name, named[name]) for name in islice(named, most) if len(name) <= LONGEST_NAME)


def _number_of_names(report: Report) -> int:
    other = {} if report.wiring is None else report.wiring.other
    return len(report.counters) + len(report.gauges) + len(report.histograms) + len(other)


def _row(node: NodeState, *, is_live: bool) -> Row:
    report = node.report
    rates = node.rates() if is_live else {}
    state = "live" if is_live else "silent"
    figures = round(rates.get("received", 0.0), 1), round(rates.get("done", 0.0), 1), report.gauges.get("in_hand", 0)
    return (report.app, report.role, report.id, report.host, report.pid, state, report.started, *figures)


def _stage(app: str, role: str, nodes: list[NodeState]) -> dict[str, Any]:
    rates: defaultdict[str, float] = defaultdict(float)
    counters: defaultdict[str, int] = defaultdict(int)
    gauges: defaultdict[str, float] = defaultdict(float)
    for node in nodes:
        for name, value in node.rates().items():
            rates[name] += value
        for name, count in node.report.counters.items():
            counters[name] += count
        for name, value in node.report.gauges.items():
            gauges[name] += value
    moved = max(node.moved for node in nodes)
    wirings = [node.report.wiring for node in nodes if node.report.wiring is not None]
    return {
        "app": app,
        "role": role,
        "nodes": len(nodes),
        "hosts": sorted({node.report.host for node in nodes})[:MOST_HOSTS],
        "rates": {name: round(value, 1) for name, value in rates.items()},
        "counters": dict(counters),
        "gauges": dict(gauges),
        "handling": _percentiles(nodes, "handling"),
        "passing": _percentiles(nodes, "passing"),
        "moved": round(moved) or None,
        "wiring": msgspec.to_builtins(wirings[-1]) if wirings else None,
    }


def _percentiles(nodes: list[NodeState], name: str) -> dict[str, float]:
    sums: list[int] = []
    for node in nodes:
        for place, count in enumerate(node.durations(name)):
            if place == len(sums):
                sums.append(0)
            sums[place] += count
    found = {f"p{percent}": quantile(sums, percent / 100) for percent in (50, 95, 99)}
    return {what: value for what, value in found.items() if value is not None} | (
        {"count": float(sum(sums))} if any(sums) else {}
    )
