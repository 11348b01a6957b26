"""Checks of where a request comes from, before any password: a web page must not use this API through a browser.

The broker's default login is known to everybody, but may be used from this machine only; a browser on this machine
could use it for any page. RabbitMQ has no such checks. Of the headers that are looked at here, programs that are no
browsers send Host alone.
"""

import ipaddress
import socket
from typing import Any, Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

_READING: Final = ("GET", "HEAD", "OPTIONS")
_BODIES: Final = ("application/json", "application/x-www-form-urlencoded", "")
"""Types of bodies that are taken. `curl -d` says the second one; a form of that type can't send JSON, since a browser
escapes its braces, and a script's request names its origin."""


class Guard:
    """ASGI middleware that refuses requests of another site's page (403), or under another name (421)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._names = {"localhost", socket.gethostname().lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope, Headers(scope=scope))
        await (self._app if refusal is None else refusal)(scope, receive, send)

    def _refusal(self, scope: Scope, headers: Headers) -> JSONResponse | None:
        hosts = headers.getlist("host")
        if _is_from_this_machine(scope) and any(not self._is_known(host) for host in hosts):
            return _refused(
                421, "this broker does not answer to that name: ask for it by its IP address or as localhost"
            )
        if scope["method"] in _READING:
            return None
        host = hosts[0].lower() if len(hosts) == 1 else ""
        if any(site not in ("same-origin", "none") for site in headers.getlist("sec-fetch-site")):
            return _refused(403, "another site's page asked")
        if any(not _is_origin_of(origin, host) for origin in headers.getlist("origin")):
            return _refused(403, "another site's page asked")
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in _BODIES:
            return _refused(403, "the request's Content-Type is not application/json")
        return None

    def _is_known(self, host: str) -> bool:
        try:
            name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
            return name in self._names or _is_address(name)
        except ValueError:
            return False


def _refused(status: int, reason: str) -> JSONResponse:
    return JSONResponse({"error": "not_authorised", "reason": reason}, status)


def _is_from_this_machine(scope: Scope) -> bool:
    """Whether a request comes from where the default login may be used. A stranger's name can lead a browser here."""
    client: Any = scope.get("client")
    return client is None or ipaddress.ip_address(client[0].partition("%")[0]).is_loopback


def _is_origin_of(url: str, host: str) -> bool:
    scheme, separator, rest = url.partition("://")
    return separator != "" and scheme in ("http", "https") and rest.lower() == host


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
