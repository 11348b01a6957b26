"""The values of a machine's last samples, as its chart draws them."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from math import isnan, nan
from typing import Final

from rabbitry.apps.monitor.reading import Values

_WIDTH: Final = 5
"""Numbers of a sample: the time and its four values."""


class Recent:
    """The values of the last samples, oldest first.

    They are in one array: 180 samples of 1,000 machines take 8 MB, and 46 MB as tuples of floats.

    Args:
        most: How many samples are kept.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._numbers = array("d")

    def __len__(self) -> int:
        """Return how many samples there are."""
        return len(self._numbers) // _WIDTH

    def __iter__(self) -> Iterator[tuple[float, Values]]:
        """Yield the time and the values of each."""
        numbers = self._numbers
        for place in range(0, len(numbers), _WIDTH):
            values = numbers[place + 1 : place + _WIDTH]
            cpu, memory, received, sent = (None if isnan(value) else value for value in values)
            yield numbers[place], (cpu, memory, received, sent)

    def add(self, at: float, values: Values) -> None:
        """Add a sample, in place of the oldest if there is no more room. at: Unix seconds."""
        if len(self) >= self._most:
            del self._numbers[:_WIDTH]
        self._numbers.extend((at, *(nan if value is None else value for value in values)))
