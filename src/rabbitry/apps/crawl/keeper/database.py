"""The crawl's database. Its tables are described in `migrations/versions/`; statements are SQL, set by set."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from rabbitry.apps import _records

SCHEMA: Final = _records.Schema(
    "crawl",
    Path(__file__).parent / "migrations",
    head="2",
    version_table="crawl_version",
    lock=7_723_012,
    # Four connections read, for which the system's memory serves as well.
    pragmas=("cache_size = -4096", "temp_store = MEMORY"),
    # Links are looked up all over the seen set: 40 MiB of it in memory, and larger pieces written back at once.
    writer_pragmas=("cache_size = -40960", "temp_store = MEMORY", "wal_autocheckpoint = 8000"),
)


def default_url() -> str:
    """Return RABBITRY_DATABASE, or SQLite in the user's data folder."""
    return SCHEMA.default_url()


class Database(_records.Database):
    """A crawl's database. A context manager; entering brings the schema up to date."""

    def __init__(self, url: str | None = None, *, existing: bool = False) -> None:
        """Raise UsageError for a URL that is none, or another database's; existing: nothing is made."""
        super().__init__(SCHEMA, url, existing=existing)
