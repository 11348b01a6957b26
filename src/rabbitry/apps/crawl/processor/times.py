"""Times in the formats of sitemaps and feeds."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from typing import Final

_W3C: Final = re.compile(
    r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?\s?(Z|[+-]\d\d:?\d\d)?)?)?)?",
    re.ASCII | re.I,
)
_LONGEST: Final = 64


def seconds_of(text: str) -> float | None:
    """Parse a time as a Unix timestamp; None if it is invalid or before 1970.

    It may be a W3C datetime of any precision (its earliest moment; UTC without a zone), or in the format of RFC 5322.
    """
    text = text.strip()[:_LONGEST]
    found = _W3C.fullmatch(text)
    try:
        moment = _w3c(found) if found else parsedate_to_datetime(text)
        at = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError, TypeError, IndexError):  # parsedate_to_datetime raises more than it documents
        return None
    return at if math.isfinite(at) and at >= 0 else None


def _w3c(found: re.Match[str]) -> datetime:
    year, month, day, hour, minute, second = (int(found[number] or (number in (2, 3))) for number in range(1, 7))
    fraction = int((found[7] or "0").ljust(6, "0")[:6])
    moment = datetime(year, month, day, hour, minute, min(second, 59), fraction, tzinfo=_zone(found[8] or "Z"))
    return moment + timedelta(seconds=second - 59) if second == 60 else moment


def _zone(text: str) -> timezone:
    if text in "Zz":
        return UTC
    offset = timedelta(hours=int(text[1:3]), minutes=int(text[-2:]))
    return timezone(-offset if text[0] == "-" else offset)
