"""Requests for another look at a mark."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "4"
down_revision = "3"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table as it was in this version, independent of schema.py."""
    op.create_table(
        "requests",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("submission", sa.String(64), nullable=False),
        sa.Column("message", sa.String(300), nullable=False, unique=True),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("asked_at", sa.String(40), nullable=False),
        sa.Column("answer", sa.String(20)),
        sa.Column("role", sa.String(20)),
        sa.Column("who", sa.Text),
        sa.Column("remark", sa.Text),
        sa.Column("answered_at", sa.String(40)),
    )
    op.create_index("requests_of_submission", "requests", ["submission"])
