"""The role that each route needs, checked by one dependency of all routes of the dashboard."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from fastapi import APIRouter
from fastapi.routing import APIRoute, APIWebSocketRoute
from starlette.requests import HTTPConnection
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from rabbitry.apps import Role, User, user_of
from rabbitry.apps.exceptions import Forbidden, PluginError
from rabbitry.apps.users import app_roles_of, role_needed
from rabbitry.runtime.http.origins import SAFE_METHODS

_OF_APPS: Final = {"GET": Role.VIEWER, "HEAD": Role.VIEWER, "POST": Role.OPERATOR}
"""The roles that routes of apps need if they name none, by HTTP method. Other methods need an admin."""


class Roles:
    """The roles that routes need. A route that names none needs an admin, except for those of apps.

    Args:
        is_read_only: Whether nobody may change anything, with a role in an app either.
    """

    def __init__(self, *, is_read_only: bool = False) -> None:
        self._of_apps: dict[object, str] = {}
        self._is_read_only = is_read_only

    def add_app(self, app: str, router: APIRouter) -> None:
        """Add the routes of an app, before they are included.

        Args:
            app: The name of the app's plug-in.
            router: Its routes.

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
            self._of_apps[route.endpoint] = app

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
        endpoint, method = scope.get("endpoint"), scope.get("method")
        user, needed = user_of(connection), self.needed(endpoint, method)
        app = self._of_apps.get(endpoint)
        in_app = None if app is None else user.app_role(app)
        if in_app is None:
            require(connection, needed)
            return
        may_use = app_roles_of(endpoint)
        if in_app.name not in may_use:
            raise Forbidden(" or ".join([*sorted(may_use), needed.label]), in_app.name)
        if self._is_read_only and method is not None and method not in SAFE_METHODS:
            raise Forbidden("admin of a dashboard without --read-only", in_app.name)


def require(connection: HTTPConnection, needed: Role) -> None:
    """Raise Forbidden unless the user who sent a request has a role.

    Args:
        connection: The request or WebSocket.
        needed: The role.
    """
    has = user_of(connection).role
    if has < needed:
        raise Forbidden(needed.label, has.label)


def require_to_see(user: User, app: str | None) -> None:
    """Raise Forbidden unless a user may see pages: as a viewer, or those of an app as one who has a role in it.

    Args:
        user: The user.
        app: The app; None for the dashboard's own pages.
    """
    if user.role < Role.VIEWER and (app is None or app not in user.apps):
        raise Forbidden(Role.VIEWER.label, user.role.label)


def files_of(app: str, serve_files: ASGIApp) -> ASGIApp:
    """Return an ASGI application that serves the files of an app's pages to those who may see these.

    Args:
        app: The app.
        serve_files: The application that serves the files to anyone.
    """

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        require_to_see(user_of(HTTPConnection(scope)), app)
        await serve_files(scope, receive, send)

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
