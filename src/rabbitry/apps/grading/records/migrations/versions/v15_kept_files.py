"""The kept files and the bytes that they take."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "15"
down_revision = "14"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table as it was in this version, independent of schema.py. A coordinator fills it when it starts."""
    op.create_table(
        "kept_files",
        sa.Column("sha256", sa.String(64), primary_key=True),
        sa.Column("packed", sa.BigInteger, nullable=False),
    )
