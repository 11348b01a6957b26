"""The roles' database: inboxes, decisions, the outbox, and the records of the course."""

from __future__ import annotations

from rabbitry.apps.grading.records.database import Database, default_url

__all__ = ["Database", "default_url"]
