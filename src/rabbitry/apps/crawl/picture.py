"""The live picture: nodes by their log lines and reports, totals and rates, and the updates for each page.

Nothing here waits or does I/O. Everything is bounded: the nodes, the text kept of each, and the data waiting for a slow
page, which is the difference from what it was sent last.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from rabbitry.apps.crawl.lines import Line, is_id, parse_line
from rabbitry.apps.crawl.messages import OUTCOMES
from rabbitry.apps.crawl.names import (
    APP,
    CRAWLER,
    KEEPER,
    LOG_OUTCOME,
    LOG_WIRE,
    PAGE_KEY,
    PROCESSOR,
)
from rabbitry.runtime.http.pages import OpenPages
from rabbitry.telemetry import Report

SILENCE: Final = 20.0
"""Seconds without a message after which a node is considered gone."""
MOST_NODES: Final = 2000
"""The most nodes; beyond, the one silent for longest is dropped."""
AT_ONCE: Final = 500
"""The most nodes in one update to a page."""
AVERAGED: Final = 4.0
"""Seconds over which rates are averaged."""
OTHER: Final = "other"
"""Counts outcomes that are not in `OUTCOMES`."""
_LEAST_RATE: Final = 0.05
_MOST_BYTES: Final = 1 << 40
_MOST_PAGES: Final = 1 << 40
_LONGEST_HOST: Final = 100

BrokerState = Literal["connecting", "connected", "away", "refused"]
"""An `away` broker is tried again; a `refused` one is not."""


class Node(msgspec.Struct, omit_defaults=True):
    """A node as the page draws it.

    total: pages that it fetched or processed. rate: pages a second. lines: its log lines. wire: bytes received over the
    network for it. last: the beginning of its latest line. host: its machine, if it reports that. at: its last message,
    in Unix time.
    """

    kind: str
    id: str
    total: int = 0
    rate: float = 0.0
    lines: int = 0
    wire: int = 0
    last: str = ""
    host: str = ""
    at: float = 0.0


class Totals(msgspec.Struct):
    """Sums over all nodes since this server started to listen. Rates are per second."""

    crawled: int = 0
    processed: int = 0
    wire: int = 0
    lines: int = 0
    unread: int = 0
    """Messages with the log's key that are not log lines."""
    crawling: float = 0.0
    processing: float = 0.0
    receiving: float = 0.0
    """Bytes a second."""
    outcomes: dict[str, int] = {}
    forgotten: int = 0
    """Nodes dropped early because there were too many."""
    overrun: bool = False
    """Whether lines came faster than they are read, so that some are missing."""


class Queue(msgspec.Struct, frozen=True):
    """A queue's ready messages and its consumers."""

    messages: int
    consumers: int


class Broker(msgspec.Struct, frozen=True, omit_defaults=True):
    """The broker; `where` is its URL without the password. since: Unix time. reason: why it is away."""

    state: BrokerState
    since: float
    where: str
    reason: str = ""


class Update(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One message to a page. `now` is the server's time; fields left out have not changed.

    queues: None for a queue that does not exist. nodes, gone: by their keys.
    """

    now: float
    reset: bool = False
    broker: Broker | None = None
    totals: Totals | None = None
    queues: Mapping[str, Queue | None] | None = None
    nodes: dict[str, Node] = {}
    gone: list[str] = []


@dataclass(slots=True)
class _Known:
    node: Node
    heard: float
    """On the monotonic clock."""
    version: int
    """The tick of its last change."""
    counted: int = 0
    """Pages counted by its lines; its reports may count more."""
    ticked: int = 0
    """The total at the last tick."""
    has_reported: bool = False
    line: Line | None = None
    """The latest text, until the next tick."""


@dataclass(slots=True)
class _Ticked:
    """The totals at the last tick."""

    at: float
    crawled: int = 0
    processed: int = 0
    wire: int = 0

    def add(self, kind: str, pages: int) -> None:
        """Add pages that do not count for the rate."""
        if kind == CRAWLER:
            self.crawled += pages
        else:
            self.processed += pages


class Picture:
    """All nodes heard of within SILENCE. Used from one event loop, which calls `tick` twice a second."""

    def __init__(
        self, where: str, clock: Callable[[], float] = time.time, now: Callable[[], float] = time.monotonic
    ) -> None:
        """Create it. `where`: the broker without its password; `clock`: Unix time; `now`: monotonic time."""
        self.clock = clock
        self.totals: Totals = Totals()
        self.broker: Broker = Broker("connecting", clock(), where)
        self.queues: dict[str, Queue | None] = {}
        self.version: int = 0
        self.news: int = 0
        """Increases with each new node and each command, since these may create queues."""
        self._now = now
        self._nodes: dict[str, _Known] = {}  # ordered by last message, oldest first
        self._pages = OpenPages[Page]()
        self._ticked = _Ticked(now())

    # -- input -----------------------------------------------------------------------------------------

    def receive(self, body: bytes, headers: Mapping[str, object] | None, *, is_ours: bool) -> None:
        """Add a message with the log's key. is_ours: Rabbitry sent it, and it counts by its headers."""
        line = parse_line(body)
        if line is None:
            self.totals.unread += 1
            return
        known = self._heard(line.kind, line.id)
        node = known.node
        node.lines += 1
        self.totals.lines += 1
        known.line = line
        headers = headers or {}
        outcome, wire = headers.get(LOG_OUTCOME), headers.get(LOG_WIRE)
        if type(wire) is int and 0 < wire < _MOST_BYTES:  # a bool is not a number of bytes
            node.wire += wire
            self.totals.wire += wire
        if isinstance(outcome, str):
            name = outcome if outcome in OUTCOMES else OTHER
            self.totals.outcomes[name] = self.totals.outcomes.get(name, 0) + 1
        if outcome == "page" or (node.kind == PROCESSOR and outcome is not None) or not is_ours:
            known.counted += 1
            self._raise(node, known.counted)

    def report(self, report: Report) -> None:
        """Add a telemetry report, the only sign of life of an idle node."""
        if report.app != APP or report.role not in (CRAWLER, PROCESSOR, KEEPER) or not is_id(report.id):
            return
        if report.kind == "stop":
            self._nodes.pop(_key(report.role, report.id), None)
            return
        known = self._heard(report.role, report.id)
        known.node.host = report.host[:_LONGEST_HOST]
        more = self._raise(known.node, report.counters.get(f"to.{PAGE_KEY}" if report.role == CRAWLER else "done", 0))
        if not known.has_reported:
            # Done before this server listened: it counts for the total, but not for the rate.
            known.has_reported = True
            known.ticked += more
            self._ticked.add(known.node.kind, more)

    def set_broker(self, state: BrokerState, reason: str = "") -> None:
        """Set the state of the connection to the broker."""
        since = self.broker.since if state == self.broker.state else self.clock()
        self.broker = Broker(state, since, self.broker.where, reason)
        if state != "connected":
            self.queues = {}
        self.wake()

    def _heard(self, kind: str, identity: str) -> _Known:
        key = _key(kind, identity)
        known = self._nodes.pop(key, None)
        if known is None:
            self.news += 1
            known = _Known(Node(kind, identity), 0.0, 0)
            if len(self._nodes) >= MOST_NODES:
                del self._nodes[next(iter(self._nodes))]
                self.totals.forgotten += 1
        known.heard, known.node.at = self._now(), self.clock()
        known.version = self.version + 1
        self._nodes[key] = known
        return known

    def _raise(self, node: Node, total: int) -> int:
        """Raise a node's total and the overall total; return by how much."""
        more = total - node.total
        if more <= 0 or total > _MOST_PAGES or node.kind not in (CRAWLER, PROCESSOR):
            return 0
        node.total = total
        if node.kind == CRAWLER:
            self.totals.crawled += more
        else:
            self.totals.processed += more
        return more

    # -- time ------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Update the rates, drop nodes silent for too long, and wake the pages."""
        now, totals = self._now(), self.totals
        before = self._ticked
        seconds = now - before.at
        if seconds <= 0:
            return
        self._ticked = _Ticked(now, totals.crawled, totals.processed, totals.wire)
        self.version += 1
        share = 1 - math.exp(-seconds / AVERAGED)
        totals.crawling = _averaged(totals.crawling, (totals.crawled - before.crawled) / seconds, share)
        totals.processing = _averaged(totals.processing, (totals.processed - before.processed) / seconds, share)
        totals.receiving = _averaged(totals.receiving, (totals.wire - before.wire) / seconds, share)
        while self._nodes and (first := next(iter(self._nodes.items())))[1].heard < now - SILENCE:
            del self._nodes[first[0]]
        for known in self._nodes.values():
            node = known.node
            rate = _averaged(node.rate, (node.total - known.ticked) / seconds, share)
            if rate != node.rate:
                node.rate, known.version = rate, self.version
            known.ticked = node.total
            if known.line is not None:
                node.last, known.line = known.line.text, None
        self.wake()

    # -- output ----------------------------------------------------------------------------------------

    def page(self, peer: str | None = None) -> AbstractContextManager[Page]:
        """Open a page's subscription until the block is left. peer: the browser's address; see `OpenPages`."""
        return self._pages.opened(lambda: Page(self), peer)

    def wake(self) -> None:
        """Wake the pages, which then send the changes."""
        for page in self._pages:
            page.wake()

    def changed(self, sent: Mapping[str, int]) -> dict[str, tuple[int, Node]]:
        """Return up to AT_ONCE nodes changed since the versions sent, with their present versions."""
        found: dict[str, tuple[int, Node]] = {}
        for key, known in self._nodes.items():
            if sent.get(key) != known.version:
                found[key] = known.version, known.node
                if len(found) == AT_ONCE:
                    break
        return found

    def has(self, key: str) -> bool:
        """Return whether the picture has a node."""
        return key in self._nodes


class Page:
    """One page's subscription: what it was sent, so that the next update holds only the difference."""

    def __init__(self, picture: Picture) -> None:
        self._picture = picture
        self._wake = asyncio.Event()
        self._wake.set()
        self._sent: dict[str, int] = {}
        self._seen: tuple[object, bytes, bytes] | None = None
        """The broker's state, totals and queues as last sent."""

    def wake(self) -> None:
        """End `wait`."""
        self._wake.set()

    async def wait(self) -> None:
        """Wait until there may be a change. Cancelling loses nothing."""
        await self._wake.wait()

    def take(self) -> Update:
        """Return the changes. An empty update shows that the connection is alive."""
        picture, sent, seen = self._picture, self._sent, self._seen
        self._wake.clear()
        nodes = picture.changed(sent)
        if len(nodes) == AT_ONCE:
            self._wake.set()
        gone = [key for key in sent if not picture.has(key)]
        for key in gone:
            del sent[key]
        sent.update((key, version) for key, (version, _) in nodes.items())
        totals, queues = msgspec.json.encode(picture.totals), msgspec.json.encode(picture.queues)
        self._seen = picture.broker, totals, queues
        return Update(
            now=round(picture.clock(), 3),
            reset=seen is None,
            broker=picture.broker if seen is None or seen[0] != picture.broker else None,
            totals=picture.totals if seen is None or seen[1] != totals else None,
            queues=picture.queues if seen is None or seen[2] != queues else None,
            nodes={key: node for key, (_, node) in nodes.items()},
            gone=gone,
        )


def _key(kind: str, identity: str) -> str:
    return f"{kind}|{identity}"


def _averaged(rate: float, latest: float, share: float) -> float:
    """Return the moving average, which reaches 0 in the end."""
    averaged = rate + (latest - rate) * share
    return round(averaged, 3) if averaged >= _LEAST_RATE else 0.0
