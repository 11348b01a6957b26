"""The judgements of demonstrators who mark the same submission without seeing each other's."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "10"
down_revision = "9"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table as it was in this version, independent of schema.py."""
    op.create_table(
        "judgements",
        sa.Column("item", sa.Integer, sa.ForeignKey("inbox.id"), primary_key=True, autoincrement=False),
        sa.Column("who", sa.String(200), primary_key=True),
        sa.Column("at", sa.String(40), nullable=False),
        sa.Column("mark", sa.Float, nullable=False),
        sa.Column("out_of", sa.Float),
        sa.Column("feedback", sa.Text),
        sa.Column("comments", sa.Text, nullable=False),
    )
