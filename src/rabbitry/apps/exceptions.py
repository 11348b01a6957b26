"""The errors that all apps share: of plug-ins and records."""

from __future__ import annotations

from rabbitry.exceptions import RabbitryError, UsageError


class PluginError(UsageError):
    """A plug-in is malformed, or names code that does not exist."""


class Forbidden(RabbitryError):
    """A user lacks the role that a route, or a part of what it does, needs."""

    def __init__(self, needed: str, has: str) -> None:
        super().__init__(f"this needs the role {needed}, and you have the role {has}")


class InvitationRefused(RabbitryError):
    """There is no invitation with a given token."""

    def __init__(self) -> None:
        super().__init__("this link was used already, was replaced, or has expired: ask for a new one")


class RecordsError(RabbitryError):
    """An application's database can't be reached or used. The text names it, without a password."""


class RecordsAway(RecordsError):
    """An application's database can't be used for the moment: another program keeps it locked, or it is unreachable."""


class NoRecords(RecordsError):
    """An application's database does not exist or holds no records. Reading does not create it."""
