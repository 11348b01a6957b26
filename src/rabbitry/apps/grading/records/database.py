"""The database of the grading roles."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from rabbitry.apps import _records
from rabbitry.apps.grading.records.schema import metadata

SCHEMA: Final = _records.Schema(
    "grading",
    Path(__file__).parent / "migrations",
    head="17",
    version_table="alembic_version",
    lock=7_723_011,
    tables=metadata,
    linger=0.01,
)


def default_url() -> str:
    """Return RABBITRY_DATABASE, or SQLite in the user's data folder."""
    return SCHEMA.default_url()


class Database(_records.Database):
    """A role's database. A context manager; entering brings the schema up to date."""

    def __init__(self, url: str | None = None, *, existing: bool = False) -> None:
        """Check the URL. Raises UsageError if it is malformed or not grading's; existing: nothing is created."""
        super().__init__(SCHEMA, url, existing=existing)
