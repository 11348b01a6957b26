"""The crawl's database: its tables, beside those of another app."""

import random
from pathlib import Path

from sqlalchemy import Connection, text

from rabbitry.apps.crawl.keeper.addresses import parse
from rabbitry.apps.crawl.keeper.database import Database
from rabbitry.apps.crawl.keeper.outcomes import refusal, refused
from rabbitry.apps.crawl.keeper.state import load
from rabbitry.apps.crawl.keeper.work import Work
from rabbitry.apps.grading.records import Database as Grading


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
