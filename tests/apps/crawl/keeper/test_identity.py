"""The identity of a crawl: a keeper takes only messages that belong to its own database."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rabbitry.apps.crawl.keeper import identity
from rabbitry.apps.crawl.keeper.database import Database
from rabbitry.apps.crawl.keeper.inputs import Asked, Input, Page
from rabbitry.apps.crawl.keeper.keeper import Keeper
from rabbitry.apps.crawl.messages import Add, Document, Outcome, Report
from rabbitry.apps.exceptions import RecordsError
from tests.apps.crawl.keeper.simulation import FakeIndex

URL = "http://a.test/"
NOW = 1_000_000.0
MESSAGES: dict[str, Callable[[str], Input]] = {
    "page": lambda batch: Page(url=URL, fetched_at=NOW, body=b"zstd", batch=batch),
    "outcome": lambda batch: Outcome(batch, URL, "client-error", NOW, "c1"),
    "report": lambda batch: Report(batch, URL, "c1", NOW, 0.0),
    "document": lambda batch: Document(URL, NOW, "p1", batch=batch),
}


def test_each_database_has_an_id_that_its_batches_carry(database: Database, tmp_path: Path) -> None:
    crawl = database.read_now(identity.of)
    with Database(f"sqlite:///{tmp_path / 'other.sqlite3'}") as other:
        assert other.read_now(identity.of) != crawl
    keeper = Keeper("a3f", FakeIndex())
    asked = Asked(Add([URL], delay=0.0), "m1")
    (batch,) = database.write_now(lambda connection: keeper.apply(connection, [asked], NOW)).batches
    assert batch.id.startswith(f"{crawl}.")


@pytest.mark.parametrize("kind", MESSAGES)
def test_a_message_of_another_crawl_changes_nothing(kind: str, database: Database) -> None:
    keeper, asked = Keeper("a3f", FakeIndex()), Asked(Add([URL], delay=0.0), "m1")
    foreign = MESSAGES[kind](identity.new_batch_id("0" * 8))
    with pytest.raises(RecordsError, match="of crawl 00000000"):
        database.write_now(lambda connection: keeper.apply(connection, [asked, foreign], NOW))
    keeper.forget()
    for batch in ("", "b1", "some.batch", identity.new_batch_id(database.read_now(identity.of))):
        decided = database.write_now(lambda connection, b=batch: keeper.apply(connection, [MESSAGES[kind](b)], NOW))  # type: ignore[misc] # called at once
        assert not decided.answers
