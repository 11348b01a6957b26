"""Statistics of a stream of numbers in constant memory.

Percentiles come from a histogram with logarithmic bins (the idea of DDSketch: Masson, Rim, Lee, VLDB 2019):
bin edges grow by a constant factor, so any percentile is off by at most `RELATIVE_ERROR` of its value.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Mapping
from itertools import accumulate

import msgspec

RELATIVE_ERROR = 0.01
"""How far a percentile may lie from the true one, relative to the true one (between `least` and `most`)."""
MAX_HOSTS = 256
"""So many routing keys are kept; beyond, the one that was silent for longest is forgotten."""
MAX_INTERFACES = 128
"""The same for the interfaces of each routing key. An interface takes 12 KiB: 400 MiB in the worst case."""

_GROWTH = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_LOG_GROWTH = math.log(_GROWTH)
_COUNT_LIMIT = 2**32 - 1


class Percentiles:
    """A histogram of numbers from 0 to `most`, of fixed size.

    What is smaller than `least` counts as 0 (an absolute error below `least`), what is larger than `most` as
    `most`.
    """

    __slots__ = ("_bins", "_least", "_most")

    def __init__(self, least: float, most: float) -> None:
        self._least = least
        self._most = most
        # Bin 0 is for what is below `least`; bin n holds (least·growth^(n-2), least·growth^(n-1)].
        self._bins = array("I", bytes(4 * (2 + math.ceil(math.log(most / least) / _LOG_GROWTH))))

    def add(self, value: float) -> None:
        """Count one number in."""
        number = 0 if value < self._least else 1 + math.ceil(math.log(value / self._least) / _LOG_GROWTH)
        number = min(number, len(self._bins) - 1)
        if self._bins[number] < _COUNT_LIMIT:
            self._bins[number] += 1

    def percentiles(self, *percents: float) -> list[float]:
        """For each of `percents` (0 to 100) the number that so many of all numbers don't exceed.

        There must be a number.
        """
        seen = list(accumulate(self._bins))
        return [self._middle(bisect_left(seen, max(1, math.ceil(percent / 100 * seen[-1])))) for percent in percents]

    def _middle(self, number: int) -> float:
        """Return the value in a bin with the same relative distance to both of its edges."""
        if number == 0:
            return 0.0
        return min(self._least * _GROWTH ** (number - 1) * (1 - RELATIVE_ERROR), self._most)


class Summary(msgspec.Struct, frozen=True):
    """The statistics of a series at one moment. `stddev` is that of all its numbers (population)."""

    count: int
    current: float
    low: float
    high: float
    mean: float
    stddev: float
    p50: float
    p95: float


class Series:
    """One measured quantity, since the start."""

    __slots__ = ("_mean", "_percentiles", "_squares", "count", "current", "high", "low")

    def __init__(self, least: float, most: float) -> None:
        """`least` and `most` bound what percentiles tell apart, see `Percentiles`."""
        self.count: int = 0
        self.current: float = 0.0
        self.low: float = math.inf
        self.high: float = -math.inf
        self._mean = 0.0
        self._squares = 0.0
        self._percentiles = Percentiles(least, most)

    def add(self, value: float) -> None:
        """Count one number in: finite, not below 0."""
        self.count += 1
        self.current = value
        self.low = min(self.low, value)
        self.high = max(self.high, value)
        # Welford: no sum of squares, which would lose all digits if the mean is large.
        difference = value - self._mean
        self._mean += difference / self.count
        self._squares += difference * (value - self._mean)
        self._percentiles.add(value)

    def summary(self) -> Summary:
        """Return all statistics of the series, which must not be empty."""
        # The middle of a bin may lie outside of what was ever seen.
        p50, p95 = (min(max(value, self.low), self.high) for value in self._percentiles.percentiles(50, 95))
        return Summary(
            count=self.count,
            current=self.current,
            low=self.low,
            high=self.high,
            mean=self._mean,
            stddev=math.sqrt(self._squares / self.count),
            p50=p50,
            p95=p95,
        )


def _fraction() -> Series:
    return Series(1e-4, 1.0)


def _rate() -> Series:
    return Series(1.0, 1e12)


class HostSeries:
    """The series of one routing key: `cpu`, and `rx` and `tx` of each interface."""

    def __init__(self) -> None:
        self.cpu: Series = _fraction()
        self.net: OrderedDict[str, tuple[Series, Series]] = OrderedDict()
        self.latest: list[str] = []
        """The interfaces of the latest sample."""

    def add(self, cpu: float, net: Mapping[str, tuple[float, float]]) -> None:
        """Count one sample in; `net` is interface → (rx, tx)."""
        self.cpu.add(cpu)
        self.latest = list(net)
        for name, (rx, tx) in net.items():
            pair = self.net.get(name)
            if pair is None:
                pair = self.net[name] = (_rate(), _rate())
                if len(self.net) > MAX_INTERFACES:
                    self.net.popitem(last=False)
            self.net.move_to_end(name)
            pair[0].add(rx)
            pair[1].add(tx)


class Counts:
    """All that was counted: the series of each routing key, in a bounded number."""

    def __init__(self) -> None:
        self.hosts: OrderedDict[str, HostSeries] = OrderedDict()
        self.counted: int = 0
        self.skipped = 0
        """Messages that were no samples."""

    def add(self, routing_key: str, cpu: float, net: Mapping[str, tuple[float, float]]) -> HostSeries:
        """Count one sample in, and return the host that it is of."""
        self.counted += 1
        host = self.hosts.get(routing_key)
        if host is None:
            host = self.hosts[routing_key] = HostSeries()
            if len(self.hosts) > MAX_HOSTS:
                self.hosts.popitem(last=False)
        self.hosts.move_to_end(routing_key)
        host.add(cpu, net)
        return host
