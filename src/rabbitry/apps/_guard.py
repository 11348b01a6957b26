"""Who may talk to an HTTP service, checked before any route sees a request.

A page on another site must not read the samples, nor change anything, through the browser of somebody who may: the
Host header (against DNS rebinding) and the Origin of a WebSocket, or of a request that changes something, are
checked. Beyond loopback a password is asked for.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import secrets
import socket
from collections.abc import Iterable
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",  # a browser asks each time (by ETag), so that an upgrade shows at once
}
COOKIE = "rabbitry_page"


class Guard:
    """ASGI middleware: Host, Origin, password, and the headers of every response.

    With a password, any Host is served: a rebound name has neither the password nor the cookie. Without one,
    only this machine's names and literal addresses are, which no stranger's DNS can stand for.
    """

    def __init__(self, app: ASGIApp, *, names: Iterable[str] = (), password: str | None = None) -> None:
        """`names` are served as hosts besides `localhost`, this machine's name and literal IP addresses."""
        self._app = app
        self._names = {"localhost", socket.gethostname().lower(), *(name.lower() for name in names)}
        self._password = password
        # Browsers do not all send a password with a WebSocket's handshake, but all send a cookie.
        self._session = secrets.token_urlsafe(32)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._refusal(scope, headers)
        if refusal is None:
            await self._app(scope, receive, self._with_headers(send, headers))
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": ""})  # before accept: HTTP 403
        else:
            await refusal(scope, receive, self._with_headers(send, None))

    def _refusal(self, scope: Scope, headers: Headers) -> PlainTextResponse | None:
        if self._password is None and not _within_this_machine(scope):
            return PlainTextResponse("Set APP_PASSWORD to serve other machines.\n", 403)
        hosts = headers.getlist("host")
        if len(hosts) != 1 or (self._password is None and not self._known(hosts[0])):
            return PlainTextResponse(
                "This service does not answer to that name. Ask for it by its IP address, as localhost, "
                "or set APP_PASSWORD for it.\n",
                421,
            )
        changes = scope["type"] == "websocket" or scope["method"] not in ("GET", "HEAD", "OPTIONS")
        if changes and not _same_origin(headers.getlist("origin"), hosts[0]):
            return PlainTextResponse("Another site's page asked.\n", 403)
        if self._password is not None and not self._logged_in(headers):
            return PlainTextResponse(
                "Password needed (any user name).\n",
                401,
                {"WWW-Authenticate": 'Basic realm="Rabbitry", charset="UTF-8"'},
            )
        return None

    def _known(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        return name.rstrip(".") in self._names or _is_address(name)

    def _logged_in(self, headers: Headers) -> bool:
        return self._basic(headers) or self._cookie(headers)

    def _basic(self, headers: Headers) -> bool:
        scheme, _, credentials = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "basic" or self._password is None:
            return False
        try:
            _, _, password = base64.b64decode(credentials, validate=True).partition(b":")
        except (binascii.Error, ValueError):
            return False
        return secrets.compare_digest(password, self._password.encode())

    def _cookie(self, headers: Headers) -> bool:
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            return False
        return cookie is not None and secrets.compare_digest(cookie.value.encode(), self._session.encode())

    def _with_headers(self, send: Send, request: Headers | None) -> Send:
        async def wrapped(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                if request is not None and self._password is not None and self._basic(request):
                    headers.append("Set-Cookie", f"{COOKIE}={self._session}; Path=/; HttpOnly; SameSite=Strict")
            await send(message)

        return wrapped


def _same_origin(origins: list[str], host: str) -> bool:
    """Whether a page may ask that. Programs that are no browsers send no Origin (RFC 6454, 7; RFC 6455, 10.2)."""
    if not origins:
        return True
    if len(origins) != 1:
        return False
    scheme, separator, authority = origins[0].partition("://")
    return separator != "" and scheme in ("http", "https") and authority.lower() == host.lower()


def _within_this_machine(scope: Scope) -> bool:
    """Whether the request came to a loopback address, or over a Unix socket, whatever the server listens on."""
    server = scope.get("server")
    if not server or server[1] is None:
        return True
    try:
        return ipaddress.ip_address(server[0]).is_loopback
    except ValueError:
        return bool(server[0] == "localhost")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
