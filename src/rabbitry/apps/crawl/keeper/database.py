"""The crawl's database. `migrations/versions/` describes its tables; statements are SQL over sets of rows."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from rabbitry.apps import _records

SCHEMA: Final = _records.Schema(
    "crawl",
    Path(__file__).parent / "migrations",
    head="6",
    version_table="crawl_version",
    lock=7_723_012,
    # Four connections read; the system's page cache serves them as well. A new database has pages of 8 KiB: a page of
    # A with its text takes half as many writes as with 4 KiB; with 16 KiB, slow crawls write twice as many bytes.
    pragmas=("page_size = 8192", "cache_size = -4096", "temp_store = MEMORY"),
    # Links are looked up all over the seen set: 40 MiB of it stay in memory, and larger pieces are written at once.
    writer_pragmas=("page_size = 8192", "cache_size = -40960", "temp_store = MEMORY", "wal_autocheckpoint = 4000"),
)


def default_url() -> str:
    """Return RABBITRY_DATABASE, or SQLite in the user's data folder."""
    return SCHEMA.default_url()


class Database(_records.Database):
    """A crawl's database. A context manager; entering brings the schema up to date."""

    def __init__(self, url: str | None = None, *, existing: bool = False) -> None:
        """Check the URL. Raises UsageError if it is malformed or not a crawl's; existing: nothing is created."""
        super().__init__(SCHEMA, url, existing=existing)
