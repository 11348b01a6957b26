"""Statistics in constant memory, compared with the standard library's, which keep every number."""

import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rabbitry.apps.monitor.statistics import (
    MAX_HOSTS,
    MAX_INTERFACES,
    RELATIVE_ERROR,
    Counts,
    HostSeries,
    Percentiles,
    Series,
)

rates = st.floats(0, 1e12, allow_nan=False).map(lambda rate: 0.0 if rate < 1 else rate)


def nearest_rank(numbers: list[float], percent: float) -> float:
    return sorted(numbers)[max(1, math.ceil(percent / 100 * len(numbers))) - 1]


@given(st.lists(rates, min_size=1, max_size=300))
def test_a_series_agrees_with_the_standard_library(numbers: list[float]) -> None:
    series = Series(1.0, 1e12)
    for number in numbers:
        series.add(number)
    summary = series.summary()
    assert summary.count == len(numbers)
    assert summary.current == numbers[-1]
    assert (summary.low, summary.high) == (min(numbers), max(numbers))
    assert summary.mean == pytest.approx(statistics.fmean(numbers))
    assert summary.stddev == pytest.approx(statistics.pstdev(numbers), rel=1e-6, abs=1e-6 * max(numbers))


@given(st.lists(rates, min_size=1, max_size=300))
def test_percentiles_keep_their_bound(numbers: list[float]) -> None:
    series = Series(1.0, 1e12)
    for number in numbers:
        series.add(number)
    summary = series.summary()
    for percent, found in ((50, summary.p50), (95, summary.p95)):
        assert found == pytest.approx(nearest_rank(numbers, percent), rel=RELATIVE_ERROR * 1.0001)


@given(st.floats(0, 100), st.lists(st.floats(1e-4, 1), min_size=1, max_size=100))
def test_any_percentile_of_fractions_keeps_its_bound(percent: float, numbers: list[float]) -> None:
    histogram = Percentiles(1e-4, 1.0)
    for number in numbers:
        histogram.add(number)
    [found] = histogram.percentiles(percent)
    assert found == pytest.approx(nearest_rank(numbers, percent), rel=RELATIVE_ERROR * 1.0001)


def test_a_large_mean_does_not_cost_the_deviation_its_digits() -> None:
    series = Series(1.0, 1e12)
    for number in (1e9 + 4, 1e9 + 7, 1e9 + 13, 1e9 + 16):
        series.add(number)
    assert series.summary().stddev == pytest.approx(statistics.pstdev([4, 7, 13, 16]), rel=1e-9)


def test_numbers_outside_the_histogram_count_at_its_ends() -> None:
    histogram = Percentiles(1.0, 1000.0)
    for number in (0.0, 0.5, 5000.0):
        histogram.add(number)
    assert histogram.percentiles(1, 50) == [0.0, 0.0]
    assert histogram.percentiles(100)[0] == pytest.approx(1000, rel=RELATIVE_ERROR)


def test_interfaces_are_bounded_and_the_longest_silent_goes() -> None:
    host = HostSeries()
    host.add(0.5, {"old": (1, 1)})
    host.add(0.5, {"busy": (1, 1)})
    for number in range(MAX_INTERFACES):
        host.add(0.5, {f"veth{number}": (1, 1), "busy": (2, 2)})
    assert len(host.net) == MAX_INTERFACES
    assert "old" not in host.net
    assert host.net["busy"][0].count == MAX_INTERFACES + 1


def test_hosts_are_bounded_and_the_longest_silent_goes() -> None:
    counts = Counts()
    for number in range(MAX_HOSTS + 1):
        counts.add(f"host{number}", 0.5, {})
        counts.add("busy", 0.5, {})
    assert len(counts.hosts) == MAX_HOSTS
    assert "host0" not in counts.hosts
    assert counts.hosts["busy"].cpu.count == MAX_HOSTS + 1
    assert counts.counted == 2 * (MAX_HOSTS + 1)


def test_the_latest_interfaces_are_those_of_the_last_sample() -> None:
    host = HostSeries()
    host.add(0.5, {"eth0": (1, 1), "usb0": (1, 1)})
    host.add(0.5, {"eth0": (1, 1)})
    assert host.latest == ["eth0"]
    assert set(host.net) == {"eth0", "usb0"}
