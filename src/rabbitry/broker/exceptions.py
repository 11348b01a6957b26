"""The errors that end a broker."""

from __future__ import annotations

from rabbitry.exceptions import RabbitryError


class ManagementFailed(RabbitryError):
    """The management API can't be loaded."""


class StoreFailed(RabbitryError):
    """The store can't be opened, read or written; pending writes may or may not be stored."""
