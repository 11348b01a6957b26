"""Indexes by host, for the question about hosts."""

from __future__ import annotations

from alembic import op

revision = "3"
down_revision = "2"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the indexes."""
    op.create_index("crawl_batches_host", "crawl_batches", ["host"])
    op.create_index("crawl_robots_host", "crawl_robots", ["host"])
