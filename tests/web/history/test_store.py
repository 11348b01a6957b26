"""The history's file: what is written and when, who writes, and its bounds."""

import sqlite3
import stat
from array import array
from math import nan
from pathlib import Path

import pytest

from rabbitry.apps.exceptions import RecordsError
from rabbitry.web.history import _store as limits
from rabbitry.web.history._blocks import POINTS, Block, Series
from rabbitry.web.history._store import LEASE, Store

_HOUR = 1_800_000_000 // 3600 * 3600
_CPU = Series("monitor", "m1", "cpu")


def _block(first: int, *numbers: float) -> Block:
    block = array("f", [nan] * POINTS)
    block[first : first + len(numbers)] = array("f", numbers)
    return block


def _rows(file: Path, table: str) -> int:
    connection = sqlite3.connect(file)
    try:
        (count,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608 # a name of ours
        return int(count)
    finally:
        connection.close()


def test_numbers_are_added_to_those_of_the_same_minute(tmp_path: Path) -> None:
    file = tmp_path / "new" / "h.sqlite3"
    store = Store(file, "b")
    assert store.write({(_CPU, _HOUR): _block(0, 1, 2)}, _HOUR + 2)
    assert store.write({(_CPU, _HOUR): _block(1, 3, 5)}, _HOUR + 3)
    seconds = store.chart("monitor", "m1", "hour", _HOUR + 30)
    assert (seconds.at, seconds.series) == ([_HOUR, _HOUR + 1, _HOUR + 2], {"cpu": [1, 3, 5]})
    minutes = store.chart("monitor", "m1", "week", _HOUR + 30)
    assert (minutes.at, minutes.series) == ([_HOUR], {"cpu": [3]})
    assert [*store.series()] == [_CPU]
    assert store.chart("monitor", "other", "hour", _HOUR + 30).at == []
    store.close()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_another_process_adds_to_what_the_first_one_wrote(tmp_path: Path) -> None:
    first = Store(tmp_path / "h", "b")
    first.write({(_CPU, _HOUR): _block(0, 2), (_CPU, _HOUR + 60): _block(0, 4)}, _HOUR + 61)
    first.close()
    second = Store(tmp_path / "h", "b")
    assert second.write({(_CPU, _HOUR + 60): _block(30, 8)}, _HOUR + 90)  # the first one gave its lease back
    chart = second.chart("monitor", "m1", "week", _HOUR + 119)
    assert (chart.at, chart.series) == ([_HOUR, _HOUR + 60], {"cpu": [2, 6]})
    second.close()


def test_one_of_two_dashboards_writes(tmp_path: Path) -> None:
    first, second = Store(tmp_path / "h", "b"), Store(tmp_path / "h", "b")
    assert first.write({(_CPU, _HOUR): _block(0, 1)}, _HOUR)
    assert not second.write({(_CPU, _HOUR): _block(0, 9)}, _HOUR + 1)
    assert second.chart("monitor", "m1", "hour", _HOUR + 2).series == {"cpu": [1]}
    # The first one vanishes, and cannot give its lease back.
    assert not second.write({(_CPU, _HOUR): _block(1, 9)}, _HOUR + LEASE)
    assert second.write({(_CPU, _HOUR): _block(1, 9)}, _HOUR + LEASE + 1)
    assert not first.write({(_CPU, _HOUR): _block(2, 1)}, _HOUR + LEASE + 2)
    assert second.chart("monitor", "m1", "hour", _HOUR + 59).series == {"cpu": [1, 9]}
    first.close()
    second.close()


def test_dashboards_of_two_brokers_share_a_file(tmp_path: Path) -> None:
    first, second = Store(tmp_path / "h", "a"), Store(tmp_path / "h", "b")
    assert first.write({(_CPU, _HOUR): _block(0, 1)}, _HOUR)
    assert second.write({(_CPU, _HOUR): _block(0, 2)}, _HOUR)
    assert first.chart("monitor", "m1", "hour", _HOUR).series == {"cpu": [1]}
    assert second.chart("monitor", "m1", "hour", _HOUR).series == {"cpu": [2]}
    first.close()
    second.close()


def test_what_is_too_old_goes(tmp_path: Path) -> None:
    store = Store(tmp_path / "h", "b")
    store.write({(_CPU, _HOUR): _block(0, 1)}, _HOUR)
    later = Series("broker", "", "ready")
    store.write({(later, _HOUR + 7200): _block(0, 1)}, _HOUR + 7200)
    assert (_rows(tmp_path / "h", "hour"), _rows(tmp_path / "h", "week")) == (1, 2)
    week = _HOUR + 8 * 86400
    store.write({(later, week): _block(0, 1)}, week)
    assert (_rows(tmp_path / "h", "hour"), _rows(tmp_path / "h", "week")) == (1, 1)
    store.write({(_CPU, week): _block(0, 1)}, week + 1)  # its number is a new one
    assert {*store.series()} == {later, _CPU}
    assert store.chart("monitor", "m1", "week", week).at == [week]
    store.close()


def test_too_many_numbers_make_the_week_shorter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MOST_BYTES", 200_000)
    store = Store(tmp_path / "h", "b")
    many = [Series("monitor", f"m{number}", "cpu") for number in range(50)]
    for hour in range(40):
        start = _HOUR + hour * 3600
        store.write({(series, start): _block(0, 1) for series in many}, start)
    assert _rows(tmp_path / "h", "week") < 15 * len(many)
    assert _rows(tmp_path / "h", "week") > 2 * len(many)
    assert (tmp_path / "h").stat().st_size < 300_000
    store.close()


def test_ever_new_names_cost_no_known_machine_its_week(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MOST_KNOWN", 20)
    monkeypatch.setattr(limits, "MOST_BYTES", 200_000)
    store = Store(tmp_path / "h", "b")
    hours = range(_HOUR, _HOUR + 40 * 3600, 3600)
    for start in hours:
        fresh = [Series("monitor", f"{start} {number}", "cpu") for number in range(50)]
        store.write({(series, start): _block(0, 1) for series in (_CPU, *fresh)}, start)
    assert len(store.series()) == 20
    assert store.chart("monitor", "m1", "week", hours[-1]).at == list(hours)
    assert len(store._numbers) <= 51
    assert (tmp_path / "h").stat().st_size < 500_000
    store.close()


def test_a_file_of_no_use_is_an_error_that_names_it(tmp_path: Path) -> None:
    file = tmp_path / "h.sqlite3"
    file.write_bytes(b"no database at all" * 100)
    store = Store(file, "b")
    with pytest.raises(RecordsError, match=r"h\.sqlite3"):
        store.write({(_CPU, _HOUR): _block(0, 1)}, _HOUR)
    with pytest.raises(RecordsError, match=r"h\.sqlite3"):
        store.series()
    store.close()


def test_a_file_of_another_version_is_left_alone(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "h")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(RecordsError, match="another version"):
        Store(tmp_path / "h", "b").series()


def test_a_damaged_block_counts_as_none_and_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / "h"
    store = Store(file, "b")
    store.write({(_CPU, _HOUR): _block(0, 2)}, _HOUR + 1)
    store.close()
    for damaged in ("zeroblob(3)", "'text'", "zeroblob(4000)"):
        with sqlite3.connect(file) as connection:
            for table in ("hour", "week"):
                connection.execute(f"UPDATE {table} SET numbers = {damaged}")  # noqa: S608 # names of ours
        connection.close()
        assert store.chart("monitor", "m1", "hour", _HOUR + 30).at == []
        assert store.write({(_CPU, _HOUR): _block(1, 4)}, _HOUR + 2)
        assert store.chart("monitor", "m1", "week", _HOUR + 30).series == {"cpu": [4]}
        store.close()


def test_a_lease_of_a_clock_that_was_wrong_keeps_nobody_from_writing(tmp_path: Path) -> None:
    killed, other = Store(tmp_path / "h", "b"), Store(tmp_path / "h", "b")
    assert killed.write({(_CPU, _HOUR): _block(0, 2)}, _HOUR + 1_000_000)
    assert other.write({(_CPU, _HOUR): _block(0, 2)}, _HOUR)
    assert not killed.write({(_CPU, _HOUR): _block(0, 2)}, _HOUR + LEASE)
    other.close()
    killed.close()
