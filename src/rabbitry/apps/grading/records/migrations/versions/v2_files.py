"""The files as they were handed in: the hash of each, and where they are kept."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "2"
down_revision = "1"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns and the table as they were in this version, independent of schema.py."""
    op.add_column("submissions", sa.Column("sha256", sa.String(64)))
    op.add_column("submissions", sa.Column("size", sa.Integer))
    op.create_table(
        "settings",
        sa.Column("name", sa.String(40), primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )
