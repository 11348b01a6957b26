"""Keys of shapes and contents that no two hosts share."""

from __future__ import annotations

from alembic import op

revision = "6"
down_revision = "5"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forget what hosts with the same key wrote over each other's; it is learned again from the next documents."""
    op.execute("DELETE FROM crawl_shapes")
    op.execute("DELETE FROM crawl_contents")
