"""Databases for the tests of grading."""

from collections.abc import Iterator

import pytest

from rabbitry.apps.grading.records import Database


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """An open database."""
    with Database(database_url) as opened:
        yield opened
