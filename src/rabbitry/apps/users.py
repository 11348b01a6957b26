"""Roles of the dashboard's users, and how a route names those that may use it."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
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
    MEMBER = 1
    """Use the apps in which the user has a role, and nothing else."""
    VIEWER = 2
    """See everything but messages."""
    OPERATOR = 3
    """Pause, resume, replay, look at messages."""
    ADMIN = 4
    """Purge, delete, drop, declare, bind, close connections."""

    @property
    def label(self) -> str:
        """The role's name in texts, files and options."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class AppRole:
    """A user's role in one app, such as that of a student. The app defines the names and what the scope means.

    Attributes:
        name: The role.
        scope: What the role is limited to, such as a student's number.
    """

    name: str
    scope: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class User:
    """The person who sent a request to the dashboard.

    Attributes:
        name: The name that they signed in with; empty if no login is needed.
        role: The person's rights.
        address: The address that the request came from.
        is_shared: Whether they signed in with the shared password, APP_PASSWORD: the name may be any then.
        apps: App → the user's role in it. There it counts instead of `role`, except for an admin.
    """

    name: str
    role: Role
    address: str
    is_shared: bool = False
    apps: Mapping[str, AppRole] = field(default_factory=dict)

    @property
    def who(self) -> str:
        """Name and address, for the audit log."""
        where = "this machine" if is_loopback(self.address) else self.address
        shared = " (shared password)" if self.is_shared else ""
        return f"{self.name}{shared}, {where}" if self.name or shared else where

    def app_role(self, app: str) -> AppRole | None:
        """Return the user's role in an app; None if the role in the dashboard counts there.

        Args:
            app: The name of the app's plug-in.
        """
        return None if self.role is Role.ADMIN else self.apps.get(app)


def needs(role: Role, *app_roles: str) -> Callable[[F], F]:
    """Return a decorator that names the roles which may use a route of the dashboard.

    Put it on the function (or method) that handles the route, below the router's own decorator.

    Args:
        role: The least role in the dashboard that may use the route.
        app_roles: The roles in the route's app that may use it. Users who have a role in the app need one of these,
            unless they are admins.
    """

    def mark(endpoint: F) -> F:
        setattr(endpoint, _ATTRIBUTE, (role, frozenset(app_roles)))
        return endpoint

    return mark


def role_needed(endpoint: object) -> Role | None:
    """Return the role that `needs` named for a route's function; None if it named none."""
    found: tuple[Role, frozenset[str]] | None = getattr(endpoint, _ATTRIBUTE, None)
    return None if found is None else found[0]


def app_roles_of(endpoint: object) -> frozenset[str]:
    """Return the roles in its app that `needs` named for a route's function."""
    found: tuple[Role, frozenset[str]] | None = getattr(endpoint, _ATTRIBUTE, None)
    return frozenset() if found is None else found[1]


def user_of(connection: HTTPConnection) -> User:
    """Return the person who sent a request or opened a WebSocket of the dashboard.

    Args:
        connection: The request or WebSocket.

    Returns:
        The user. Outside of the dashboard, in a router's own tests, it is an admin.
    """
    found: User | None = connection.scope.get(USER)
    return found or User("", Role.ADMIN, "127.0.0.1")
