"""Indexes by which PostgreSQL finds ids and students by their beginnings, whatever its locale."""

from __future__ import annotations

from alembic import op

revision = "5"
down_revision = "4"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the indexes; SQLite searches those that it has."""
    if op.get_bind().dialect.name != "postgresql":
        return
    for column in ("id", "student"):
        pattern = {column: "text_pattern_ops"}
        op.create_index(f"submissions_{column}_begins", "submissions", [column], postgresql_ops=pattern)
