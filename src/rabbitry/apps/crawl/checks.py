"""What `rabbitry doctor` says of the queues of a crawl that nobody consumes."""

from __future__ import annotations

from functools import partial
from typing import Final

from rabbitry.apps import Checks, Untaken
from rabbitry.apps.crawl import names

_MANY_LINES: Final = 100_000
"""Lines of a crawl's log that come in the time in which they expire, and more."""
_ROLES: Final = {
    names.KEEPER_QUEUE: names.KEEPER,
    names.BATCH_QUEUE: names.CRAWLER,
    names.PAGE_QUEUE: names.PROCESSOR,
    **{f"{names.APP}.suspects.{role}": role for role in (names.KEEPER, names.CRAWLER, names.PROCESSOR)},
}
"""Queues of a crawl, and the role that takes their messages."""


def _without(role: str, waiting: Untaken) -> tuple[bool, str, str]:
    # A crawl stands still without a keeper or a crawler; its pages may be another program's, which is away.
    is_bad = waiting.grown > 0 or role != names.PROCESSOR
    return is_bad, waiting.what, f"no {role} of the crawl runs: start one, on any machine: rabbitry crawl {role}"


def _log_lines(waiting: Untaken) -> tuple[bool, str, str] | None:
    """Return what is wrong with a log that nobody reads: nothing while its lines expire as they come."""
    if waiting.ready <= _MANY_LINES or waiting.grown <= 0:
        return None
    grown = f"{waiting.ready}, {waiting.grown} more in {waiting.seconds:.0f} s"
    todo = (
        f"Rabbitry's lines expire after {names.LOG_SECONDS:.0f} s, but not behind those of other programs: "
        "start the program that reads it, or purge the queue"
    )
    return False, f"nobody reads the crawl's log, and it grows: {grown}", todo


checks: Final = Checks(
    untaken={names.LOG_QUEUE: _log_lines, **{queue: partial(_without, role) for queue, role in _ROLES.items()}}
)
