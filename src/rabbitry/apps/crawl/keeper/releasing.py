"""Ends of batches, and their effects on addresses that were fetched or returned."""

from __future__ import annotations

from typing import Final

from rabbitry.apps.crawl.keeper import hosts, traps
from rabbitry.apps.crawl.keeper.costs import ADDRESS, LIMIT
from rabbitry.apps.crawl.keeper.recrawl import next_pause
from rabbitry.apps.crawl.keeper.state import DONE, GRACE, LARGEST_WINDOW, SENT, SMALLEST_UNTRIED, Sent
from rabbitry.apps.crawl.keeper.work import LOST, PURPOSES, Row, Work

MOST_LOSSES: Final = 20
"""How often an address may be lost by a crawler that dies."""
MARGIN: Final = 40.0
"""Seconds after a batch's deadline before it is withdrawn: requests begun before the deadline may take longer."""
AWAITED: Final = -1
"""The status of an address whose document arrived before its page: the document shows that it was fetched."""
SITEMAP: Final = PURPOSES.index("sitemap")


def take_back(work: Work) -> None:
    """Withdraw batches whose reports are overdue, as many as a transaction has room for."""
    late: list[Sent] = []
    spent = 0
    for batch in work.state.batches.values():
        if batch.deadline + MARGIN < work.now:
            late.append(batch)
            spent += 1 + ADDRESS * len(batch.addresses)
            if spent >= LIMIT:
                break
    if not late:
        return
    work.read(set().union(*(batch.addresses for batch in late)))
    rows = [work.rows[one] for batch in late for one in batch.addresses if one in work.rows]
    known = work.state.hosts
    work.state.shapes.load(work.connection, [(row.host, known[row.host].name, row.url) for row in rows])
    for batch in late:
        release(work, batch, 0.0, "taken-back", "", set())


def release(work: Work, batch: Sent, wait: float, why: str, node: str, left: set[str]) -> None:
    """End a batch: its host may be requested again, and its remaining addresses wait. The rows must have been read."""
    host = work.state.hosts[batch.host]
    del work.state.batches[batch.id]
    work.batches.add(batch.id)
    host.out -= 1
    if batch.is_untried:
        # One place more for each that answers, one fewer for two that do not: others get some of the places.
        step = 1.0 if batch.answered else -0.5
        work.state.untried = min(max(SMALLEST_UNTRIED, work.state.untried + step), LARGEST_WINDOW)
    if why in ("interrupted", "taken-back", "not reported"):
        wait = max(wait, host.pause)
    host.due = max(host.due, work.now + wait)
    if batch.answered and not batch.slowed:
        hosts.answered(work, host)
    elif batch.failed and not batch.slowed:
        hosts.failed(work, host, batch.origin, batch.failed, "no answer")
    elif batch.slowed and host.failures > hosts.MOST_SLOWED:
        hosts.close(work, host, batch.origin, "slow-down", f"429 or 503 {host.failures} times in a row")
    work.hosts.add(host.id)
    for one in () if batch.robots else sorted(batch.addresses):  # of a robots.txt, they only wait for it
        row = work.rows.get(one)
        if row is None or row.state != SENT:
            continue
        if row.status == AWAITED and row.outcome_at >= batch.sent_at:
            row.state = DONE
            work.change(row)
            fetch_again(work, row, is_changed=None)
            continue
        if row.is_judged:
            traps.returned(work.state.shapes, work.state.shapes.of(row.host, row.url))
        is_untouched = row.url in left and why in ("late", "blocked")
        work.step(row, "retry", why if row.url in left else "not reported", node=node)
        if is_untouched:
            work.wait(row)
            continue
        row.losses += 1
        if not row.is_counted:
            row.status = LOST
        if row.losses > MOST_LOSSES:
            work.end(row, "given-up", f"{row.losses} crawlers did not finish it")
        else:
            work.later(row, work.now + GRACE)


def count_page(work: Work, row: Row) -> None:
    """Count an address as a page of its crawl, if it is its first page for that crawl."""
    crawl = work.state.crawls.get(row.crawl)
    if not row.is_counted and row.purpose != SITEMAP and crawl is not None:
        row.counted = crawl.id
        crawl.pages += 1
        work.crawls.add(crawl.id)
        if crawl.is_full:
            work.state.fill(crawl)


def fetch_again(work: Work, row: Row, *, is_changed: bool | None) -> None:
    """Schedule the next fetch of a page, if its crawl recrawls. is_changed: None if the document will show it."""
    crawl = work.state.crawls.get(row.crawl)
    if crawl is not None and crawl.recrawl is not None:
        if is_changed is not None or not row.pause:
            row.pause = next_pause(row.pause, crawl.recrawl, is_changed=bool(is_changed))
        work.later(row, work.now + row.pause)
