"""The crawl's database: its tables, beside those of another app."""

from sqlalchemy import Connection, text

from rabbitry.apps.crawl.keeper.database import Database
from rabbitry.apps.grading.records import Database as Grading


def test_a_new_database_has_one_row_for_the_active_keeper(database: Database) -> None:
    def rows(connection: Connection) -> list[tuple[object, ...]]:
        return [tuple(row) for row in connection.execute(text("SELECT id, epoch, is_paused FROM crawl_keeper"))]

    assert database.read_now(rows) == [(1, 0, 0)]


def test_two_apps_share_a_database(database_url: str) -> None:
    with Grading(database_url), Database(database_url):
        pass
    with Database(database_url, existing=True), Grading(database_url, existing=True):
        pass
