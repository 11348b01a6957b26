"""Limits for each key of a stage's messages: what all workers together may begin, or run at once, of one key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeAlias

from rabbitry.flow._annotations import called
from rabbitry.flow._rate import Rate, parse_rate
from rabbitry.flow.exceptions import AppError

LimitBy: TypeAlias = Callable[[Any], object]
"""Returns the key of a value; None for a value that has no limit."""

LONGEST_NAMES: Final = 220
"""Bytes of the names of an app and a stage that leave room for the rest of the name of a key's queue."""
_LEAST: Final = 1 / 60
"""The lowest rate of a key, in messages a second: what a key has used is remembered in a queue for as long as it
matters, and the keys of more than a minute would be too many queues."""


class KeyLimit(NamedTuple):
    """The limits of each key of a stage. key_of: returns a value's key. total: calls at once; None: not limited."""

    key_of: LimitBy
    rate: Rate | None
    total: int | None

    @property
    def by(self) -> str:
        """What the limits are by, in words: the name of the function, or `key` for one without a name."""
        name = called(self.key_of)
        return "key" if "<lambda>" in name else name


def make_key_limit(what: str, app: str, stage: str, key_of: LimitBy, rate: str | None, total: int | None) -> KeyLimit:
    """Make the limits of each key. Raises AppError for limits that keys can't have. what: the stage in words."""
    if rate is None and total is None:
        raise AppError(f"{what}: limit_by=… is the key of rate_each=… and concurrency_each=…: give one of them")
    parsed = None if rate is None else parse_rate(rate)
    if parsed is not None and parsed.per_second < _LEAST:
        raise AppError(f"{what}: rate_each={rate!r}: must be at least '1/m'")
    if len(f"{app}{stage}".encode()) > LONGEST_NAMES:
        raise AppError(
            f"{what}: limit_by=…: the names of app and stage must have at most {LONGEST_NAMES} bytes together, since "
            "the queues of keys are named by them"
        )
    return KeyLimit(key_of, parsed, total)
