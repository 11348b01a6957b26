"""Results of crawlers: pages, outcomes, and reports at the end of batches."""

from __future__ import annotations

import logging
from typing import Final, Protocol

from rabbitry.apps.crawl.keeper import hosts, traps
from rabbitry.apps.crawl.keeper.addresses import BadAddress, parse
from rabbitry.apps.crawl.keeper.inputs import Page
from rabbitry.apps.crawl.keeper.links import Links
from rabbitry.apps.crawl.keeper.outcomes import ALL_ALIKE, FETCHED, NUMBERS, OF_THE_HOST, ONCE_MORE
from rabbitry.apps.crawl.keeper.releasing import AWAITED, SITEMAP, count_page, fetch_again, release
from rabbitry.apps.crawl.keeper.robots import Robots
from rabbitry.apps.crawl.keeper.state import (
    DONE,
    LARGEST_WINDOW,
    LATER,
    SENT,
    SMALLEST_WINDOW,
    WAITING,
    Host,
    Sent,
)
from rabbitry.apps.crawl.keeper.work import Row, Work
from rabbitry.apps.crawl.messages import Outcome, Report

TRIES: Final = 3
SLOW_TRIES: Final = 6
"""Attempts for an address that gets 429 or 503 while its host answers others."""
_RETRIES: Final = (10.0, 60.0, 600.0, 3600.0, 6 * 3600.0)
"""Seconds before an address is tried again."""
_LONGEST_WAIT: Final = hosts.DAY
_AHEAD: Final = 10.0
"""Seconds that a crawler's clock may be ahead before a warning. One that is behind looks like a late report."""
_TOLD_EVERY: Final = 60.0
_LATE_WAIT: Final = 5.0
"""Seconds before a host is tried again if nothing of its batch was requested before the deadline."""


_logger = logging.getLogger(__name__)


class Keep(Protocol):
    """The part of the index that stores pages' bodies and removals."""

    def page(self, page: Page) -> None:
        """Store a page."""

    def gone(self, url: str, at: float) -> None:
        """Record that an address has no page any more."""


class CrawlResults:
    """Applies crawlers' results in order of arrival. The rows concerned must have been read."""

    def __init__(self, work: Work, links: Links, keep: Keep) -> None:
        self._work = work
        self._links = links
        self._keep = keep

    # -- pages -------------------------------------------------------------------------------------------

    def page(self, page: Page) -> None:
        """Apply a page, which is its own outcome."""
        work = self._work
        row = row_for(work, page.url)
        if row is None:
            work.counts["pages without an address"] += 1
            return
        is_current = self._reported(row, page.batch, is_answer=True)
        is_known = row.outcome in FETCHED and row.outcome_at >= page.fetched_at
        if not is_current and is_known and row.status != AWAITED:
            return  # it is a repeat
        host = work.state.hosts[row.host]
        hosts.note(work, host, "page", size=page.size, wire=page.wire)
        host.pages += 1
        work.pace["pages"] += 1
        work.counts["bytes"] += page.size
        work.counts["wire"] += page.wire
        work.counts["compressed"] += len(page.body)
        count_page(work, row)
        row.status, row.tries = page.status, 0
        row.etag, row.modified = _short(page.headers.get("etag")), _short(page.headers.get("last-modified"))
        if is_known:
            row.state = DONE
            work.change(row)
        else:
            work.end(row, "page", str(page.status), node=f"crawler {page.crawler}", at=page.fetched_at)
        fetch_again(work, row, is_changed=None)
        if row.purpose != SITEMAP:
            self._keep.page(page)

    def _reported(self, row: Row, name: str, *, is_answer: bool) -> bool:
        """Record that an address of a batch is reported; return whether it was expected."""
        batch = self._work.state.batches.get(name)
        if batch is None:
            return False
        batch.answered = batch.answered or is_answer
        if row.id not in batch.addresses:
            return False
        batch.addresses.discard(row.id)
        self._work.batches.add(name)
        return row.state == SENT

    # -- everything else ---------------------------------------------------------------------------------

    def outcome(self, outcome: Outcome) -> None:
        """Apply the outcome of an address without a page."""
        work = self._work
        word = outcome.outcome if outcome.outcome in NUMBERS else "bad-answer"
        batch = work.state.batches.get(outcome.batch)
        if batch is not None and batch.robots:
            self._robots(batch, outcome, word)
            return
        row = row_for(work, outcome.url, make=False)
        if row is None:
            return
        is_answer = word not in OF_THE_HOST and word not in ALL_ALIKE and word != "too-slow"
        if not self._reported(row, outcome.batch, is_answer=is_answer):
            is_new = outcome.at > row.outcome_at and row.state in (WAITING, SENT, LATER)
            if word in ONCE_MORE or word in OF_THE_HOST or not is_new:
                return  # its batch was withdrawn: another batch will report it
        host = work.state.hosts[row.host]
        hosts.note(work, host, word, size=outcome.size, wire=outcome.wire)
        work.counts["wire"] += outcome.wire
        row.status = outcome.status or 0
        node = f"crawler {outcome.crawler}"
        if row.is_judged:
            traps.answered(work.state.shapes, work.state.shapes.of(host.id, row.url))
        if word == "slow-down":
            self._slow_down(batch, host, row, outcome, node)
        elif word in OF_THE_HOST:
            host.problems += 1
            if batch is not None:
                batch.failed = word
            self._retry(row, word, outcome.detail, node, TRIES)
        elif word in ONCE_MORE:
            host.problems += 1
            self._retry(row, word, outcome.detail, node, TRIES)
        elif word == "redirect":
            self._redirect(row, outcome, node)
        elif word == "unchanged":
            row.tries = 0
            work.end(row, word, outcome.detail, node=node, at=outcome.at)
            fetch_again(work, row, is_changed=False)
        else:
            if word == "client-error":
                self._keep.gone(row.url, outcome.at)
            host.problems += 1
            work.end(row, word, _with_status(outcome), node=node, at=outcome.at)

    def _slow_down(self, batch: Sent | None, host: Host, row: Row, outcome: Outcome, node: str) -> None:
        pause = 0.0
        if batch is not None and not batch.slowed:
            batch.slowed = True
            pause = hosts.slow_down(self._work, host, outcome.retry_after)
        host.problems += 1
        self._retry(row, "slow-down", _with_status(outcome), node, SLOW_TRIES, pause)

    def _retry(self, row: Row, word: str, detail: str, node: str, tries: int, pause: float = 0.0) -> None:
        work = self._work
        row.tries += 1
        if row.tries >= tries:
            work.end(row, word, detail, node=node)
            work.step(row, "given-up", f"tried {row.tries} times")
            return
        work.outcome(row, word, detail, node=node)
        work.later(row, work.now + max(pause, _RETRIES[min(row.tries, len(_RETRIES)) - 1]))

    def _redirect(self, row: Row, outcome: Outcome, node: str) -> None:
        work = self._work
        location = outcome.location or ""
        try:
            target = parse(location)
        except BadAddress as error:
            # The target determines the outcome: another scheme, too long, or not an address.
            work.end(row, error.word, f"redirects to {location[:100]!r}: {error}", node=node, at=outcome.at)
            return
        if target.key == row.key and target.url != row.url and row.hops < 3:
            # The same address with a session id: it is fetched like that.
            row.url, row.hops = target.url, row.hops + 1
            work.outcome(row, "redirect", location, node=node, at=outcome.at)
            work.wait(row)
            return
        work.end(row, "redirect", location, node=node, at=outcome.at)
        crawl = work.state.crawls.get(row.crawl)
        host = work.state.hosts[row.host].name
        if crawl is not None and row.depth == 0 and _is_www(host, target.host):
            crawl.add_host(target.host)
            work.state.scope_grew()
            work.crawls.add(crawl.id)
        self._links.add(location, row, row.depth, hops=row.hops + 1)

    # -- robots.txt --------------------------------------------------------------------------------------

    def _robots(self, batch: Sent, outcome: Outcome, word: str) -> None:
        work = self._work
        host = work.state.hosts[batch.host]
        robots = work.robots_of(batch.robots, host)
        row = work.rows.get(batch.addresses.pop()) if batch.addresses else None
        work.batches.add(batch.id)
        is_missing = word in ("client-error", "not-text", "redirect", "too-large")
        hosts.note(work, host, "robots" if is_missing else word, wire=outcome.wire)
        work.counts["wire"] += outcome.wire
        work.counts["robots"] += 1
        if word in ("robots", "page"):
            batch.answered = True
            robots.take(outcome.body or "", work.now)
        elif is_missing:
            batch.answered = True
            # After five redirects there are no rules (RFC 9309, section 2.3.1.2).
            robots.allow_all(work.now, word)
        elif word == "slow-down":
            if not batch.slowed:
                batch.slowed = True
                hosts.slow_down(work, host, outcome.retry_after)
            hosts.robots_failed(work, host, robots, batch, row, word, _with_status(outcome))
            return
        else:
            hosts.robots_failed(work, host, robots, batch, row, word, _with_status(outcome))
            return
        take_rules(work, host, robots)
        if row is not None:
            self._links.add_sitemaps(robots, row)

    # -- ends of batches ---------------------------------------------------------------------------------

    def report(self, report: Report) -> None:
        """Apply the end of a batch: its host may be requested again. A withdrawn batch's report is ignored."""
        batch = self._work.state.batches.get(report.batch)
        if batch is None:
            return
        left = len(report.left)
        state = self._work.state
        if report.why == "late" and left and left == len(batch.addresses) and not batch.answered:
            state.window = max(SMALLEST_WINDOW, state.window * 0.7)
        elif report.why != "interrupted":
            state.window = min(LARGEST_WINDOW, state.window + 1)
        wait = min(max(report.wait, 0.0), _LONGEST_WAIT)
        ahead = report.at - self._work.now
        if ahead > _AHEAD and self._work.now > state.clock_told_at + _TOLD_EVERY:
            state.clock_told_at = self._work.now
            text = (
                "the clock of crawler %s is %.0f s ahead of the keeper's, so its batches look overdue: synchronize them"
            )
            _logger.warning(text, report.crawler, ahead)
        if report.why == "late" and left and not batch.answered:
            wait = max(wait, _LATE_WAIT)
        release(self._work, batch, wait, report.why or "not reported", f"crawler {report.crawler}", set(report.left))


def row_for(work: Work, url: str, *, make: bool = True) -> Row | None:
    """Return the row of an address named in a message. make: add one if there is none."""
    try:
        address = parse(url)
    except BadAddress:
        return None
    row = work.row_of(address.key)
    if row is None and make:
        row = work.add(address, None, 0)
        row.state = DONE
        work.state.shapes.load(work.connection, [(row.host, address.host, row.url)])
    return row


def _is_www(one: str, other: str) -> bool:
    return one != other and one.removeprefix("www.") == other.removeprefix("www.")


def _with_status(outcome: Outcome) -> str:
    return f"{outcome.status or ''} {outcome.detail}".strip()


def _short(value: str | None) -> str | None:
    return value if value is None or (len(value) <= 1_000 and value.isprintable()) else None


def take_rules(work: Work, host: Host, robots: Robots) -> None:
    """Apply an origin's rules from now on.

    http and https of a host have rules of their own (RFC 9309, section 2.3), but one host answers both: the longer
    delay holds.
    """
    work.robots[robots.origin] = robots
    host.robots_delay = max(robots.delay, work.robots_of(_other_scheme(robots.origin), host).delay)
    # The crawler used the delay known before.
    host.due = max(host.due, work.now + host.pause)
    work.hosts.add(host.id)


def _other_scheme(origin: str) -> str:
    scheme, rest = origin.split(":", 1)
    return f"{'http' if scheme == 'https' else 'https'}:{rest}"
