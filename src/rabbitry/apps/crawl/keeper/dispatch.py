"""Dispatching: selecting due hosts, and for each one a batch of as many addresses as half a minute takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from rabbitry.apps.crawl.keeper import sets, traps
from rabbitry.apps.crawl.keeper.addresses import origin_of
from rabbitry.apps.crawl.keeper.costs import ADDRESS, HEEDED, LIMIT, RULES
from rabbitry.apps.crawl.keeper.identity import new_batch_id
from rabbitry.apps.crawl.keeper.outcomes import WORDS
from rabbitry.apps.crawl.keeper.results import take_rules
from rabbitry.apps.crawl.keeper.robots import UNAVAILABLE, UNKNOWN, UNREAD
from rabbitry.apps.crawl.keeper.state import LATER, SENT, SWEPT, Host, Sent
from rabbitry.apps.crawl.keeper.work import PURPOSES, Row, Work
from rabbitry.apps.crawl.messages import Address, Batch

BATCH_SECONDS: Final = 30.0
MOST_ADDRESSES: Final = 50
LASTS: Final = 75.0
"""Seconds from sending a batch to its deadline: the wait for a crawler, and the fetching."""
MOST_AT_ONCE: Final = 200
"""Batches of one transaction."""
_CONNECTIONS: Final = 4
"""Connections to a host that asks for no delay."""
_ROUNDS: Final = 10
_LOOKED_AT: Final = 200
_MOST_LATER: Final = 2_000
_MOST_HEEDED: Final = 300_000
"""Rules matched with a host's addresses before other hosts have their turn: 50 ms. A robots.txt of 28,000 rules takes
4.6 ms for an address that it forbids."""
_ROOM: Final = LIMIT // 2
"""Cost of selecting batches in one transaction: 40 of 50 addresses, as many as 10,000 pages a second need."""
_IDLE: Final = 1.0
"""Seconds before a host with addresses, none of which can be sent, is checked again."""


def due_again(work: Work) -> None:
    """Queue the addresses that are due to be fetched again, in the order of their times."""
    if work.now < work.state.later_due():
        return
    rows = sets.rows(
        work.connection,
        "SELECT address FROM crawl_later WHERE due <= ? ORDER BY due LIMIT ?",
        work.now,
        _MOST_LATER,
    )
    ids = [row.address for row in rows]
    work.read(ids)
    sets.change_many(work.connection, "DELETE FROM crawl_later WHERE address = ?", [(one,) for one in ids])
    for one in ids:
        row = work.rows.get(one)
        if row is not None and row.state == LATER:
            work.wait(row)
    found = sets.rows(work.connection, "SELECT min(due) FROM crawl_later")[0][0]
    work.state.next_later = float("inf") if found is None else float(found)


def drain_full(work: Work) -> None:
    """Refuse queued addresses of crawls that have reached their limit, some in each call."""
    state = work.state
    start = state.swept if state.swept < state.next_address - 1 else 0
    end = start + SWEPT
    found = sets.rows(
        work.connection,
        "SELECT id, crawl FROM crawl_addresses WHERE id > ? AND id <= ? AND state = 0 AND counted <> crawl",
        start,
        end,
    )
    ids = [row.id for row in found if row.crawl in state.full]
    work.read(ids)
    for one in ids:
        work.end(work.rows[one], "limit")
    state.swept = end
    # A crawl is done when as many addresses were checked as existed when it reached its limit.
    state.full = {crawl: left - SWEPT for crawl, left in state.full.items() if left > SWEPT}


def dispatch(work: Work) -> list[Batch]:
    """Return the batches to publish, and mark their addresses as sent. Earlier changes must be flushed before."""
    state = work.state
    batches: list[Batch] = []
    idle: list[Host] = []
    # By crawl: addresses sent now, which `crawl.sent` counts once they are written.
    promised: Counter[int] = Counter()
    room = work.spent + _ROOM
    for host in state.due_hosts(work.now):
        is_full = len(batches) >= MOST_AT_ONCE or work.spent >= room
        if len(state.batches) >= int(state.window) or is_full:
            idle.append(host)
            break
        if not host.waiting or not host.has_room(work.per_host):
            continue
        batch = _choose(work, host, promised)
        if batch is not None:
            batches.append(batch)
            host.out += 1
            host.served_at = work.now
            work.hosts.add(host.id)
        elif host.waiting:
            host.due = max(host.due, work.now + _IDLE)
            idle.append(host)
        if host.waiting and host.has_room(work.per_host):
            idle.append(host)
    for host in idle:
        state.list_host(host)
    return batches


def _choose(work: Work, host: Host, promised: Counter[int]) -> Batch | None:
    pause = host.pause
    size = MOST_ADDRESSES if pause <= 0 else max(1, min(MOST_ADDRESSES, int(BATCH_SECONDS / pause)))
    if host.failures:
        size = 1
    heeded = 0
    for number in range(_ROUNDS):
        rows = work.waiting(host, size)
        if not rows:
            return None
        work.spent += len(rows)
        origin = origin_of(rows[0].url)
        robots = work.robots_of(origin, host)
        is_closed = work.state.closed.get(origin, (0, 0.0))[1] > work.now
        if not is_closed and (robots.state in (UNKNOWN, UNAVAILABLE) or robots.until <= work.now):
            # It is requested alone: it may forbid the others.
            return None if host.out else _send(work, host, origin, rows[:1], origin)
        work.spent += robots.cost_of_reading // RULES
        if robots.state == UNREAD:
            robots.read()
            take_rules(work, host, robots)
            return None
        pick = _Pick(work, host, origin, size, promised, heeded)
        pick.look_at(rows)
        most = _LOOKED_AT if number else min(_LOOKED_AT, 2 * size)
        if len(pick.picked) < size == len(rows) < most:
            pick.look_at(work.waiting(host, most - size, size))
        if pick.picked or pick.take_doubtful():
            return _send(work, host, origin, pick.picked, "")
        heeded = pick.heeded
        if (not pick.is_refused and number) or heeded >= _MOST_HEEDED:
            return None
        work.flush()
    return None


class _Pick:
    """Selection of a batch from a host's waiting addresses.

    picked: the addresses that may be fetched now. heeded: how many robots.txt rules were matched, including earlier
    selections.
    """

    def __init__(self, work: Work, host: Host, origin: str, size: int, promised: Counter[int], heeded: int = 0) -> None:
        self.picked: list[Row] = []
        self.heeded = heeded
        self.is_refused = False
        """Whether other addresses were refused for good."""
        self._work = work
        self._host = host
        self._origin = origin
        self._size = size
        self._promised = promised
        self._doubtful: list[Row] = []

    def look_at(self, rows: Sequence[Row]) -> None:
        """Select from the next addresses."""
        work, host, promised = self._work, self._host, self._promised
        state = work.state
        robots = work.robots_of(self._origin, host)
        outcome, until = state.closed.get(self._origin, (0, 0.0))
        rows = [row for row in rows if row.url.startswith(f"{self._origin}/")]
        state.shapes.load(work.connection, [(host.id, host.name, row.url) for row in rows])
        for row in rows:
            if len(self.picked) == self._size or self.heeded >= _MOST_HEEDED:
                break
            cost = robots.cost(row.url)
            self.heeded += cost
            work.spent += cost // HEEDED
            crawl = state.crawls.get(row.crawl)
            if until > work.now:
                work.end(row, WORDS[outcome], robots.detail)
            elif not robots.allows(row.url):
                work.end(row, "disallowed", f"robots.txt: {robots.detail}" if robots.detail else "robots.txt")
            elif crawl is not None and crawl.is_full and row.purpose == 0 and not row.is_counted:
                work.end(row, "limit")
            elif not _has_room(work, row, promised):
                continue
            else:
                shapes = state.shapes.of(host.id, row.url)
                judged, shape = traps.verdict(shapes, work.now) if row.depth and row.is_judged else ("good", None)
                if judged == "unknown":
                    continue
                if judged == "doubtful":
                    self._doubtful.append(row)
                    continue
                if judged == "trap" and shape is not None:
                    work.end(row, "trap", f"{shape.repeats} of {shape.documents} of {shape.shape} were near duplicates")
                else:
                    self._take(row, shapes)
                    continue
            self.is_refused = True

    def take_doubtful(self) -> bool:
        """Select possible traps if nothing else waits and no answer is outstanding that may lead elsewhere."""
        work = self._work
        known = [(row, work.state.shapes.of(self._host.id, row.url)) for row in self._doubtful[: self._size]]
        if known and not self.is_refused and not known[0][1][-1].unanswered(work.now):
            for row, shapes in known:
                if _has_room(work, row, self._promised) and traps.verdict(shapes, work.now)[0] == "doubtful":
                    self._take(row, shapes)
        return bool(self.picked)

    def _take(self, row: Row, shapes: Sequence[traps.Shape]) -> None:
        self._promised[row.crawl] += _needs_place(row)
        self.picked.append(row)
        if row.is_judged:
            traps.sent(self._work.state.shapes, shapes, self._work.now)


def _has_room(work: Work, row: Row, promised: Counter[int]) -> bool:
    """Return whether an address's crawl may fetch it: it needs no place, or there is one."""
    crawl = work.state.crawls.get(row.crawl)
    return crawl is None or not _needs_place(row) or crawl.room - promised[crawl.id] > 0


def _needs_place(row: Row) -> bool:
    """Return whether a fetch would add a page to those that count for its crawl's limit."""
    return row.purpose == 0 and not row.is_counted and not row.has_place


def _send(work: Work, host: Host, origin: str, rows: Sequence[Row], robots: str) -> Batch:
    """Return a batch of addresses, or of the robots.txt of the origin `robots` for the one that waits for it."""
    identity = new_batch_id(work.state.crawl)
    work.spent += ADDRESS * (1 + len(rows))
    for row in () if robots else rows:
        row.state = SENT
        work.step(row, "sent", f"batch {identity}")
    one = Sent(identity, host.id, origin, robots, work.now, work.now + LASTS, {row.id for row in rows})
    one.is_untried = host.is_untried
    work.state.batches[identity] = one
    work.batches.add(identity)
    if robots:
        addresses = [Address(f"{robots}/robots.txt", "robots")]
    else:
        addresses = [Address(row.url, PURPOSES[row.purpose], row.etag, row.modified) for row in rows]
    pause = host.pause
    return Batch(
        id=identity,
        origin=origin,
        addresses=addresses,
        delay=pause,
        deadline=one.deadline,
        contact=work.state.contact,
        connections=1 if pause > 0 else _CONNECTIONS,
    )
