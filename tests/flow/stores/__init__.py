"""Tests of rabbitry.flow._stores: the stores of joins and of done keys, each on SQLite, PostgreSQL and Redis."""
