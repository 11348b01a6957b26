"""The unit of work of one transaction: rows of addresses are read in sets, changed in memory, and written once.

Counters (addresses by state and outcome, host and crawl) are derived from the changes of rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from sqlalchemy import Connection

from rabbitry.apps.crawl.keeper import sets
from rabbitry.apps.crawl.keeper.addresses import Address
from rabbitry.apps.crawl.keeper.outcomes import FETCHED, NUMBERS, WORDS, refusal, refused
from rabbitry.apps.crawl.keeper.robots import CLOSED, Robots
from rabbitry.apps.crawl.keeper.scope import Crawl
from rabbitry.apps.crawl.keeper.state import DONE, HOST_COLUMNS, LATER, SENT, STATES, WAITING, Host, Sent, State
from rabbitry.apps.crawl.keeper.trail import with_step
from rabbitry.apps.crawl.messages import Purpose

PURPOSES: Final[tuple[Purpose, ...]] = ("page", "sitemap")
LOST: Final = -2
"""The status of an address that its crawler did not report, but may have fetched: it keeps its place in the limit."""
SLOT: Final = 10
"""Seconds of one slot of the pace."""
_PACE_KEPT: Final = 3600 // SLOT


@dataclass(slots=True, eq=False)
class Row:
    """An address that waits, is out or was fetched: a row of crawl_addresses, with its values when read."""

    id: int
    key: int
    url: str
    host: int
    crawl: int
    depth: int
    purpose: int = 0
    counted: int = 0
    """The crawl that counts it as a page, 0 for none."""
    state: int = WAITING
    tries: int = 0
    losses: int = 0
    hops: int = 0
    source: int = 0
    """The id of the address that led to it, 0 for none; negative: of an address whose origin's robots.txt named it."""
    found_at: float = 0.0
    outcome: int = 0
    status: int = 0
    outcome_at: float = 0.0
    etag: str | None = None
    modified: str | None = None
    content: int = 0
    pause: float = 0.0
    trail: str = ""
    due: float | None = None
    """When it is fetched again, if that was decided in this transaction."""
    is_new: bool = False
    was: tuple[int, int, int, bool] | None = None
    """State, outcome, crawl, and whether it had a place, as counted."""

    @property
    def is_judged(self) -> bool:
        """Whether it counts for the detection of traps: a page that was not read before."""
        return self.purpose == 0 and not self.content

    @property
    def is_counted(self) -> bool:
        """Whether its crawl counts it as a page, so that a limit does not prevent another fetch."""
        return self.counted == self.crawl

    @property
    def has_place(self) -> bool:
        """Whether it takes one of the places left to its crawl.

        It does while it is out, and if it was lost by a crawler that may have fetched it.
        """
        is_out = self.state == SENT or (self.status == LOST and self.state != DONE)
        return is_out and self.purpose == 0 and not self.is_counted

    @property
    def word(self) -> str:
        """Return its outcome's word; empty if there is none yet."""
        return WORDS.get(self.outcome, "")


COLUMNS: Final = (
    "id", "key", "url", "host", "crawl", "depth", "purpose", "counted", "state", "tries", "losses", "hops", "source",
    "found_at", "outcome", "status", "outcome_at", "etag", "modified", "content", "pause", "trail",
)  # fmt: skip
_NAMES: Final = ", ".join(COLUMNS)


@dataclass
class Work:
    """The unit of work, see the module. counts: changes of counters by name. spent: see `costs.py`."""

    connection: Connection
    state: State
    now: float
    node: str
    per_host: int = 1
    spent: int = 0
    rows: dict[int, Row] = field(default_factory=dict)
    refs: dict[int, int] = field(default_factory=dict)
    """The seen set's entries of the keys looked up, 0 for none."""
    changed: dict[int, Row] = field(default_factory=dict)
    new: list[Row] = field(default_factory=list)
    new_refs: dict[int, int] = field(default_factory=dict)
    hosts: set[int] = field(default_factory=set)
    crawls: set[int] = field(default_factory=set)
    batches: set[str] = field(default_factory=set)
    robots: dict[str, Robots] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    pace: Counter[str] = field(default_factory=Counter)
    contents: dict[int, int] = field(default_factory=dict)

    # -- reading -----------------------------------------------------------------------------------------

    def look_up(self, keys: Iterable[int]) -> None:
        """Load the seen set's entries of keys into `refs`."""
        missing = {key for key in keys if key not in self.refs}
        self.refs.update(self.state.seen.look_up(self.connection, missing))

    def read(self, ids: Iterable[int]) -> None:
        """Load the rows of addresses into `rows`."""
        missing = {one for one in ids if one not in self.rows}
        statement = f"SELECT {_NAMES} FROM crawl_addresses WHERE id IN {{set}}"  # noqa: S608 - constants
        for values in sets.rows_among(self.connection, statement, missing):
            self._have(values)

    def waiting(self, host: Host, limit: int, first: int = 0) -> list[Row]:
        """Return a host's next addresses, starting at the one with index `first`.

        Changes must have been written before.
        """
        statement = (
            f"SELECT {_NAMES} FROM crawl_addresses"  # noqa: S608 - constants
            " WHERE host = ? AND state = 0 ORDER BY depth, id LIMIT ? OFFSET ?"
        )
        return [self._have(values) for values in sets.rows(self.connection, statement, host.id, limit, first)]

    def _have(self, values: Sequence[Any]) -> Row:
        row = self.rows.get(values[0])
        if row is None:
            row = self.rows[values[0]] = Row(*values)
            row.was = (row.state, row.outcome, row.crawl, row.has_place)
        return row

    def row_of(self, key: int) -> Row | None:
        """Return the row of a key that was looked up, if there is one and it was read."""
        ref = self.refs.get(key, 0)
        return self.rows.get(ref) if ref > 0 else None

    def robots_of(self, origin: str, host: Host) -> Robots:
        """Return the state of an origin's robots.txt."""
        found = self.state.robots.get(origin)
        if found is None:
            columns = "origin, host, state, outcome, at, until, tries, delay, detail, body"
            rows = sets.rows(
                self.connection,
                f"SELECT {columns} FROM crawl_robots WHERE origin = ?",  # noqa: S608 - constants
                origin,
            )
            found = Robots(*rows[0]) if rows else Robots(origin, host.id)
            self.state.robots.put(found)
        return found

    # -- changing ----------------------------------------------------------------------------------------

    def host_named(self, name: str, delay: float | None = None) -> Host:
        """Return a host; create it if it is missing."""
        host = self.state.by_name.get(name)
        if host is None:
            host = Host(self.state.next_host, name)
            if delay is not None:
                host.delay = delay
            self.state.next_host += 1
            self.state.hosts[host.id] = self.state.by_name[name] = host
            self.hosts.add(host.id)
        return host

    def add(self, address: Address, crawl: Crawl | None, depth: int, *, source: int = 0, purpose: int = 0) -> Row:
        """Add an address to the frontier."""
        host = self.host_named(address.host, None if crawl is None else crawl.delay)
        row = Row(
            self.state.next_address, address.key, address.url, host.id, crawl.id if crawl else 0, depth, purpose,
            source=source, found_at=self.now, is_new=True,
        )  # fmt: skip
        self.state.next_address += 1
        if crawl is not None and not host.waiting:
            self.state.bring(host, crawl.id)
        self.rows[row.id] = row
        self.new.append(row)
        self._refer(row.key, row.id)
        return row

    def refuse_key(self, key: int, word: str) -> None:
        """Record an address that must not be fetched."""
        self._refer(key, refusal(word, self.now))
        self.counts[f"outcome:{word}"] += 1

    def _refer(self, key: int, ref: int) -> None:
        before = self.refs.get(key, 0)
        if before < 0:
            self.counts[f"outcome:{refused(before)[0]}"] -= 1
        self.refs[key] = self.new_refs[key] = ref

    def change(self, row: Row) -> None:
        """Record that a row must be written."""
        if not row.is_new:
            self.changed[row.id] = row

    def step(self, row: Row, word: str, detail: str = "", *, node: str = "", at: float | None = None) -> None:
        """Append to an address's trail."""
        row.trail = with_step(row.trail, self.now if at is None else at, word, node or self.node, detail)
        self.change(row)

    def end(self, row: Row, word: str, detail: str = "", *, node: str = "", at: float | None = None) -> None:
        """Record an outcome after which an address is not fetched again."""
        self.outcome(row, word, detail, node=node, at=at)
        row.state = DONE

    def outcome(self, row: Row, word: str, detail: str = "", *, node: str = "", at: float | None = None) -> None:
        """Record an outcome."""
        row.outcome = NUMBERS[word]
        row.outcome_at = self.now if at is None else at
        self.step(row, word, detail, node=node, at=at)

    def later(self, row: Row, due: float) -> None:
        """Schedule an address for another fetch at a time."""
        row.state = LATER
        row.due = due
        self.change(row)

    def wait(self, row: Row) -> None:
        """Queue an address for fetching."""
        row.state = WAITING
        self.change(row)

    # -- writing -----------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Write and count the changes since the last call."""
        touched = [*self.new, *self.changed.values()]
        for row in touched:
            self._count(row)
        connection = self.connection
        # Most new rows only wait: their other columns have the defaults.
        plain = [row for row in self.new if not row.trail and row.state == WAITING]
        sets.change_many(connection, _INSERT_PLAIN, [_plain_values(row) for row in plain])
        if len(plain) < len(self.new):
            others = [_values(row) for row in self.new if row.trail or row.state != WAITING]
            sets.change_many(connection, _INSERT, others)
        sets.change_many(connection, _UPDATE, [(*_values(row)[1:], row.id) for row in self.changed.values()])
        self.state.seen.put(connection, self.new_refs)
        self._flush_later(touched)
        for row in self.new:
            row.is_new = False
        self.new.clear()
        self.changed.clear()
        self.new_refs.clear()
        self._flush_others()

    def _flush_later(self, touched: Sequence[Row]) -> None:
        due = [(row.id, row.due) for row in touched if row.due is not None and row.state == LATER]
        sets.change_many(self.connection, _PUT_LATER, due)
        for row in touched:
            if row.due is not None:
                self.state.next_later = min(self.state.next_later, row.due)
                row.due = None

    def _flush_others(self) -> None:
        connection, state = self.connection, self.state
        hosts = [state.hosts[one] for one in self.hosts]
        sets.change_many(connection, _PUT_HOST, [tuple(getattr(one, name) for name in HOST_COLUMNS) for one in hosts])
        for host in hosts:
            if host.waiting and host.has_room(self.per_host):
                state.list_host(host)
        self.hosts.clear()
        crawls = [state.crawls[one] for one in self.crawls if one in state.crawls]
        sets.change_many(
            connection,
            "UPDATE crawl_crawls SET pages = ?, sent = ? WHERE id = ?",
            [(one.pages, one.sent, one.id) for one in crawls],
        )
        for crawl in crawls:
            if crawl.has_new_hosts:
                values = as_json(crawl.hosts), crawl.id
                sets.change(connection, "UPDATE crawl_crawls SET hosts = ? WHERE id = ?", *values)
                crawl.has_new_hosts = False
        self.crawls.clear()
        batches = {one: state.batches.get(one) for one in self.batches}
        sets.change_many(connection, _PUT_BATCH, [_batch_values(one) for one in batches.values() if one])
        sets.change_many(
            connection, "DELETE FROM crawl_batches WHERE id = ?", [(name,) for name, one in batches.items() if not one]
        )
        self.batches.clear()
        sets.change_many(connection, _PUT_ROBOTS, [_robots_values(one) for one in self.robots.values()])
        for one in self.robots.values():
            if one.state == CLOSED:
                state.closed[one.origin] = (one.outcome, one.until)
            else:
                state.closed.pop(one.origin, None)
        self.robots.clear()
        sets.change_many(
            connection,
            "INSERT INTO crawl_contents (key, address) VALUES (?, ?) ON CONFLICT (key) DO NOTHING",
            sorted(self.contents.items()),
        )
        self.contents.clear()
        state.shapes.flush(connection)
        counts = sorted((name, number) for name, number in self.counts.items() if number)
        sets.change_many(connection, _COUNT, counts)
        self.counts.clear()
        self._flush_pace()

    def _flush_pace(self) -> None:
        if self.pace:
            slot = int(self.now) // SLOT
            values = [self.pace[name] for name in ("pages", "documents", "size", "wire")]
            sets.change(self.connection, _PACE, slot, *values)
            sets.change(self.connection, "DELETE FROM crawl_pace WHERE slot < ?", slot - _PACE_KEPT)
            self.pace.clear()

    def _count(self, row: Row) -> None:
        before, now = row.was, (row.state, row.outcome, row.crawl, row.has_place)
        if before == now:
            return
        host = self.state.hosts[row.host]
        if before is not None:
            self._count_one(host, before, -1)
        self._count_one(host, now, 1)
        row.was = now
        self.hosts.add(host.id)

    def _count_one(self, host: Host, what: tuple[int, int, int, bool], number: int) -> None:
        state, outcome, crawl_id, has_place = what
        self.counts[f"state:{state_word(state, outcome)}"] += number
        if outcome:
            self.counts[f"outcome:{WORDS[outcome]}"] += number
        if state == WAITING:
            host.waiting += number
        elif state == LATER:
            host.later += number
        elif state == SENT:
            host.sent += number
        crawl = self.state.crawls.get(crawl_id)
        if crawl is not None and has_place:
            crawl.sent += number
            self.crawls.add(crawl_id)


def state_word(state: int, outcome: int) -> str:
    """Return the word for a state. A page with another fetch scheduled is done; an address tried again is queued."""
    if state == LATER:
        return "done" if outcome in FETCHED else "queued"
    return STATES[state]


def as_json(value: object) -> str | None:
    """Return a value in its stored form."""
    return None if value is None else msgspec.json.encode(value).decode()


def _values(row: Row) -> tuple[object, ...]:
    return (
        row.id, row.key, row.url, row.host, row.crawl, row.depth, row.purpose, row.counted, row.state, row.tries,
        row.losses, row.hops, row.source, row.found_at, row.outcome, row.status, row.outcome_at, row.etag, row.modified,
        row.content, row.pause, row.trail,
    )  # fmt: skip


def _plain_values(row: Row) -> tuple[object, ...]:
    return (
        row.id, row.key, row.url, row.host, row.crawl, row.depth, row.purpose, row.hops, row.source, row.found_at,
    )  # fmt: skip


def _batch_values(one: Sent) -> tuple[object, ...]:
    return one.id, one.host, one.origin, one.robots, one.sent_at, one.deadline, as_json(sorted(one.addresses))


def _robots_values(one: Robots) -> tuple[object, ...]:
    return (
        one.origin, one.host, one.state, one.outcome, one.at, one.until, one.tries, one.delay, one.detail, one.body,
    )  # fmt: skip


def _put(table: str, key: str, columns: Sequence[str]) -> str:
    places = ", ".join("?" * len(columns))
    changes = ", ".join(f"{name} = excluded.{name}" for name in columns if name != key)
    return (
        f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places})"  # noqa: S608 - constants
        f" ON CONFLICT ({key}) DO UPDATE SET {changes}"
    )


_INSERT: Final = f"INSERT INTO crawl_addresses ({_NAMES}) VALUES ({', '.join('?' * len(COLUMNS))})"  # noqa: S608 # names from this file
_PLAIN: Final = ("id", "key", "url", "host", "crawl", "depth", "purpose", "hops", "source", "found_at")
_INSERT_PLAIN: Final = f"INSERT INTO crawl_addresses ({', '.join(_PLAIN)}) VALUES ({', '.join('?' * len(_PLAIN))})"  # noqa: S608 # likewise
_UPDATE: Final = f"UPDATE crawl_addresses SET {', '.join(f'{name} = ?' for name in COLUMNS[1:])} WHERE id = ?"  # noqa: S608 # likewise
_PUT_LATER: Final = _put("crawl_later", "address", ("address", "due"))
_PUT_HOST: Final = _put("crawl_hosts", "id", HOST_COLUMNS)
_PUT_BATCH: Final = _put("crawl_batches", "id", ("id", "host", "origin", "robots", "sent_at", "deadline", "addresses"))
_PUT_ROBOTS: Final = _put(
    "crawl_robots",
    "origin",
    ("origin", "host", "state", "outcome", "at", "until", "tries", "delay", "detail", "body"),
)
_COUNT: Final = (
    "INSERT INTO crawl_counts (name, number) VALUES (?, ?)"
    " ON CONFLICT (name) DO UPDATE SET number = crawl_counts.number + excluded.number"
)
_PACE: Final = (
    "INSERT INTO crawl_pace (slot, pages, documents, size, wire) VALUES (?, ?, ?, ?, ?)"
    " ON CONFLICT (slot) DO UPDATE SET pages = crawl_pace.pages + excluded.pages,"
    " documents = crawl_pace.documents + excluded.documents, size = crawl_pace.size + excluded.size,"
    " wire = crawl_pace.wire + excluded.wire"
)
