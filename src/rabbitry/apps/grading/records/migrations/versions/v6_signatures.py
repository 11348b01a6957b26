"""Who signed each hop, and why one is not taken as signed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "6"
down_revision = "5"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns as they were in this version, independent of schema.py."""
    op.add_column("history", sa.Column("signer", sa.Text))
    op.add_column("history", sa.Column("doubt", sa.Text))
