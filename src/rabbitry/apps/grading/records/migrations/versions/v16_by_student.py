"""The index with which a module is gone through student by student."""

from __future__ import annotations

from alembic import op

revision = "16"
down_revision = "15"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the index."""
    op.create_index("submissions_by_student", "submissions", ["module", "student", "id"])
