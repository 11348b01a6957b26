"""Indexes in the order of the page's lists, with which no list of submissions is sorted."""

from __future__ import annotations

from alembic import op

revision = "13"
down_revision = "12"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Replace two indexes of one column each, and add that of a module's submissions."""
    for name, columns in (
        ("submissions_by_update", ["updated_at", "id"]),
        ("submissions_by_status", ["status", "updated_at", "id"]),
    ):
        op.drop_index(name, "submissions")
        op.create_index(name, "submissions", columns)
    op.create_index("submissions_of_module", "submissions", ["module", "updated_at", "id", "status"])
