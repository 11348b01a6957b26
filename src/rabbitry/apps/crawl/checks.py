"""The checks of `rabbitry doctor` for a crawl's queues that have no consumer."""

from __future__ import annotations

from functools import partial
from typing import Final

from rabbitry.apps import Checks, Untaken
from rabbitry.apps.crawl import names

_MANY_LINES: Final = 100_000
"""Log lines that arrive within the time in which they expire; more do not expire as fast as they come."""
_ROLES: Final = {
    names.KEEPER_QUEUE: names.KEEPER,
    names.BATCH_QUEUE: names.CRAWLER,
    names.PAGE_QUEUE: names.PROCESSOR,
    **{f"{names.APP}.suspects.{role}": role for role in (names.KEEPER, names.CRAWLER, names.PROCESSOR)},
}
"""Queues of a crawl, each with the role that consumes it."""


def _without(role: str, waiting: Untaken) -> tuple[bool, str, str]:
    # A crawl stops without a keeper or a crawler; pages may wait for another program's processor.
    is_bad = waiting.grown > 0 or role != names.PROCESSOR
    return is_bad, waiting.what, f"no {role} of the crawl runs: start one, on any machine: rabbitry crawl {role}"


def _log_lines(waiting: Untaken) -> tuple[bool, str, str] | None:
    """Return the problem of a log that has no reader; None while its lines expire as fast as they come."""
    if waiting.ready <= _MANY_LINES or waiting.grown <= 0:
        return None
    grown = f"{waiting.ready}, {waiting.grown} more in {waiting.seconds:.0f} s"
    todo = (
        f"Rabbitry's lines expire after {names.LOG_SECONDS:.0f} s, but not behind those of other programs: "
        "start the program that reads it, or purge the queue"
    )
    return False, f"the crawl's log has no reader and grows: {grown}", todo


checks: Final = Checks(
    untaken={names.LOG_QUEUE: _log_lines, **{queue: partial(_without, role) for queue, role in _ROLES.items()}}
)
