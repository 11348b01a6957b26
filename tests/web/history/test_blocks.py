"""Blocks of numbers, and the charts made of them."""

from array import array
from math import isnan, nan

from rabbitry.web.history._blocks import NOTHING, POINTS, Block, charted, mean, merged, packed, unpacked

_HOUR = 1_800_000_000


def _block(*numbers: float) -> Block:
    return array("f", [*numbers, *[nan] * (POINTS - len(numbers))])


def test_newer_numbers_replace_older_ones_and_gaps_do_not() -> None:
    assert [*merged(_block(1, 2, nan), _block(nan, 5, 6))[:3]] == [1, 5, 6]
    assert all(map(isnan, merged(NOTHING, NOTHING)))


def test_a_mean_leaves_gaps_out() -> None:
    assert mean(_block(1, nan, 3)) == 2


def test_a_packed_block_has_four_bytes_a_number() -> None:
    data = packed(_block(1.5, nan, -2))
    assert len(data) == 240
    assert data[:4] == b"\x00\x00\xc0\x3f"
    block = unpacked(data)
    assert block is not None
    assert (block[0], block[2]) == (1.5, -2)
    assert unpacked(data[1:]) is None


def test_a_chart_leaves_out_times_without_numbers() -> None:
    blocks = {"b": {_HOUR: _block(nan, 2, nan, 4)}, "a": {_HOUR: _block(1.234, nan, nan, 4)}}
    chart = charted(blocks, "hour", _HOUR + 30)
    assert (chart.step, chart.since, chart.until) == (1, _HOUR + 30 - 3599, _HOUR + 30)
    assert chart.at == [_HOUR, _HOUR + 1, _HOUR + 3]
    assert chart.series == {"a": [1.23, None, 4], "b": [None, 2, 4]}


def test_a_chart_ends_at_its_last_second_and_begins_a_span_before() -> None:
    blocks = {"a": {_HOUR - 3600: _block(*range(60)), _HOUR: _block(*range(60))}}
    chart = charted(blocks, "hour", _HOUR + 9)
    assert chart.at == [*range(_HOUR - 3590, _HOUR - 3540), *range(_HOUR, _HOUR + 10)]
    assert chart.series["a"] == [*range(10, 60), *range(10)]


def test_a_week_has_a_number_a_minute() -> None:
    chart = charted({"a": {_HOUR - 7 * 86400: _block(*range(60)), _HOUR: _block(7)}}, "week", _HOUR + 59)
    assert chart.step == 60
    assert len(chart.at) == 60  # the first minute begins before the week
    assert chart.at[-1] == _HOUR
    assert chart.series["a"][-1] == 7


def test_a_chart_of_nothing_is_empty() -> None:
    assert charted({}, "week", _HOUR).at == []
