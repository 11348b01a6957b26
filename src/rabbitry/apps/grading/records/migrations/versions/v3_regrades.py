"""Marking again: the other fields of what was handed in, and the runs with their submissions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "3"
down_revision = "2"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column and the tables as they were in this version, independent of schema.py."""
    op.add_column("submissions", sa.Column("reopened_at", sa.Integer, nullable=False, server_default="0"))
    op.create_table(
        "handed_in",
        sa.Column("submission", sa.String(64), primary_key=True),
        sa.Column("fields", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "regrades",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("selection", sa.Text, nullable=False),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("remark", sa.Text, nullable=False),
        sa.Column("begun_at", sa.String(40), nullable=False),
        sa.Column("ended_at", sa.String(40)),
    )
    op.create_table(
        "regraded",
        sa.Column("regrade", sa.Integer, sa.ForeignKey("regrades.id"), primary_key=True, autoincrement=False),
        sa.Column("submission", sa.String(64), primary_key=True),
        sa.Column("is_done", sa.Integer, nullable=False, server_default="0"),
    )
