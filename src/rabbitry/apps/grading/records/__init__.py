"""The database of the roles: inboxes, decisions, what is to be published, and the records of the course."""

from __future__ import annotations

from rabbitry.apps.grading.records.database import Database, default_url

__all__ = ["Database", "default_url"]
