"""The errors that all apps share: of plug-ins and records."""

from __future__ import annotations

from rabbitry.exceptions import RabbitryError, UsageError


class PluginError(UsageError):
    """A plug-in is malformed, or names code that does not exist."""


class RecordsError(RabbitryError):
    """An application's database can't be reached or used. The text names it, without a password."""


class NoRecords(RecordsError):
    """An application's database does not exist or holds no records. Reading does not create it."""
