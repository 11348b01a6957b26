"""When a message is delivered, and when it expires: the arguments after, at, expires and expired of `publish`."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, NamedTuple, TypeAlias, TypedDict, get_args

from rabbitry.amqp.client import BrokerURL
from rabbitry.exceptions import UsageError

Expired: TypeAlias = Literal["drop", "dead"]
"""What happens to a message that no worker took in time: it is dropped, or becomes a dead letter."""
Seconds: TypeAlias = float | timedelta

LONGEST_EXPIRY: Final = 100 * 365 * 86400.0
"""Seconds of the longest time after which a message expires."""


_undelayed: Final[set[BrokerURL]] = set()
"""Brokers of harnesses, on which publishers delay nothing."""


@contextmanager
def without_delays(url: BrokerURL) -> Iterator[None]:
    """Have publishers delay nothing on a broker, for tests."""
    _undelayed.add(url)
    try:
        yield
    finally:
        _undelayed.discard(url)


def delays_on(url: BrokerURL) -> bool:
    """Return whether messages are delayed on a broker."""
    return url not in _undelayed


class Timing(NamedTuple):
    """The times of a message.

    delay: seconds until it is delivered. expires: seconds after that at which it expires; None for never.
    """

    delay: float
    expires: float | None
    expired: Expired


class Times(TypedDict, total=False):
    """The arguments of `Publisher.publish` for the times of a message, each with its default if it is absent."""

    after: Seconds | None
    at: datetime | None
    expires: Seconds | None
    expired: Expired


class Expiry(NamedTuple):
    """When a message expires, in POSIX seconds. Its text is the value of the header `x-rabbitry-expires`."""

    expired: Expired
    at: float

    def __str__(self) -> str:
        return f"{self.expired} {self.at:.3f}"


def timing_of(
    after: Seconds | None = None,
    at: datetime | None = None,
    expires: Seconds | None = None,
    expired: Expired = "drop",
) -> Timing | None:
    """Check the times of a message; None if it is delivered at once and never expires. Raises UsageError."""
    if expired not in get_args(Expired):
        raise UsageError(f"expired={expired!r}: give 'drop' or 'dead'")
    if expired == "dead" and expires is None:
        raise UsageError("expired='dead' without expires=: the message would never expire: give expires=SECONDS too")
    if after is None and at is None and expires is None:
        return None
    if after is not None and at is not None:
        raise UsageError(f"after={after!r} and at={at!r}: give one of them")
    delay = 0.0
    if after is not None:
        delay = _seconds("after", after)
    elif at is not None:
        if not isinstance(at, datetime) or at.utcoffset() is None:
            raise UsageError(f"at={at!r}: give a datetime with a time zone, such as datetime.now(UTC) + timedelta(…)")
        delay = max(0.0, (at - datetime.now(UTC)).total_seconds())  # a time that is over: at once
    limit = None
    if expires is not None:
        limit = _seconds("expires", expires)
        if not 0 < limit <= LONGEST_EXPIRY:
            raise UsageError(f"expires={expires!r}: give positive seconds, or a timedelta, of at most 100 years")
    return Timing(delay, limit, expired)


def _seconds(name: str, value: Seconds) -> float:
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < math.inf:
        raise UsageError(f"{name}={value!r}: give seconds, or a timedelta, not negative")
    return float(seconds)


def expiry_of(timing: Timing) -> Expiry | None:
    """Return when a message that is published now expires; None for never."""
    if timing.expires is None:
        return None
    return Expiry(timing.expired, time.time() + timing.delay + timing.expires)


def read_expiry(text: str) -> Expiry | None:
    """Read the header `x-rabbitry-expires`; None if it is malformed."""
    expired, _, at = text.partition(" ")
    try:
        seconds = float(at)
    except ValueError:
        return None
    match expired:
        case "drop" | "dead":
            return Expiry(expired, seconds)
    return None
