"""Whether a coordinator does a run of marking again, because it was begun on the page."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "9"
down_revision = "8"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column as it was in this version, independent of schema.py."""
    op.add_column("regrades", sa.Column("by_coordinator", sa.Integer, nullable=False, server_default="0"))
