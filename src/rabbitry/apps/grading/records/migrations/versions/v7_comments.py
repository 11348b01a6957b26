"""The comments on lines of each hop."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "7"
down_revision = "6"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column as it was in this version, independent of schema.py."""
    op.add_column("history", sa.Column("comments", sa.Text))
