"""The role that each route needs, checked by one dependency of all routes of the dashboard."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from fastapi import APIRouter
from fastapi.routing import APIRoute, APIWebSocketRoute
from starlette.requests import HTTPConnection
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from rabbitry.apps import Role, user_of
from rabbitry.apps.exceptions import PluginError
from rabbitry.apps.users import role_needed
from rabbitry.exceptions import RabbitryError

_OF_APPS: Final = {"GET": Role.VIEWER, "HEAD": Role.VIEWER, "POST": Role.OPERATOR}
"""The roles that routes of apps need if they name none, by HTTP method. Other methods need an admin."""


class Forbidden(RabbitryError):
    """The user lacks the role that a route needs."""

    def __init__(self, needed: Role, has: Role) -> None:
        super().__init__(f"this needs the role {needed.label}, and you have the role {has.label}")


class Roles:
    """The roles that routes need. A route that names none needs an admin, except for those of apps."""

    def __init__(self) -> None:
        self._of_apps: set[object] = set()

    def add_app(self, router: APIRouter) -> None:
        """Add the routes of an app, before they are included.

        Raises:
            PluginError: A route is of a kind whose dependencies FastAPI does not run, such as a mount.
        """
        for route in _routes(router.routes):
            if not isinstance(route, APIRoute | APIWebSocketRoute):
                path = getattr(route, "path", "?")
                raise PluginError(
                    f"the route {path!r} is a {type(route).__name__}, whose role can't be checked: "
                    "add it with add_api_route or add_api_websocket_route"
                )
            self._of_apps.add(route.endpoint)

    def needed(self, endpoint: object, method: str | None) -> Role:
        """Return the role that a route needs.

        Args:
            endpoint: The route's function.
            method: The request's method; None for a WebSocket.
        """
        named = role_needed(endpoint)
        if named is not None:
            return named
        if endpoint not in self._of_apps:
            return Role.ADMIN
        return _OF_APPS.get(method or "GET", Role.ADMIN)

    async def check(self, connection: HTTPConnection) -> None:
        """Raise Forbidden if the user may not use the route: a dependency of all routes."""
        scope = connection.scope
        require(connection, self.needed(scope.get("endpoint"), scope.get("method")))


def require(connection: HTTPConnection, needed: Role) -> None:
    """Raise Forbidden unless the user who sent a request has a role.

    Args:
        connection: The request or WebSocket.
        needed: The role.
    """
    has = user_of(connection).role
    if has < needed:
        raise Forbidden(needed, has)


def files_for(role: Role, app: ASGIApp) -> ASGIApp:
    """Return an ASGI application that serves files to users with a role.

    Args:
        role: The role.
        app: The application that serves the files to anyone.
    """

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        require(HTTPConnection(scope), role)
        await app(scope, receive, send)

    return serve


def _routes(routes: Sequence[BaseRoute]) -> Iterator[BaseRoute]:
    """Yield the routes of a router, and those of the routers in it."""
    for route in routes:
        # FastAPI copies an included router's routes, or since 0.13x keeps the router.
        inner = getattr(route, "original_router", None)
        if isinstance(inner, APIRouter):
            yield from _routes(inner.routes)
        else:
            yield route
