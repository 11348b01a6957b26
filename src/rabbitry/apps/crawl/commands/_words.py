"""Formats for a crawl's times, sizes and numbers."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Final

_STEPS: Final = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def span(seconds: float) -> str:
    """Format a length of time with one unit, `45 s`, `3 min`, `2 d`."""
    whole = max(0, round(seconds))
    for size, unit in _STEPS:
        if whole >= size:
            return f"{whole // size} {unit}"
    return "0 s"


def ago(at: float, now: float | None = None) -> str:
    """Format a Unix timestamp as a time before or after now."""
    passed = (time.time() if now is None else now) - at
    if abs(passed) < 1:
        return "now"
    return f"{span(passed)} ago" if passed > 0 else f"in {span(-passed)}"


def moment(at: float) -> str:
    """Format a Unix timestamp in UTC."""
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return "never"


def size(number: float) -> str:
    """Format a number of bytes with a unit, in powers of 1000."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if abs(number) < 1000:
            return f"{number:.0f} {unit}" if unit == "bytes" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:,.1f} TB"


def saved(carried: int, whole: int) -> str:
    """Format the share of bytes saved by compression."""
    return f"{max(0.0, 1 - carried / whole):.0%}" if whole > 0 else "0%"
