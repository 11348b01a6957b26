"""Schedules: the moments at which a stage is given a tick, and what a tick is."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import Final, Literal, TypeAlias

import msgspec

from rabbitry._installing import missing
from rabbitry.flow.exceptions import AppError

Missed: TypeAlias = Literal["last", "all", "skip"]
"""What becomes of ticks at whose time no worker ran; see `App.every`."""

GRACE: Final = 60.0
"""Seconds after which a tick counts as missed."""
_SHORTEST: Final = 1
_LONGEST: Final = 366 * 24 * 3600
"""Seconds of an interval."""
_UNITS: Final = {"d": 86_400, "h": 3600, "m": 60, "s": 1}
_DURATION: Final = re.compile(r"(?:(\d{1,9})d)?(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})s)?", re.ASCII)
_SECOND: Final = timedelta(seconds=1)


class Tick(msgspec.Struct, frozen=True):
    """A tick of a schedule, the value that its handler takes.

    schedule: the stage's name. at: the time that the schedule names, in UTC, also if the tick comes later.
    """

    schedule: str
    at: datetime


@dataclass(frozen=True, slots=True, eq=False)
class Schedule:
    """The schedule of a stage. Made by `App.every` and `App.cron`.

    when: in words, for people. missed: see `App.every`. after: returns the first tick after a moment.
    """

    when: str
    missed: Missed
    after: Callable[[datetime], datetime]

    def ticks(self, since: datetime, until: datetime) -> Iterator[datetime]:
        """Return the ticks after `since`, up to `until` and with it, in their order."""
        return takewhile(lambda tick: tick <= until, self._from(since))

    def last(self, since: datetime, until: datetime) -> datetime | None:
        """Return the last tick after `since`, up to `until` and with it; None if there is none.

        It bisects, since there may be millions of ticks that no worker saw.
        """
        last = self.after(since)
        if last > until:
            return None
        while until - last >= _SECOND:  # ticks are whole seconds apart
            middle = last + (until - last) / 2
            tick = self.after(middle)
            if tick <= until:
                last = tick
            else:
                until = middle
        return last

    def _from(self, moment: datetime) -> Iterator[datetime]:
        while True:
            moment = self.after(moment)
            yield moment


def every(interval: str | float | timedelta, missed: Missed, what: str) -> Schedule:
    """Make the schedule that ticks at the whole multiples of an interval since 1970-01-01T00:00Z.

    All workers agree on these without asking each other. what: the stage in words, for errors.

    Raises:
        AppError: The interval is invalid.
    """
    seconds = _seconds_of(interval)
    if seconds is None or seconds % 1 or not _SHORTEST <= seconds <= _LONGEST:
        raise AppError(
            f"{what}: every({interval!r}): give whole seconds, from 1 second to 366 days, as '30s', '5m', '1h30m', "
            "'7d', a number, or a timedelta"
        )
    step = timedelta(seconds=seconds)
    epoch = datetime(1970, 1, 1, tzinfo=UTC)

    def after(moment: datetime) -> datetime:
        return epoch + ((moment - epoch) // step + 1) * step

    return Schedule(f"every {_words(step)}", missed, after)


def cron(expression: str, timezone: str, missed: Missed, what: str) -> Schedule:
    """Make the schedule of a cron expression, in a time zone, with Debian cron's rules for changes of the clock.

    Raises:
        AppError: The expression or the zone is invalid, or cronsim is not installed.
    """
    from zoneinfo import ZoneInfo

    try:
        from cronsim import CronSim, CronSimError
    except ModuleNotFoundError as error:
        raise AppError(missing(f"{what}: cron", error, "cron")) from error
    try:
        zone = ZoneInfo(timezone)
    except (KeyError, ValueError, TypeError, OSError) as error:  # ZoneInfoNotFoundError is a KeyError
        raise AppError(
            f"{what}: timezone={timezone!r} is no time zone of this machine: give a name as 'Europe/Dublin', or 'UTC'"
        ) from error

    def after(moment: datetime) -> datetime:
        # In an hour that comes twice, CronSim takes a moment of the second time for one of the first, and may return a
        # tick that is over.
        ticks = (tick.astimezone(UTC) for tick in CronSim(expression, moment.astimezone(zone)))
        return next(tick for tick in ticks if tick > moment)

    try:
        after(datetime.now(UTC))
    except (CronSimError, StopIteration, ValueError, AttributeError) as error:
        # ValueError: a number of more digits than int() takes. AttributeError: the expression is no string.
        raise AppError(
            f"{what}: cron({expression!r}): {error or 'it has no tick within 50 years'}; give minute, hour, day of "
            "month, month and day of week, as '0 6 * * 1-5'"
        ) from error
    return Schedule(f"{expression} ({timezone})", missed, after)


def check_missed(missed: object, what: str) -> None:
    """Raise AppError for a `missed` that is none."""
    if missed not in ("last", "all", "skip"):
        raise AppError(f"{what}: missed={missed!r}: must be 'last', 'all' or 'skip'")


def _seconds_of(interval: object) -> float | None:
    if isinstance(interval, timedelta):
        return interval.total_seconds()
    if isinstance(interval, int | float) and not isinstance(interval, bool):
        return float(interval)
    if isinstance(interval, str) and interval and (found := _DURATION.fullmatch(interval)):
        return float(sum(int(number or 0) * unit for number, unit in zip(found.groups(), _UNITS.values(), strict=True)))
    return None


def _words(step: timedelta) -> str:
    """Return an interval in the form that `every` takes."""
    left, text = step.total_seconds(), ""
    for letter, unit in _UNITS.items():
        number, left = divmod(left, unit)
        text += f"{number:.0f}{letter}" if number else ""
    return text
