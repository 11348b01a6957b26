"""Checks of a request's origin, before any password: a web page must not use this API through a browser.

The broker's default login is public knowledge, but may be used from this machine only; any page could use it through a
browser on this machine. RabbitMQ has no such checks.
"""

from __future__ import annotations

from typing import Final

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from rabbitry.runtime.addresses import is_loopback
from rabbitry.runtime.http.origins import SAFE_METHODS, KnownHosts, is_from_another_site

_BODIES: Final = ("application/json", "application/x-www-form-urlencoded", "")
"""Accepted types of bodies. `curl -d` sends the second one; an HTML form of that type can't send JSON, since a browser
escapes its braces, and a script's request has an Origin header."""


class Guard:
    """ASGI middleware that refuses requests from another site's page (403), or under another host name (421)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._hosts = KnownHosts()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope, Headers(scope=scope))
        await (self._app if refusal is None else refusal)(scope, receive, send)

    def _refusal(self, scope: Scope, headers: Headers) -> JSONResponse | None:
        if _is_from_this_machine(scope) and any(host not in self._hosts for host in headers.getlist("host")):
            return _refused(421, "this broker does not answer to that host name: use its IP address or localhost")
        if scope["method"] in SAFE_METHODS:
            return None
        if is_from_another_site(headers):
            return _refused(403, "the request comes from another site's page")
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in _BODIES:
            return _refused(403, "the request's Content-Type is not application/json")
        return None


def _refused(status: int, reason: str) -> JSONResponse:
    return JSONResponse({"error": "not_authorised", "reason": reason}, status)


def _is_from_this_machine(scope: Scope) -> bool:
    """Return whether a request comes from this machine, from which the default login may be used."""
    client = scope.get("client")
    return client is None or is_loopback(client[0])
