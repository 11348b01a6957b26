"""Tests of the pytest plugin, and of the snippets that docs/testing.md shows."""
