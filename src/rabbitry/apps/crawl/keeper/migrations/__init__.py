"""Alembic's migrations of the records, oldest first in versions."""
