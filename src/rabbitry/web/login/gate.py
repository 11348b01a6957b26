"""The check of each request before any route of the dashboard: its user, session and token."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from rabbitry._installing import missing
from rabbitry.apps import Role, User
from rabbitry.apps.users import USER
from rabbitry.apps.users_file import usual_file
from rabbitry.exceptions import UsageError
from rabbitry.runtime.http.guard import basic, cookies, peer_of, refuse_websocket
from rabbitry.runtime.http.origins import SAFE_METHODS
from rabbitry.telemetry import Masking
from rabbitry.web.login.accounts import Accounts, Person, TooManyGuesses
from rabbitry.web.login.oidc.settings import CALLBACK
from rabbitry.web.login.sessions import TOKEN_HEADER, Session, Sessions

if TYPE_CHECKING:
    from rabbitry.web.login.oidc.provider import Conversation
    from rabbitry.web.login.oidc.settings import Provider

SESSION: Final = "rabbitry.session"
"""The key of a request's scope with its session, if it has one."""
_OPEN: Final = frozenset({"/login/", "/session", "/invitation", "/oidc", f"/{CALLBACK}"})
"""Paths that need no login, besides the dashboard's own scripts and styles."""
_OPEN_FILES: Final = "/static/"
_FORWARDED: Final = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip")
_TOUCH: Final = 60.0
"""Seconds after which an open WebSocket shows that its session is in use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """The settings of access to the dashboard.

    Attributes:
        password: The shared password; None for none.
        users: The file of users, which need not exist; the one in the user's data folder if it is None.
        masking: Masks secrets in messages that are shown.
        is_read_only: Whether nobody may do more than a viewer.
        provider: The OpenID Connect provider through which people may sign in; None for none.
    """

    password: str | None = None
    users: Path | None = None
    masking: Masking = field(default_factory=Masking)
    is_read_only: bool = False
    provider: Provider | None = None


class Login:
    """The accounts and sessions of one dashboard.

    Raises:
        UsageError: The file of users can't be used, or the packages for the provider are missing.
    """

    def __init__(self, access: Access) -> None:
        self.sessions: Sessions = Sessions()
        self.provider: Conversation | None = None if access.provider is None else _conversation(access.provider)
        self.accounts: Accounts = Accounts(access.users or usual_file(), access.password, self._end_of)
        self._most = Role.VIEWER if access.is_read_only else Role.ADMIN

    @property
    def has_login(self) -> bool:
        """Whether people have to sign in."""
        return self.accounts.has_login or self.provider is not None

    @property
    def provider_title(self) -> str:
        """The provider's name on pages; empty if there is no provider."""
        return "" if self.provider is None else self.provider.provider.title

    def user(self, person: Person, address: str) -> User:
        """Return a signed-in person as a user, with the role that they have now.

        Args:
            person: The person.
            address: The address of the request.
        """
        role = min(self.accounts.role_of(person), self._most)
        return User(person.name, role, address, person.is_shared, self.accounts.apps_of(person))

    def nobody(self, address: str) -> User:
        """Return the user of a request without a login, who has all rights if no login is needed."""
        return User("", Role.ANYONE if self.has_login else self._most, address)

    def session_of(self, scope: Scope, headers: Headers) -> Session | None:
        """Return the session of a request's cookie; None if there is none."""
        found = (self.sessions.find(key) for key in cookies(scope, headers))
        return next((session for session in found if session is not None), None)

    def token_for(self, request: Request) -> str:
        """Return the token for the page that a request asked for."""
        session: Session | None = request.scope.get(SESSION)
        return self.sessions.token("" if session is None else session.key)

    def opened(self, session: Session | None, user: User) -> AbstractContextManager[Session]:
        """Return the session that a WebSocket of a user lasts with, to be entered.

        Args:
            session: That of the request's cookie, if it has one.
            user: The user who opens it.
        """
        if session is not None:
            return contextlib.nullcontext(session)
        return self.sessions.without_key(user.name, is_shared=user.is_shared)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Follow changes of the file of users while the block runs."""
        async with self.accounts.running():
            yield

    def _end_of(self, names: frozenset[str]) -> None:
        # Whoever was let in without a name has to sign in once there are users.
        nobodies = {""} if self.has_login else set()
        self.sessions.end_of(
            lambda session: session.name in names or (not session.is_shared and session.name in nobodies)
        )


class Gate:
    """ASGI middleware, within `Guard`: finds the user of each request, and refuses those who have to sign in first.

    A request that changes something needs the token of the page's session, except for programs that send name and
    password with each request: no page of another site can make a browser do that.
    """

    def __init__(self, app: ASGIApp, login: Login) -> None:
        self._app = app
        self._login = login

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        session = self._login.session_of(scope, headers) if self._login.has_login else None
        refusal = await self._enter(scope, headers, session)
        if refusal is None and scope["type"] == "websocket":
            with self._login.opened(session, scope[USER]) as lasting:
                await self._while_signed_in(lasting, scope, receive, send)
        elif refusal is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await refuse_websocket(refusal, scope, receive, send)
        else:
            await refusal(scope, receive, send)

    async def _enter(self, scope: Scope, headers: Headers, session: Session | None) -> Response | None:
        """Note the user and the session in the scope. Return the response if the request is refused."""
        login, address = self._login, _address(scope)
        if not login.has_login and any(name in headers for name in _FORWARDED):
            return _refused(
                403, "a proxy forwards to this dashboard, which has no login: add users (rabbitry web users)"
            )
        user, needs_token = login.nobody(address), True
        if session is not None:
            user = login.user(Person(session.name, session.is_shared), address)
        elif login.has_login and (given := basic(headers)) is not None:
            name, password = (part.decode("utf-8", "replace") for part in given)
            try:
                person = await login.accounts.check(name, password, peer_of(scope))
            except TooManyGuesses as error:
                return _refused(429, str(error), {"Retry-After": str(error.seconds)})
            if person is None:
                return _refused(401, "wrong name or password", {"WWW-Authenticate": "Rabbitry"})
            user, needs_token = login.user(person, address), False
        path = scope["path"]
        if user.role is Role.ANYONE and path not in _OPEN and not path.startswith(_OPEN_FILES):
            return _asked_to_sign_in(scope, headers)
        changes = scope["type"] == "http" and scope["method"] not in SAFE_METHODS
        key = "" if session is None else session.key
        if changes and needs_token and not login.sessions.is_token(headers.get(TOKEN_HEADER, ""), key):
            return _refused(
                403, f"the request lacks the token of this dashboard's pages ({TOKEN_HEADER}): load the page again"
            )
        scope[USER], scope[SESSION] = user, session
        return None

    async def _while_signed_in(self, session: Session, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a WebSocket until its session ends."""
        serving = asyncio.ensure_future(self._app(scope, receive, send))
        ending = asyncio.ensure_future(session.ended.wait())
        try:
            while not serving.done():
                await asyncio.wait((serving, ending), timeout=_TOUCH, return_when=asyncio.FIRST_COMPLETED)
                if session.ended.is_set() and not serving.done():
                    serving.cancel()
                    await asyncio.wait((serving,))
                    with contextlib.suppress(OSError, RuntimeError):  # the page, or the route, closed it just now
                        await send({"type": "websocket.close", "code": 1008, "reason": "you are signed out"})
                    return
                self._login.sessions.touch(session)
            await serving
        finally:
            serving.cancel()
            ending.cancel()
            await asyncio.wait((serving, ending))


def _conversation(provider: Provider) -> Conversation:
    try:
        from rabbitry.web.login.oidc.provider import Conversation as OfProvider
    except ModuleNotFoundError as error:
        raise UsageError(missing("signing in through RABBITRY_OIDC_ISSUER", error, "oidc")) from error
    return OfProvider(provider)


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return client[0] if client else "127.0.0.1"


def _asked_to_sign_in(scope: Scope, headers: Headers) -> Response:
    """Redirect a browser that requests a page to the page for signing in, and refuse all other requests."""
    is_page = scope["type"] == "http" and scope["method"] == "GET" and "text/html" in headers.get("accept", "")
    if not is_page:
        return _refused(401, "sign in first", {"WWW-Authenticate": "Rabbitry"})
    path = scope.get("raw_path", scope["path"].encode()).decode("latin-1").partition("?")[0]
    query = scope["query_string"].decode("latin-1")
    to = path.lstrip("/") + (f"?{query}" if query else "")
    # Relative, since a proxy may have removed a prefix that only the browser knows.
    up = "../" * (path.count("/") - 1)
    return RedirectResponse(f"{up}login/?to={quote(to, safe='')}" if to else "login/", 303)


def _refused(status: int, why: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"error": why}, status, headers)
