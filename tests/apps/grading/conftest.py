"""Databases for the tests of grading."""

from collections.abc import Iterator

import pytest

from rabbitry.apps.grading import students
from rabbitry.apps.grading.records import Database
from tests.support.waiting import WITHIN


@pytest.fixture(autouse=True)
def _patient_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Accept late answers of a coordinator, as a busy machine gives them."""
    monkeypatch.setattr(students, "ANSWER_WITHIN", WITHIN)


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """An open database."""
    with Database(database_url) as opened:
        yield opened
