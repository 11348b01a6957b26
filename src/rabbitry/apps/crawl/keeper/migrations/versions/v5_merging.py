"""Rarer merging of the segments of SQLite's index of words."""

from __future__ import annotations

from typing import Final

from alembic import op

revision = "5"
down_revision = "4"
branch_labels = None
depends_on = None

_SETTINGS: Final = {"automerge": 16, "crisismerge": 32}
"""Segments of one age that are merged bit by bit, and those that are merged at once: 4 and 16 with FTS5's defaults, 8
and 16 in earlier databases, in which words are written more often. For 9,000 documents of 48,000 characters, 60 in a
transaction, indexing took 1.2 to 1.4 ms of CPU each in these, and takes 1.0 ms.
"""


def upgrade() -> None:
    """Set them; the database keeps them. PostgreSQL has no such settings."""
    if op.get_bind().dialect.name == "sqlite":
        for name, number in _SETTINGS.items():
            op.execute(f"INSERT INTO index_words (index_words, rank) VALUES ('{name}', {number})")  # noqa: S608 # constants
