"""Formats for a crawl's times, sizes and numbers, and tables on a terminal of any width."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Final

from rabbitry.runtime.output import one_line

_LEAST: Final = 8
_UNFOLDED: Final = 10_000
"""Columns of a terminal: the least for a text, and more than a line takes."""
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


def print_table(
    rows: Sequence[Sequence[str]], headings: Sequence[str] = (), *, right: Collection[int] = (), indent: int = 0
) -> None:
    """Print rows in columns; without a row, nothing.

    On a terminal, cells that do not fit are folded. Elsewhere a row stays a line, and on a terminal that is too narrow
    for the numbers and _LEAST columns of each text.

    Args:
        rows: Cells of any text, each made one line.
        headings: The columns' headings; without them, there is no line for these.
        right: The columns aligned to the right, which are not folded: numbers, for example.
        indent: Spaces before each line.
    """
    if not rows:
        return
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=bool(headings), header_style="")
    shown = [[one_line(cell) for cell in row] for row in rows]
    least = indent
    for number, column in enumerate(zip(*([headings] if headings else []), *shown, strict=True)):
        is_right = number in right
        heading = headings[number] if headings else ""
        table.add_column(heading, justify="right" if is_right else "left", no_wrap=is_right, overflow="fold")
        least += 2 + (max(map(cell_len, column)) if is_right else _LEAST)
    for row in shown:
        table.add_row(*map(Text, row))  # Text: a name is no markup
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else _UNFOLDED
    width = _UNFOLDED if width < least else width - indent
    console = Console(width=width, color_system=None, legacy_windows=False)
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        print(f"{' ' * indent}{line}".rstrip())
