"""Dispatching: choosing the hosts that are due, and one batch of each, as many addresses as half a minute takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from rabbitry.apps.crawl.keeper import sets, traps
from rabbitry.apps.crawl.keeper.addresses import origin_of
from rabbitry.apps.crawl.keeper.identity import new_batch_id
from rabbitry.apps.crawl.keeper.outcomes import WORDS
from rabbitry.apps.crawl.keeper.robots import UNAVAILABLE, UNKNOWN
from rabbitry.apps.crawl.keeper.state import LATER, SENT, Host, Sent
from rabbitry.apps.crawl.keeper.work import PURPOSES, Row, Work
from rabbitry.apps.crawl.messages import Address, Batch

BATCH_SECONDS: Final = 30.0
MOST_ADDRESSES: Final = 50
LASTS: Final = 75.0
"""Seconds from the sending of a batch to its deadline: waiting for a crawler, and being fetched."""
MOST_AT_ONCE: Final = 200
"""Batches of one transaction."""
_CONNECTIONS: Final = 4
"""To a host that asks for no delay."""
_ROUNDS: Final = 10
_LOOKED_AT: Final = 200
_MOST_LATER: Final = 2_000
_MANY: Final = 100
"""Pages of a host past which its pages are known to look alike, where they do."""
_IDLE: Final = 1.0
"""Seconds until a host is looked at again that has addresses, and none that can be sent."""


def due_again(work: Work) -> None:
    """Queue the addresses whose time to be fetched again has come, in the order of their times."""
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
    """Refuse the queued addresses of crawls that have all their pages."""
    for identity in sorted(work.state.full):
        rows = work.waiting_of(work.state.crawls[identity], _MOST_LATER)
        for row in rows:
            work.end(row, "limit")
        if len(rows) < _MOST_LATER:
            work.state.full.discard(identity)


def dispatch(work: Work) -> list[Batch]:
    """Return the batches to publish, whose addresses are marked as sent. Changes must have been flushed before."""
    state = work.state
    batches: list[Batch] = []
    idle: list[Host] = []
    # By crawl: addresses that are sent now, which `crawl.sent` counts once they are written.
    promised: Counter[int] = Counter()
    for host in state.due_hosts(work.now):
        if len(state.batches) >= int(state.window) or len(batches) >= MOST_AT_ONCE:
            idle.append(host)
            break
        if not host.waiting or host.out >= work.per_host:
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
        if host.waiting and host.out < work.per_host:
            idle.append(host)
    for host in idle:
        state.list_host(host)
    return batches


def _choose(work: Work, host: Host, promised: Counter[int]) -> Batch | None:
    pause = host.pause
    size = MOST_ADDRESSES if pause <= 0 else max(1, min(MOST_ADDRESSES, int(BATCH_SECONDS / pause)))
    if host.failures:
        size = 1
    for number in range(_ROUNDS):
        rows = work.waiting(host, _LOOKED_AT if number else min(_LOOKED_AT, 2 * size))
        if not rows:
            return None
        origin = origin_of(rows[0].url)
        robots = work.robots_of(origin, host)
        is_closed = work.state.closed.get(origin, (0, 0.0))[1] > work.now
        if not is_closed and (robots.state in (UNKNOWN, UNAVAILABLE) or robots.until <= work.now):
            return _send(work, host, origin, [], origin)
        rows = [row for row in rows if row.url.startswith(f"{origin}/")]
        picked, is_refused = _pick(work, host, origin, rows, size, promised)
        if picked:
            return _send(work, host, origin, picked, "")
        if not is_refused and number:
            return None
        work.flush()
    return None


def _pick(
    work: Work, host: Host, origin: str, rows: Sequence[Row], size: int, promised: Counter[int]
) -> tuple[list[Row], bool]:
    """Return the addresses that may be fetched now, and whether others were refused for good."""
    state = work.state
    robots = work.robots_of(origin, host)
    outcome, until = state.closed.get(origin, (0, 0.0))
    state.shapes.load(work.connection, [(host.id, host.name, row.url) for row in rows])
    picked: list[Row] = []
    doubtful: list[Row] = []
    is_refused = False
    for row in rows:
        if len(picked) == size:
            break
        crawl = state.crawls.get(row.crawl)
        if until > work.now:
            work.end(row, WORDS[outcome], robots.detail)
        elif not robots.allows(row.url):
            work.end(row, "disallowed", f"robots.txt: {robots.detail}" if robots.detail else "robots.txt")
        elif crawl is not None and crawl.is_full and row.purpose == 0:
            work.end(row, "limit")
        elif not _has_room(work, row, promised):
            continue
        else:
            shapes = state.shapes.of(host.id, row.url)
            judged, shape = ("good", None) if row.depth == 0 or row.content else traps.verdict(shapes, work.now)
            if judged == "unknown":
                continue
            if judged == "doubtful":
                doubtful.append(row)
                continue
            if judged == "trap" and shape is not None:
                work.end(row, "trap", f"{shape.repeats} of {shape.documents} of {shape.shape} were much the same")
            else:
                promised[row.crawl] += row.purpose == 0
                picked.append(row)
                traps.sent(state.shapes, shapes, work.now)
                continue
        is_refused = True
    if not picked and not is_refused:
        # What may be a trap has its turn where nothing else waits, a few at a time.
        for row in doubtful[: size if host.pages >= _MANY else min(size, traps.ENOUGH)]:
            if not _has_room(work, row, promised):
                continue
            promised[row.crawl] += row.purpose == 0
            picked.append(row)
            traps.sent(state.shapes, state.shapes.of(host.id, row.url), work.now)
    return picked, is_refused


def _has_room(work: Work, row: Row, promised: Counter[int]) -> bool:
    """Return whether the crawl of an address may have one more page."""
    crawl = work.state.crawls.get(row.crawl)
    return crawl is None or row.purpose != 0 or crawl.room - promised[crawl.id] > 0


def _send(work: Work, host: Host, origin: str, rows: Sequence[Row], robots: str) -> Batch:
    identity = new_batch_id(work.state.crawl)
    for row in rows:
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
