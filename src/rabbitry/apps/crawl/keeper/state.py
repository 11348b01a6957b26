"""The active keeper's memory: hosts, crawls and batches that are out; addresses are only in the database.

All of it can be read again: a keeper does so when it becomes active, and after a failed transaction.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

import msgspec
from sqlalchemy import Connection

from rabbitry.apps.crawl.keeper import identity, sets
from rabbitry.apps.crawl.keeper.backlog import Backlog
from rabbitry.apps.crawl.keeper.known import Known
from rabbitry.apps.crawl.keeper.robots import CLOSED, RobotsCache
from rabbitry.apps.crawl.keeper.scope import DELAY, Crawl
from rabbitry.apps.crawl.keeper.seen import Seen
from rabbitry.apps.crawl.keeper.traps import Shapes
from rabbitry.apps.crawl.keeper.turns import Turns

WAITING: Final = 0
SENT: Final = 1
LATER: Final = 2
DONE: Final = 3
STATES: Final = {WAITING: "queued", SENT: "sent", DONE: "done"}

FIRST_WINDOW: Final = 256
LARGEST_WINDOW: Final = 10_000
SMALLEST_WINDOW: Final = 32
FIRST_UNTRIED: Final = 64
SMALLEST_UNTRIED: Final = 16
"""Batches of possibly dead hosts; fewer than a crawler's parallel lookups, so that others have room."""
SWEPT: Final = 4_000
"""Addresses of crawls at their limit that are checked in one transaction."""
_MOST_BETWEEN: Final = 3.0
"""The most seconds between two transactions of a keeper that is not held up: it has a tick five times a second."""
GRACE: Final = 15.0
"""Seconds that an address waits if its crawler did not report its outcome. Its page may be on its way: a killed
keeper's unacknowledged messages come again after later ones. Meanwhile nothing is fetched again."""


@dataclass(slots=True)
class Host:
    """A host, the unit of the frontier.

    due: when it may be requested again. waiting, later, sent: counts of its addresses. out: its batches that are out.
    failures: batches in a row without an answer, or with 429 or 503. crawl: the crawl that named it last, only in
    memory; 0 if this keeper has not seen it.
    """

    id: int
    name: str
    delay: float = DELAY
    robots_delay: float = 0.0
    due: float = 0.0
    served_at: float = 0.0
    waiting: int = 0
    later: int = 0
    sent: int = 0
    failures: int = 0
    backoff: float = 0.0
    pages: int = 0
    problems: int = 0
    size: int = 0
    wire: int = 0
    outcomes: str = ""
    out: int = 0
    is_listed: bool = False
    crawl: int = 0

    def has_room(self, most: int) -> bool:
        """Return whether one more batch may be out: up to `most`, or one if the host asked for a slower pace."""
        return self.out < (1 if self.robots_delay or self.backoff or self.failures else most)

    @property
    def is_untried(self) -> bool:
        """Return whether it may be dead: it has given no page yet, or did not answer the last time."""
        return self.failures > 0 or not self.pages

    @property
    def pause(self) -> float:
        """Return the seconds between two requests to it."""
        return max(self.delay, self.robots_delay, self.backoff)


HOST_COLUMNS: Final = (
    "id", "name", "delay", "robots_delay", "due", "served_at", "waiting", "later", "sent", "failures", "backoff",
    "pages", "problems", "size", "wire", "outcomes",
)  # fmt: skip


@dataclass(slots=True)
class Sent:
    """A batch that is out. addresses: rows not reported yet. robots: the origin whose robots.txt it fetches, or empty.

    For a robots.txt, addresses has the row that waits for it: its crawl reads the sitemaps that are named there.
    answered, failed, slowed: its results so far. is_untried: whether its host may be dead.
    """

    id: str
    host: int
    origin: str
    robots: str
    sent_at: float
    deadline: float
    addresses: set[int]
    answered: bool = False
    failed: str = ""
    slowed: bool = False
    is_untried: bool = False


@dataclass
class State:
    """A keeper's memory, see the module. epoch: that of the keeper."""

    epoch: int
    crawl: str = ""
    """The crawl's id, with which the ids of its batches begin."""
    is_paused: bool = False
    hosts: dict[int, Host] = field(default_factory=dict)
    by_name: dict[str, Host] = field(default_factory=dict)
    crawls: dict[int, Crawl] = field(default_factory=dict)
    batches: dict[str, Sent] = field(default_factory=dict)
    closed: dict[str, tuple[int, float]] = field(default_factory=dict)
    """Origins that are closed: the outcome's number for their addresses, and until when."""
    robots: RobotsCache = field(default_factory=RobotsCache)
    shapes: Shapes = field(default_factory=Shapes)
    seen: Seen = field(default_factory=Seen)
    known: Known = field(default_factory=Known)
    pages: Backlog = field(default_factory=lambda: Backlog(of_sitemaps=False))
    """Waiting documents: of pages, and of sitemaps."""
    sitemaps: Backlog = field(default_factory=lambda: Backlog(of_sitemaps=True))
    next_address: int = 1
    next_host: int = 1
    next_crawl: int = 1
    next_later: float = 0.0
    """No address is due before this time."""
    came_again_at: float = 0.0
    """When the last redelivered message came; extended by times in which none could come."""
    worked_at: float = 0.0
    is_late: bool = False
    """Whether the keeper is behind: its ticks expired while messages waited before them."""
    window: float = FIRST_WINDOW
    """Batches that may be out at once: more if crawlers take them soon, fewer if they return late, or if the keeper
    falls behind."""
    untried: float = FIRST_UNTRIED
    """Batches of possibly dead hosts that may be out at once, half of all at most: more if such hosts answer, fewer if
    they do not. Each takes a place and time in a crawler that others would wait for."""
    contact: str | None = None
    clock_told_at: float = 0.0
    """When the last warning about a crawler's clock was logged."""
    full: dict[int, int] = field(default_factory=dict)
    """Crawls at their limit whose waiting addresses are still to be refused, and how many to check."""
    swept: int = 0
    """The last address checked for these."""
    _meets: dict[int, bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._tried, self._untried = Turns(self.hosts), Turns(self.hosts)

    def list_host(self, host: Host) -> None:
        """Schedule a host for its due time."""
        if not host.is_listed:
            host.is_listed = True
            (self._untried if host.is_untried else self._tried).put(host)

    def bring(self, host: Host, crawl: int) -> None:
        """Record that a crawl found a host. From now on it takes turns with that crawl's hosts."""
        if host.crawl != crawl:
            host.crawl = crawl
            host.is_listed = False

    def due_hosts(self, now: float) -> Iterator[Host]:
        """Take the hosts that are due; crawls take turns, each with the host due for longest.

        Possibly dead hosts come first, as many as may be out.
        """
        room = min(int(self.untried), int(self.window) // 2) - sum(one.is_untried for one in self.batches.values())
        yield from islice(self._untried.take(now), max(0, room))
        yield from self._tried.take(now)

    def next_due(self) -> float | None:
        """Return when the next host is due."""
        return min((due for one in (self._tried, self._untried) if (due := one.next_due()) is not None), default=None)

    def note_pace(self, *, is_late: bool) -> None:
        """Record whether the keeper is behind. Each time that it falls behind, fewer batches may be out at once."""
        if is_late and not self.is_late:
            self.window = max(SMALLEST_WINDOW, self.window * 0.7)
        self.is_late = is_late

    def note_time(self, now: float, *, comes_again: bool) -> None:
        """Record that the keeper works at a time. comes_again: whether a message is redelivered."""
        if comes_again:
            self.came_again_at = now
        else:
            # It was paused, or waited for the database: messages could not come in that time.
            self.came_again_at += max(0.0, now - self.worked_at - _MOST_BETWEEN)
        self.worked_at = now

    def later_due(self) -> float:
        """Return when an address may be queued again; infinite if there is none."""
        return max(self.next_later, self.came_again_at + GRACE)

    def meets(self, crawl: Crawl) -> bool:
        """Return whether links to known addresses matter for a crawl.

        They do if the addresses may be closer to the start than recorded, or belong to a crawl that goes less far.
        """
        found = self._meets.get(crawl.id)
        if found is None:
            found = self._meets[crawl.id] = crawl.depth is not None or any(
                crawl.goes_further(other, 0, 0) for other in self.crawls.values() if other is not crawl
            )
        return found

    def begin(self, crawl: Crawl) -> None:
        """Add a crawl. Links of crawls that go further are looked up again: it may have found them first."""
        if any(other.goes_further(crawl, 0, 0) for other in self.crawls.values()):
            self.known.clear()
        self._meets.clear()
        self.crawls[crawl.id] = crawl

    def fill(self, crawl: Crawl) -> None:
        """Record that a crawl has reached its limit: the addresses waiting for it are refused from now on."""
        # One round of all addresses, starting wherever another crawl's round is.
        self.full[crawl.id] = self.next_address + 2 * SWEPT

    def scope_grew(self) -> None:
        """Record that a crawl goes further than before: all links are looked up again."""
        self._meets.clear()
        self.known.clear()


def load(connection: Connection, epoch: int) -> State:
    """Read all state from the database."""
    state = State(epoch, identity.of(connection))
    for row in sets.rows(connection, f"SELECT {', '.join(HOST_COLUMNS)} FROM crawl_hosts"):  # noqa: S608 - constants
        host = Host(*row)
        state.hosts[host.id] = state.by_name[host.name] = host
    for row in sets.rows(
        connection,
        "SELECT id, at, urls, depth, hosts, allow, page_limit, contact, delay, recrawl, pages, sent FROM crawl_crawls"
        " ORDER BY id",
    ):
        number, at, urls, depth, hosts, allow, *rest = row
        state.crawls[number] = Crawl(number, at, _list(urls) or [], depth, _list(hosts), _list(allow), *rest)
        state.contact = row.contact or state.contact
    for row in sets.rows(
        connection, "SELECT id, host, origin, robots, sent_at, deadline, addresses FROM crawl_batches"
    ):
        addresses = msgspec.json.decode(row.addresses, type=set[int])
        host = state.hosts[row.host]
        state.batches[row.id] = Sent(row.id, row.host, row.origin, row.robots, row.sent_at, row.deadline, addresses)
        state.batches[row.id].is_untried = host.is_untried
        host.out += 1
    for row in sets.rows(connection, "SELECT origin, outcome, until FROM crawl_robots WHERE state = ?", CLOSED):
        state.closed[row.origin] = (row.outcome, row.until)
    state.seen.load(connection)
    state.pages.load(connection)
    state.sitemaps.load(connection)
    state.next_address = _next(connection, "crawl_addresses")
    state.next_host = _next(connection, "crawl_hosts")
    state.next_crawl = _next(connection, "crawl_crawls")
    for crawl in state.crawls.values():
        if crawl.is_full:
            state.fill(crawl)
    for host in state.hosts.values():
        if host.waiting:
            state.list_host(host)
    return state


def _next(connection: Connection, table: str) -> int:
    return int(sets.rows(connection, f"SELECT coalesce(max(id), 0) + 1 FROM {table}")[0][0])  # noqa: S608 - constants


def _list(text: str | None) -> list[str] | None:
    return None if text is None else msgspec.json.decode(text, type=list[str])
