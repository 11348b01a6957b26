"""A table for documents that wait to be applied."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "2"
down_revision = "1"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table."""
    # document: JSON, zstd (`backlog.py`). Rows are removed in the order of their ids; there are no gaps.
    op.create_table(
        "crawl_backlog",
        sa.Column("of_sitemaps", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("document", sa.LargeBinary, nullable=False),
    )
