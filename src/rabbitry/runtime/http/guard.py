"""Access checks of an HTTP service, made before any route sees a request.

A page of another site must not read or change anything through the browser of an authorised user. Therefore the Host
header is checked (against DNS rebinding), and so is the Origin of WebSockets and of requests that change something.
On other addresses than loopback, a password is required.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import logging
import math
import secrets
from collections.abc import Callable, Iterable

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rabbitry.runtime.addresses import is_loopback, network_of
from rabbitry.runtime.http.guesses import Guesses
from rabbitry.runtime.http.origins import SAFE_METHODS, KnownHosts, is_from_another_site

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_OWN_SCRIPTS = "script-src 'self'"
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",  # a browser asks each time (by ETag), so that an upgrade shows at once
}
COOKIE = "rabbitry_page_"
"""The beginning of the cookie's name; the port follows, since browsers send a host's cookies to all of its ports."""
HEAD = "rabbitry.head"
"""The key of a request's scope that says that it came as HEAD."""

_logger = logging.getLogger(__name__)


class Guard:
    """ASGI middleware: Host, Origin, password, HEAD as GET, and the headers of every response.

    With a password, requests with any Host are served, since a page with a rebound name has neither the password nor
    the cookie. Without a password, only requests for this machine's names and for literal addresses are served, which
    DNS rebinding can't use.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        names: Iterable[str] = (),
        password: str | None = None,
        has_login: Callable[[], bool] = lambda: False,
    ) -> None:
        """Guard an application.

        Args:
            app: The application.
            names: Host names that are served besides `localhost`, this machine's name and literal IP addresses.
            password: The password; None serves this machine alone, without a password.
            has_login: Returns whether the application has a login of its own, which serves as a password does.
        """
        self._app = app
        self._has_login = has_login
        self._hosts = KnownHosts(names)
        self._password = password
        self._guesses = Guesses()
        # Browsers do not all send a password with a WebSocket's handshake, but all send a cookie.
        self._session = secrets.token_urlsafe(32)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._refusal(scope, headers)
        if refusal is not None and scope["type"] == "websocket":
            await receive()
            await refuse_websocket(refusal, scope, receive, send)
        elif refusal is not None:
            await refusal(scope, receive, self._with_headers(send, None))
        else:
            await self._let_in(scope, receive, self._with_headers(send, self._new_cookie(scope, headers)))

    async def _let_in(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "HEAD":
            scope, send = {**scope, "method": "GET", HEAD: True}, _without_body(send)
        try:
            await self._app(scope, receive, send)
        except ClientDisconnect:
            _logger.debug("%s hung up within a request", peer_of(scope))

    def _refusal(self, scope: Scope, headers: Headers) -> PlainTextResponse | None:
        is_open = self._password is None and not self._has_login()
        if is_open and not _within_this_machine(scope):
            return PlainTextResponse("Set APP_PASSWORD to serve other machines.\n", 403)
        hosts = headers.getlist("host")
        if len(hosts) != 1 or (is_open and hosts[0] not in self._hosts):
            return PlainTextResponse(
                "This service does not answer to that name. Ask for it by its IP address, as localhost, "
                "or set APP_PASSWORD for it.\n",
                421,
            )
        changes = scope["type"] == "websocket" or scope["method"] not in SAFE_METHODS
        if changes and is_from_another_site(headers):
            return PlainTextResponse("Another site's page asked.\n", 403)
        if self._password is not None and not self._has_cookie(scope, headers):
            return self._check_password(headers, peer_of(scope))
        return None

    def _check_password(self, headers: Headers, peer: str) -> PlainTextResponse | None:
        if "authorization" in headers:
            wait = self._guesses.wait(peer)
            if wait > 0:
                seconds = math.ceil(wait)
                return PlainTextResponse(
                    f"Too many wrong passwords from {peer}: try again in {seconds} s.\n",
                    429,
                    {"Retry-After": str(seconds)},
                )
            if self._has_password(headers):
                return None
            self._guesses.wrong(peer)
        return PlainTextResponse(
            "Password needed (any user name).\n",
            401,
            {"WWW-Authenticate": 'Basic realm="Rabbitry", charset="UTF-8"'},
        )

    def _has_password(self, headers: Headers) -> bool:
        found = basic(headers)
        if found is None or self._password is None:
            return False
        return secrets.compare_digest(found[1], self._password.encode())

    def _has_cookie(self, scope: Scope, headers: Headers) -> bool:
        given = cookies(scope, headers)
        return any(secrets.compare_digest(value.encode(), self._session.encode()) for value in given)

    def _new_cookie(self, scope: Scope, headers: Headers) -> str | None:
        """Return the cookie that stands for the password in later requests."""
        if self._password is None or self._has_cookie(scope, headers):
            return None
        secure = "; Secure" if scope["scheme"] in ("https", "wss") else ""
        return f"{cookie_name(scope)}={self._session}; Path=/; HttpOnly; SameSite=Strict{secure}"

    def _with_headers(self, send: Send, cookie: str | None) -> Send:
        async def wrapped(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                if cookie is not None:
                    headers.append("Set-Cookie", cookie)
            await send(message)

        return wrapped


def policy_with(script: str) -> str:
    """Return the content security policy of a page that has one script in its text.

    Args:
        script: The script's text, which may be an import map.
    """
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return CONTENT_SECURITY_POLICY.replace(_OWN_SCRIPTS, f"{_OWN_SCRIPTS} 'sha256-{digest}'")


def basic(headers: Headers) -> tuple[bytes, bytes] | None:
    """Return user name and password of basic authentication; None if there are none."""
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, _, password = base64.b64decode(credentials, validate=True).partition(b":")
    except (binascii.Error, ValueError):
        return None
    return user, password


def is_head(scope: Scope) -> bool:
    """Return whether a request came as HEAD, so that it must have no effect."""
    return HEAD in scope


def peer_of(scope: Scope) -> str:
    """Return the peer for per-peer limits: an IPv4 address, or the /64 network of an IPv6 one (RFC 4291, 2.5.4)."""
    client = scope.get("client")
    return network_of(client[0]) if client else ""


def cookies(scope: Scope, headers: Headers) -> list[str]:
    """Return the values that a browser sent for the cookie of this service; several if others set it for its paths."""
    # Not by http.cookies: that drops the whole header if another service's cookie breaks RFC 6265, as many do.
    pairs = [pair.partition("=") for header in headers.getlist("cookie") for pair in header.split(";")]
    return [value.strip() for name, _, value in pairs if name.strip() == cookie_name(scope)]


def cookie_name(scope: Scope) -> str:
    """Return the name of this service's cookie."""
    server = scope.get("server")
    return f"{COOKIE}{server[1] if server else ''}"


async def refuse_websocket(refusal: Response, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a handshake with a status and the reason if the server can, or else with 403."""
    if "websocket.http.response" in (scope.get("extensions") or {}):
        await refusal(scope, receive, send)
    else:
        await send({"type": "websocket.close", "code": 1008, "reason": ""})


def _without_body(send: Send) -> Send:
    async def wrapped(message: Message) -> None:
        await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

    return wrapped


def _within_this_machine(scope: Scope) -> bool:
    """Return whether a request came to a loopback address or over a Unix socket."""
    server = scope.get("server")
    return not server or server[1] is None or is_loopback(server[0])
