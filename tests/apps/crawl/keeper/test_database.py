"""The tables of the crawl, in a database that another app may share."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine, event, text

from rabbitry.apps.crawl.keeper import index, reading
from rabbitry.apps.crawl.keeper.addresses import parse
from rabbitry.apps.crawl.keeper.database import Database
from rabbitry.apps.crawl.keeper.keeper import Keeper
from rabbitry.apps.crawl.keeper.outcomes import refusal, refused
from rabbitry.apps.crawl.keeper.state import load
from rabbitry.apps.crawl.keeper.work import Work
from rabbitry.apps.grading.records import Database as Grading
from tests.apps.crawl.keeper.simulation import World, web


def test_a_new_database_has_one_row_for_the_active_keeper(database: Database) -> None:
    def rows(connection: Connection) -> list[tuple[object, ...]]:
        return [tuple(row) for row in connection.execute(text("SELECT id, epoch, is_paused FROM crawl_keeper"))]

    assert database.read_now(rows) == [(1, 0, 0)]


def test_a_seen_address_takes_at_most_twenty_bytes(tmp_path: Path) -> None:
    file = tmp_path / "crawl.sqlite3"
    chance = random.Random(1)
    hosts = [f"h{number}.test" for number in range(200)]
    count = 200_000
    with Database(f"sqlite:///{file}") as database:

        def size(connection: Connection) -> int:
            pages = connection.execute(text("PRAGMA page_count")).scalar_one()
            return int(pages * connection.execute(text("PRAGMA page_size")).scalar_one())

        empty = database.read_now(size)
        for start in range(0, count, 5_000):

            def see(connection: Connection, start: int = start) -> None:
                work = Work(connection, load(connection, 1), 1.8e9, "keeper a3f")
                for number in range(start, start + 5_000):
                    work.refuse_key(parse(f"http://{chance.choice(hosts)}/{number}").key, "out-of-scope")
                work.flush()

            database.write_now(see)
        assert (database.read_now(size) - empty) / count <= 20


def test_a_refusal_is_kept_with_its_time() -> None:
    word, at = refused(refusal("too-deep", 1.8e9))
    assert word == "too-deep"
    assert 0 <= 1.8e9 - at < 600
    assert -(1 << 23) <= refusal("given-up", 1.84e9) < 0


def test_two_apps_share_a_database(database_url: str) -> None:
    with Grading(database_url), Database(database_url):
        pass
    with Database(database_url, existing=True), Grading(database_url, existing=True):
        pass


@contextmanager
def noting(found: dict[str, object]) -> Iterator[None]:
    """Record each executed statement with its parameters."""

    def note(
        connection: Connection, cursor: object, statement: str, values: object, context: object, many: bool
    ) -> None:
        found.setdefault(statement, values[0] if many and isinstance(values, list) else values)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield
    finally:
        event.remove(Engine, "before_cursor_execute", note)


def scans(connection: Connection, statements: dict[str, object]) -> set[str]:
    """Return the tables that statements scan as a whole; a list of values and a query's limited rows are none."""
    found = set()
    for statement, values in statements.items():
        if statement.split()[0] in ("SELECT", "INSERT", "UPDATE", "DELETE", "WITH"):
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)  # type: ignore[arg-type] # as it was executed
            found |= {row[3].split()[1] for row in plan if row[3].startswith("SCAN ")}
    return found - {"json_each", "next"}


def test_no_transaction_of_a_keeper_looks_through_a_table(simple: Database) -> None:
    world = World(simple, web(hosts=3, pages=20))
    world.keeper = Keeper("one", index)
    world.add("http://h0.test/", recrawl=40_000.0)
    world.run(most=8)  # at its start it reads everything that it keeps in memory
    executed: dict[str, object] = {}
    with noting(executed):
        world.run(most=150)
    assert any(statement.startswith("DELETE FROM crawl_later") for statement in executed), "pages are fetched again"
    assert simple.read_now(lambda connection: scans(connection, executed)) == set()


def test_only_the_table_of_hosts_is_looked_through_to_list_them(simple: Database) -> None:
    world = World(simple, web(hosts=3, pages=20))
    world.add("http://h0.test/")
    world.run(most=8)
    executed: dict[str, object] = {}
    with noting(executed):
        simple.read_now(lambda connection: reading.hosts(connection, 20))
        simple.read_now(lambda connection: reading.why(connection, "http://h0.test/p/1", world.now))
    # The log of new addresses is searched as bytes; its size is bounded.
    found = simple.read_now(lambda connection: scans(connection, executed))
    assert found - {"crawl_seen_log"} == {"crawl_hosts", "h"}


def test_the_words_of_a_transaction_are_written_together(tmp_path: Path) -> None:
    # With FTS5's default of 1 MiB, the words of 64 long documents are written in several pieces, to be merged later.
    assert _setting(tmp_path, "hashsize") >= 8 << 20


def test_the_words_of_few_transactions_are_not_merged_yet(tmp_path: Path) -> None:
    # With FTS5's defaults of 4 and 16, each word is written again and again.
    assert (_setting(tmp_path, "automerge"), _setting(tmp_path, "crisismerge")) == (16, 32)


def _setting(folder: Path, name: str) -> int:
    """Return a setting of the index of words of a new database."""
    with Database(f"sqlite:///{folder / f'{name}.sqlite3'}") as database:
        found = text("SELECT v FROM index_words_config WHERE k = :name")
        return int(database.read_now(lambda connection: connection.execute(found, {"name": name}).scalar_one()))
