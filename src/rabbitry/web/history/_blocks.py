"""Blocks: 60 numbers of one series, a minute by the second or an hour by the minute, as 32-bit floating point."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import fsum, isnan, nan
from typing import Final, Literal, NamedTuple, TypeAlias

POINTS: Final = 60
"""Numbers of a block."""
NOTHING: Final = array("f", [nan] * POINTS)
"""A block without numbers."""

Block: TypeAlias = "array[float]"
Span: TypeAlias = Literal["hour", "week"]
LENGTHS: Final[Mapping[Span, int]] = {"hour": 3600, "week": 7 * 24 * 3600}
"""Seconds that are kept."""
STEPS: Final[Mapping[Span, int]] = {"hour": 1, "week": 60}
"""Seconds of one number."""


class Series(NamedTuple):
    """A number over time: of a thing (`subject`) of an app, or of `broker`."""

    app: str
    subject: str
    name: str


@dataclass(frozen=True, slots=True)
class Chart:
    """The series of a thing. None stands for a number that is missing; times without any number are left out.

    Attributes:
        step: Seconds of a number.
        since, until: The first and the last Unix second of the chart.
        at: The Unix times of the numbers.
        series: Name → its number at each of the times.
    """

    step: int
    since: int
    until: int
    at: Sequence[int]
    series: Mapping[str, Sequence[float | None]]


def merged(older: Block, newer: Block) -> Block:
    """Return the newer numbers, and the older ones where there is none."""
    return array("f", [old if isnan(new) else new for old, new in zip(older, newer, strict=True)])


def mean(block: Block) -> float:
    """Return the mean of the numbers of a block that has some."""
    numbers = [number for number in block if not isnan(number)]
    return fsum(numbers) / len(numbers)


def packed(block: Block) -> bytes:
    """Return a block as bytes, little-endian."""
    if sys.byteorder == "big":
        block = array("f", block)
        block.byteswap()
    return block.tobytes()


def unpacked(data: object) -> Block | None:
    """Return the block that was packed; None if `data` is no block."""
    block = array("f")
    if not isinstance(data, bytes) or len(data) != POINTS * block.itemsize:
        return None
    block.frombytes(data)
    if sys.byteorder == "big":
        block.byteswap()
    return block


def charted(blocks: Mapping[str, Mapping[int, Block]], span: Span, until: int) -> Chart:
    """Return the chart of some series.

    Args:
        blocks: Name → start of a block → block.
        span: What the blocks are of.
        until: The last Unix second.
    """
    step = STEPS[span]
    since = until - LENGTHS[span] + 1
    first = since - since % (step * POINTS)
    starts = range(first, until + 1, step * POINTS)
    columns = {name: _column(found, starts) for name, found in sorted(blocks.items())}
    at: list[int] = []
    series: dict[str, list[float | None]] = {name: [] for name in columns}
    for place, numbers in enumerate(zip(*columns.values(), strict=True)):
        moment = first + place * step
        if since <= moment <= until and not all(map(isnan, numbers)):
            at.append(moment)
            for column, number in zip(series.values(), numbers, strict=True):
                column.append(None if isnan(number) else round(number, 2))
    return Chart(step, since, until, at, series)


def _column(blocks: Mapping[int, Block], starts: range) -> Block:
    column = array("f")
    for start in starts:
        column.extend(blocks.get(start, NOTHING))
    return column
