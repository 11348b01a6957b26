"""Tables: windows of rows that are sorted and filtered, and only what differs is sent."""

import pytest

from rabbitry.exceptions import UsageError
from rabbitry.web.feed.tables import Column, Table


def _table(*rows: tuple[object, ...]) -> Table:
    table = Table([Column("vhost"), Column("name"), Column("ready", "number")], keys=2)
    table.replace(rows, 1.0)
    return table


def _nothing() -> None:
    pass


def _rows(table: Table, **params: object) -> list[object]:
    subscription = table.subscribe(params, _nothing)
    part = subscription.take()
    table.unsubscribe(subscription)
    assert part is not None
    return [row[1] for row in part["rows"]]


def test_the_first_part_is_whole() -> None:
    table = _table(("/", "b", 2), ("/", "a", 1))
    part = table.subscribe({"count": 1}, _nothing).take()
    assert part == {
        "columns": ["vhost", "name", "ready"],
        "keys": 2,
        "first": 0,
        "rows": [("/", "a", 1)],
        "total": 2,
        "matching": 2,
        "at": 1.0,
    }


def test_later_parts_hold_the_rows_that_differ() -> None:
    table = _table(("/", "a", 1), ("/", "b", 2), ("/", "c", 3))
    seen = table.subscribe({}, _nothing)
    assert seen.take() is not None
    assert seen.take() is None
    table.update([("/", "b", 5)], [], 2.0)
    assert seen.take() == {"rows": [(1, ("/", "b", 5))], "at": 2.0}
    table.update([], [("/", "a")], 3.0)
    assert seen.take() == {
        "rows": [(0, ("/", "b", 5)), (1, ("/", "c", 3))],
        "length": 2,
        "total": 2,
        "matching": 2,
        "at": 3.0,
    }
    table.update([("/", "aa", 0)], [], 4.0)
    part = seen.take()
    assert part is not None
    assert part["rows"][0] == (0, ("/", "aa", 0))
    assert part["length"] == 3


def test_a_page_that_took_nothing_for_long_gets_the_newest_alone() -> None:
    table = _table(("/", "a", 1))
    seen = table.subscribe({}, _nothing)
    seen.take()
    for ready in range(1000):
        table.update([("/", "a", ready)], [], float(ready))
    assert seen.take() == {"rows": [(0, ("/", "a", 999))], "at": 999.0}


def test_several_columns_sort() -> None:
    table = _table(("/", "a", 1), ("x", "a", 2), ("/", "b", 2), ("/", "c", 1))
    assert _rows(table, sort=["-ready", "name"]) == ["a", "b", "a", "c"]
    assert _rows(table, sort=["ready", "-name"]) == ["c", "a", "b", "a"]
    assert _rows(table, sort=["-ready"], first=1, count=2) == ["a", "a"]


def test_the_order_follows_changes() -> None:
    table = _table(("/", "a", 1), ("/", "b", 2))
    seen = table.subscribe({"sort": ["-ready"], "count": 1}, _nothing)
    seen.take()
    table.update([("/", "a", 3)], [], 2.0)
    assert seen.take() == {"rows": [(0, ("/", "a", 3))], "at": 2.0}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", ["Alpha", "beta", "gamma"]),
        ("BET", ["beta"]),
        ("a -gam", ["Alpha", "beta"]),
        ("ready>1", ["beta", "gamma"]),
        ("ready<=1", ["Alpha"]),
        ("ready>", ["Alpha", "beta", "gamma"]),
        ("-ready=2", ["Alpha", "gamma"]),
        ("name=l", ["Alpha"]),
        ("vhost=/ beta", ["beta"]),
        ("other=1", []),
        ("-", []),
    ],
)
def test_filters(text: str, names: list[str]) -> None:
    table = _table(("/", "Alpha", 1), ("/", "beta", 2), ("/", "gamma", 3))
    assert _rows(table, filter=text) == names


@pytest.mark.parametrize(
    "params",
    [
        {"sort": ["nothing"]},
        {"sort": "name"},
        {"sort": ["name"] * 5},
        {"filter": "x" * 201},
        {"filter": "a ready>many"},
        {"first": -1},
        {"first": (1 << 64) - 1},
        {"count": 501},
        {"count": "many"},
        {"other": 1},
    ],
)
def test_parameters_that_make_no_sense_are_refused(params: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        _table().subscribe(params, _nothing)


def test_pages_with_one_order_share_one_list() -> None:
    table = _table(("/", "a", 1))
    one = table.subscribe({"sort": ["name"], "count": 1}, _nothing)
    two = table.subscribe({"sort": ["name"], "count": 9}, _nothing)
    assert len(table._lists) == 1
    table.unsubscribe(one)
    table.unsubscribe(two)
    del one, two
    assert len(table._lists) == 0
    assert not table.wanted.is_set()
