"""The errors that all apps share: of plug-ins and records."""

from __future__ import annotations

from rabbitry.exceptions import RabbitryError, UsageError


class PluginError(UsageError):
    """A plug-in makes no sense, or names code that is not there."""


class RecordsError(RabbitryError):
    """An application's database can't be reached or used. The text names it, without a password."""


class NoRecords(RecordsError):
    """An application's database is not there, or holds no records; whoever only reads does not make it."""
