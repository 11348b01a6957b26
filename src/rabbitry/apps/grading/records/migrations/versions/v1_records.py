"""The first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "1"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables as they were in this version, independent of schema.py."""
    _make_records()
    _make_inbox()
    _make_outbox()


def _make_records() -> None:
    op.create_table(
        "submissions",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("student", sa.String(200), nullable=False),
        sa.Column("module", sa.String(200), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("status", sa.String(200), nullable=False),
        sa.Column("step", sa.Integer, nullable=False),
        sa.Column("mark", sa.Float),
        sa.Column("out_of", sa.Float),
        sa.Column("feedback", sa.Text),
        sa.Column("submitted_at", sa.String(40), nullable=False),
        sa.Column("updated_at", sa.String(40), nullable=False),
        sa.Column("confirmed_by", sa.String(300)),
    )
    op.create_index("submissions_of_student", "submissions", ["student", "module", "submitted_at"])
    op.create_index("submissions_by_status", "submissions", ["status"])
    op.create_index("submissions_by_update", "submissions", ["updated_at"])
    op.create_table(
        "history",
        sa.Column("submission", sa.String(64), primary_key=True),
        sa.Column("step", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("role", sa.String(200), nullable=False),
        sa.Column("status", sa.String(200), nullable=False),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("place", sa.Text, nullable=False),
        sa.Column("at", sa.String(40), nullable=False),
        sa.Column("mark", sa.Float),
        sa.Column("out_of", sa.Float),
        sa.Column("feedback", sa.Text),
        sa.Column("remark", sa.Text),
    )


def _make_inbox() -> None:
    op.create_table(
        "inbox",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("role", sa.String(20), nullable=False),
        sa.Column("submission", sa.String(64), nullable=False),
        sa.Column("step", sa.Integer, nullable=False),
        sa.Column("student", sa.String(200), nullable=False),
        sa.Column("module", sa.String(200), nullable=False),
        sa.Column("exchange", sa.String(255), nullable=False),
        sa.Column("message", sa.String(300), nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("arrived_at", sa.String(40), nullable=False),
        sa.UniqueConstraint("role", "submission", "step", name="inbox_once"),
    )
    op.create_table(
        "decisions",
        sa.Column("item", sa.Integer, sa.ForeignKey("inbox.id"), primary_key=True, autoincrement=False),
        sa.Column("action", sa.String(20), nullable=False),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("at", sa.String(40), nullable=False),
        sa.Column("mark", sa.Float),
        sa.Column("out_of", sa.Float),
        sa.Column("text", sa.Text),
    )


def _make_outbox() -> None:
    op.create_table(
        "outbox",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("role", sa.String(20), nullable=False),
        sa.Column("exchange", sa.String(255), nullable=False),
        sa.Column("key", sa.String(255), nullable=False),
        sa.Column("required", sa.Integer, nullable=False),
        sa.Column("message", sa.String(64), nullable=False, unique=True),
        sa.Column("submission", sa.String(64), nullable=False),
        sa.Column("type", sa.String(40), nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.String(40), nullable=False),
        sa.Column("claimed_until", sa.Float, nullable=False, server_default="0"),
    )
