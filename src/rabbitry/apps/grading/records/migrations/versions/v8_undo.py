"""The decision of each entry of the outbox, and until when it is held there to be taken back."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "8"
down_revision = "7"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns as they were in this version, independent of schema.py."""
    op.add_column("outbox", sa.Column("item", sa.Integer))
    op.add_column("outbox", sa.Column("held_until", sa.Float, nullable=False, server_default="0"))
    op.create_index("outbox_of_item", "outbox", ["item"])
