"""Databases for the tests of the keeper."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from rabbitry.apps.crawl.keeper.database import Database


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """An open database on SQLite, then on PostgreSQL."""
    with Database(database_url) as opened:
        yield opened


@pytest.fixture
def simple(tmp_path: Path) -> Iterator[Database]:
    """A database on SQLite."""
    with Database(f"sqlite:///{tmp_path / 'crawl.sqlite3'}") as opened:
        yield opened
