"""The errors with which a broker ends."""

from __future__ import annotations

from rabbitry.exceptions import RabbitryError


class ManagementFailed(RabbitryError):
    """The management API can't be loaded."""


class StoreFailed(RabbitryError):
    """The store can't be opened, read or written; what it was asked to write may or may not be there."""
