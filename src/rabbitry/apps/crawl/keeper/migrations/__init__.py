"""Alembic's migrations of the crawl's database."""
