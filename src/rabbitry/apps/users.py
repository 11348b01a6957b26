"""Roles of the dashboard's users, and how a route names the one that it needs."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from rabbitry.runtime.addresses import is_loopback

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection

F = TypeVar("F", bound=Callable[..., object])
USER: Final = "rabbitry.user"
"""The key of a request's scope with its `User`."""
_ATTRIBUTE: Final = "__rabbitry_role__"


class Role(enum.IntEnum):
    """The rights of a person in the dashboard. Each role has the rights of those before it."""

    ANYONE = 0
    """A person who has not signed in."""
    VIEWER = 1
    """See everything but messages."""
    OPERATOR = 2
    """Pause, resume, replay, look at messages."""
    ADMIN = 3
    """Purge, delete, drop, declare, bind, close connections."""

    @property
    def label(self) -> str:
        """The role's name in texts, files and options."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class User:
    """The person who sent a request to the dashboard.

    Attributes:
        name: The name that they signed in with; empty if no login is needed.
        role: The person's rights.
        address: The address that the request came from.
        is_shared: Whether they signed in with the shared password, APP_PASSWORD: the name may be any then.
    """

    name: str
    role: Role
    address: str
    is_shared: bool = False

    @property
    def who(self) -> str:
        """Name and address, for the audit log."""
        where = "this machine" if is_loopback(self.address) else self.address
        shared = " (shared password)" if self.is_shared else ""
        return f"{self.name}{shared}, {where}" if self.name or shared else where


def needs(role: Role) -> Callable[[F], F]:
    """Return a decorator that names the role which a route of the dashboard needs.

    Put it on the function (or method) that handles the route, below the router's own decorator.

    Args:
        role: The least role that may use the route.
    """

    def mark(endpoint: F) -> F:
        setattr(endpoint, _ATTRIBUTE, role)
        return endpoint

    return mark


def role_needed(endpoint: object) -> Role | None:
    """Return the role that `needs` named for a route's function; None if it named none."""
    found: Role | None = getattr(endpoint, _ATTRIBUTE, None)
    return found


def user_of(connection: HTTPConnection) -> User:
    """Return the person who sent a request or opened a WebSocket of the dashboard.

    Args:
        connection: The request or WebSocket.

    Returns:
        The user. Outside of the dashboard, in a router's own tests, it is an admin.
    """
    found: User | None = connection.scope.get(USER)
    return found or User("", Role.ADMIN, "127.0.0.1")
