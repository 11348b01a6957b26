"""Run by Alembic: the migrations, on the given connection and in its transaction."""

from __future__ import annotations

from alembic import context

context.configure(transactional_ddl=True, **context.config.attributes)
context.run_migrations()
