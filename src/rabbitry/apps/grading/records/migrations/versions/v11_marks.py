"""The marks of several demonstrators with their criteria."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "11"
down_revision = "10"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns as they were in this version, independent of schema.py."""
    op.add_column("history", sa.Column("marks", sa.Text))
    op.add_column("judgements", sa.Column("criteria", sa.Text, nullable=False, server_default="[]"))
