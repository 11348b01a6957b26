"""Reactions to hosts' behaviour: slowing down, pausing, speeding up again, and giving up."""

from __future__ import annotations

from typing import Final

import msgspec

from rabbitry.apps.crawl.keeper.outcomes import ALL_ALIKE, NUMBERS
from rabbitry.apps.crawl.keeper.robots import CLOSED, UNAVAILABLE, UNKNOWN, Robots
from rabbitry.apps.crawl.keeper.state import WAITING, Host, Sent
from rabbitry.apps.crawl.keeper.work import Row, Work

DAY: Final = 24 * 3600.0
PAUSES: Final = (10.0, 60.0, 600.0)
"""Seconds to wait after the first, second, … batch that a host did not answer; then it is given up."""
_FIRST_BACKOFF: Final = 10.0
_LEAST_BACKOFF: Final = 0.5
MOST_SLOWED: Final = 12
"""Batches in a row that a host may answer with 429 or 503, each after twice the wait; then it is given up."""
_LAST_OUTCOMES: Final = 8


def slow_down(work: Work, host: Host, retry_after: float | None) -> float:
    """Pause a host that asked for it, longer each time; return the seconds."""
    host.failures += 1
    host.backoff = min(DAY, max(_FIRST_BACKOFF, 2 * host.backoff))
    pause = min(DAY, max(retry_after or 0.0, host.backoff))
    host.due = max(host.due, work.now + pause)
    work.hosts.add(host.id)
    return pause


def answered(work: Work, host: Host) -> None:
    """Record that a host answered a batch: its back-off is halved."""
    host.failures = 0
    host.backoff = host.backoff / 2 if host.backoff > 2 * _LEAST_BACKOFF else 0.0
    work.hosts.add(host.id)


def failed(work: Work, host: Host, origin: str, word: str, detail: str) -> None:
    """Record that a host did not answer a batch; an origin that never does is closed."""
    host.failures += 1
    work.hosts.add(host.id)
    if host.failures > len(PAUSES):
        close(work, host, origin, word, f"{detail}; tried {host.failures} times")
    else:
        host.due = max(host.due, work.now + PAUSES[host.failures - 1])


def close(work: Work, host: Host, origin: str, word: str, detail: str) -> None:
    """Close an origin for a day: all its addresses get this outcome."""
    robots = work.robots_of(origin, host)
    robots.state, robots.outcome, robots.detail = CLOSED, NUMBERS[word], _clean(detail)
    robots.at, robots.until = work.now, work.now + DAY
    work.robots[origin] = robots
    host.failures = 0
    work.hosts.add(host.id)


def reopen(work: Work, host: Host, origin: str) -> None:
    """Reopen a closed origin because one of its addresses was added."""
    if origin in work.state.closed:
        robots = work.robots_of(origin, host)
        robots.state, robots.until, robots.tries = UNKNOWN, 0.0, 0
        work.robots[origin] = robots
    host.failures = 0
    host.due = min(host.due, work.now + host.pause)
    work.hosts.add(host.id)


def robots_failed(work: Work, host: Host, robots: Robots, batch: Sent, row: Row | None, word: str, detail: str) -> None:
    """Record that a robots.txt was not fetched: nothing of its origin is until it was (RFC 9309, 2.3.1.4).

    row: the address that waits for it.
    """
    robots.state, robots.outcome, robots.tries = UNAVAILABLE, NUMBERS[word], robots.tries + 1
    robots.detail, robots.at, robots.until = _clean(detail), work.now, work.now
    work.robots[robots.origin] = robots
    if row is not None and row.state == WAITING:
        work.outcome(row, word, f"robots.txt: {detail}" if detail else "robots.txt")
    if word in ALL_ALIKE:
        close(work, host, robots.origin, word, detail)
    elif word == "slow-down":
        pass  # the host waits, and is given up after MOST_SLOWED
    elif robots.tries > len(PAUSES):
        is_there = word not in ("no-such-host", "no-connection")
        close(work, host, robots.origin, "disallowed" if is_there else word, f"robots.txt: {word} each time")
    else:
        batch.failed = ""
        host.due = max(host.due, work.now + PAUSES[robots.tries - 1])
    work.hosts.add(host.id)


def note(work: Work, host: Host, word: str, *, size: int = 0, wire: int = 0) -> None:
    """Add an outcome to a host's latest ones."""
    last = msgspec.json.decode(host.outcomes or "[]")[1 - _LAST_OUTCOMES :]
    host.outcomes = msgspec.json.encode([*last, (round(work.now, 1), word)]).decode()
    host.size += size
    host.wire += wire
    work.pace["size"] += size
    work.pace["wire"] += wire
    work.hosts.add(host.id)


def _clean(detail: str) -> str:
    return detail[:300].replace("\0", "")
