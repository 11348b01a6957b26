"""The set of seen addresses: new ones are in memory and in a log, and move to the table in slices."""

import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Row

from rabbitry.apps.crawl.keeper import bloom, seen, sets
from rabbitry.apps.crawl.keeper.database import Database
from rabbitry.apps.crawl.keeper.seen import Seen, ref_of
from tests.apps.crawl.keeper.simulation import MISSING, Answered, World, words


@pytest.fixture(autouse=True)
def _small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seen, "_SLICE", 7)
    monkeypatch.setattr(seen, "MOST", 40)
    monkeypatch.setattr(seen, "_READ", 11)
    monkeypatch.setattr(bloom, "_SMALLEST", 1)  # it is full with six keys


def logged(connection: Connection) -> int:
    """Return the number of rows of the log."""
    return int(connection.exec_driver_sql("SELECT count(*) FROM crawl_seen_log").scalar_one())


def moved(connection: Connection) -> dict[int, int]:
    """Return the addresses that moved to the table."""
    rows = connection.exec_driver_sql("SELECT key, ref FROM crawl_seen").all()
    return {int(key): int(ref) for key, ref in rows}


def test_every_key_is_found_after_moves_and_by_the_next_keeper(database: Database) -> None:
    chance = random.Random(3)
    truth: dict[int, int] = {}
    one = Seen()

    def change(connection: Connection) -> None:
        nonlocal one
        for _ in range(chance.randrange(3)):
            refs = {chance.randrange(-400, 400): chance.randrange(-9, 1000) or 1 for _ in range(chance.randrange(30))}
            one.put(connection, refs)
            truth.update(refs)
        one.tend(connection)
        if chance.random() < 0.1:
            one = Seen()
            one.load(connection)
        keys = [chance.randrange(-400, 400) for _ in range(50)]
        assert one.look_up(connection, keys) == {key: truth.get(key, 0) for key in keys}
        assert [ref_of(connection, key) for key in keys[:5]] == [truth.get(key, 0) for key in keys[:5]]

    for _ in range(60):
        database.write_now(change)


def test_new_keys_are_not_looked_up_in_the_table_once_the_filter_has_all_of_it(database: Database) -> None:
    chance = random.Random(4)
    old, new = ([chance.getrandbits(56) for _ in range(200)] for _ in range(2))
    looked_up: list[int] = []
    rows_among = sets.rows_among

    def look(connection: Connection, statement: str, numbers: Iterable[int]) -> Sequence[Row[*tuple[Any, ...]]]:
        looked_up.extend(wanted := list(numbers))
        return rows_among(connection, statement, wanted)

    def fill(connection: Connection) -> None:
        one = Seen()
        one.put(connection, dict.fromkeys(old, 5))
        for _ in range(40):
            one.tend(connection)
        assert moved(connection).keys() == set(old)

    def ask(connection: Connection) -> None:
        one = Seen()
        one.load(connection)
        times = 0
        while not one.is_covered:
            one.tend(connection)
            times += 1
            assert one.look_up(connection, [*old, *new]) == dict.fromkeys(old, 5) | dict.fromkeys(new, 0)
        assert times > 200 / 11, "it was read in slices"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sets, "rows_among", look)
            assert one.look_up(connection, [*old, *new]) == dict.fromkeys(old, 5) | dict.fromkeys(new, 0)
        assert set(old) <= set(looked_up)
        assert len(looked_up) < 200 + 20

    database.write_now(fill)
    database.write_now(ask)


def test_every_row_is_moved_in_the_end_and_the_log_is_empty(database: Database) -> None:
    one = Seen()

    def fill(connection: Connection) -> None:
        one.put(connection, {key: key + 1 for key in range(30)})
        one.tend(connection)
        assert moved(connection) == {}
        one.put(connection, dict.fromkeys(range(20, 80), -3))

    database.write_now(fill)
    for _ in range(20):
        database.write_now(one.tend)
    expected = {key: key + 1 for key in range(20)} | dict.fromkeys(range(20, 80), -3)
    assert database.read_now(moved) == expected
    assert database.read_now(logged) == 0


def test_rows_added_during_a_move_stay_in_the_log(database: Database) -> None:
    one = Seen()

    def begin(connection: Connection) -> None:
        one.put(connection, dict.fromkeys(range(50), 5))
        one.tend(connection)
        one.put(connection, {1000: 6, 49: 7})

    database.write_now(begin)
    for _ in range(10):
        database.write_now(one.tend)

    def look(connection: Connection) -> None:
        assert logged(connection) == 1
        assert moved(connection).keys() == set(range(50))
        again = Seen()
        again.load(connection)
        for known in (one, again):
            assert known.look_up(connection, [0, 49, 1000, 1001]) == {0: 5, 49: 7, 1000: 6, 1001: 0}

    database.read_now(look)


def test_a_transaction_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    def fail(connection: Connection) -> None:
        one.put(connection, {1: 2})
        raise LookupError("the disk is gone")

    with Database(f"sqlite:///{tmp_path / 'crawl.sqlite3'}") as database:
        one = Seen()
        with pytest.raises(LookupError):
            database.write_now(fail)
        assert database.read_now(lambda connection: ref_of(connection, 1)) == 0


def test_a_crawl_whose_addresses_are_moved_all_the_time_fetches_each_once(tmp_path: Path) -> None:
    links = [f"http://a.test/{number}" for number in range(100)]
    pages = {link: Answered(words(link), links[number : number + 20]) for number, link in enumerate(links)}
    with Database(f"sqlite:///{tmp_path / 'crawl.sqlite3'}") as database:
        world = World(database, lambda url: pages.get(url, MISSING))
        world.add("http://a.test/0")
        for _ in range(10):
            world.run(1)
            world.keeper.forget()
        world.run()
        assert len(world.index.stored) == 100
        assert set(world.requests().values()) == {1}
        assert database.read_now(moved)
