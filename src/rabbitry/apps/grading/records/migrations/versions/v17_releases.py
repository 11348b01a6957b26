"""When the results of modules are released, and the results that wait for it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "17"
down_revision = "16"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the tables as they were in this version, independent of schema.py."""
    op.create_table(
        "releases",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("module", sa.String(200), nullable=False),
        sa.Column("until", sa.String(40), nullable=False),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("at", sa.String(40), nullable=False),
        sa.Column("remark", sa.Text, nullable=False),
    )
    op.create_index("releases_of_module", "releases", ["module", "id"])
    op.create_table(
        "held_results",
        sa.Column("submission", sa.String(64), primary_key=True),
        sa.Column("module", sa.String(200), nullable=False),
        sa.Column("exchange", sa.String(255), nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
    )
