"""The way to the OpenID Connect provider and back."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import logging
import math
import secrets
import time
from typing import TYPE_CHECKING, Final

import msgspec
from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from starlette.datastructures import Headers

from rabbitry.apps import Role, needs
from rabbitry.apps.users_file import LONGEST_NAME
from rabbitry.runtime.http.guard import cookie_name, peer_of
from rabbitry.runtime.http.guesses import Guesses
from rabbitry.runtime.http.rates import Rates
from rabbitry.web._shell import notice_page
from rabbitry.web.login.accounts import Person
from rabbitry.web.login.oidc.settings import CALLBACK
from rabbitry.web.login.routes import end_session, session_cookie

if TYPE_CHECKING:
    from rabbitry.web.login.gate import Login
    from rabbitry.web.login.oidc.provider import Conversation

_LASTS: Final = 600.0
"""Seconds that somebody may spend on the provider's pages."""
_BURST: Final = 100
"""Sign-ins that may begin at one address at once: a class may sit behind one router."""
_PAUSE: Final = 0.2
"""Seconds after which one more may begin there."""
_LONGEST_TO: Final = 1500
"""Bytes of a requested page's place: a cookie has 4096."""

_logger = logging.getLogger(__name__)


class _Begun(msgspec.Struct, frozen=True, array_like=True):
    """A sign-in on its way, in the browser's cookie. `until` is Unix time; `to` is the page that was requested."""

    state: str
    nonce: str
    verifier: str
    until: float
    to: str


class OidcRoutes:
    """The routes for signing in through the provider. Without a provider, they say so.

    They lie at the root, as those of `LoginRoutes` do, so that the folder of their cookies is right behind a proxy.
    The way there is kept in a signed cookie and not in memory, so that nobody can crowd out others' sign-ins. The
    cookie is `SameSite=Lax`: the provider's page leads back, which is another site's.

    Args:
        login: The accounts and sessions.
    """

    def __init__(self, login: Login) -> None:
        self._login = login
        self._secret = secrets.token_bytes(32)
        self._guesses = Guesses()
        self._rates = Rates(_BURST, _PAUSE)
        self.router: APIRouter = APIRouter()
        self.router.add_api_route("/oidc", self.begin, include_in_schema=False)
        self.router.add_api_route(f"/{CALLBACK}", self.finish, include_in_schema=False)

    @needs(Role.ANYONE)
    async def begin(self, request: Request) -> Response:
        """Send the browser to the provider."""
        provider = self._login.provider
        if provider is None:
            return _absent()
        if (seconds := self._rates.take(peer_of(request.scope))) > 0:
            return _too_many("Too many sign-ins begin at your address now. Try again in a moment.", seconds)
        from rabbitry.web.login.oidc.provider import Attempt, SignInFailed

        new = [secrets.token_urlsafe(32) for _ in range(3)]
        to = _within(request.query_params.get("to", ""))
        begun = _Begun(new[0], new[1], new[2], time.time() + _LASTS, to)
        try:
            url = await provider.begin(Attempt(begun.state, begun.nonce, begun.verifier))
        except SignInFailed as error:
            return _failed(error.status, f"{error}. Names and passwords of this dashboard go on working.")
        answer = RedirectResponse(url, 303)
        self._set_cookie(request, answer, self._sealed(begun), int(_LASTS))
        return answer

    @needs(Role.ANYONE)
    async def finish(self, request: Request) -> Response:
        """Take a browser back from the provider, and begin the session of its person."""
        provider = self._login.provider
        if provider is None:
            return _absent()
        begun, state = self._begun(request), request.query_params.get("state", "")
        if begun is None or not secrets.compare_digest(state.encode(), begun.state.encode()):
            # The cookie stays: it may be that of another tab, whose sign-in any link to here could end otherwise.
            return _failed(400, _again(provider))
        answer = await self._finish(request, provider, begun)
        self._set_cookie(request, answer, "", 0)  # it serves once
        return answer

    async def _finish(self, request: Request, provider: Conversation, begun: _Begun) -> Response:
        from rabbitry.web.login.oidc.provider import Attempt, SignInFailed

        query, peer = request.query_params, peer_of(request.scope)
        issuer, title = query.get("iss", provider.provider.issuer), provider.provider.title
        if issuer != provider.provider.issuer:  # RFC 9207: an answer of another provider
            return _failed(400, _again(provider))
        if "error" in query or not query.get("code"):
            _logger.warning("the provider %s ended a sign-in: %.80r", issuer, query.get("error", "no code"))
            return _failed(403, f"{title} did not sign you in.")
        if (seconds := self._guesses.wait(peer)) > 0:
            return _too_many("Too many sign-ins from your address failed. Try again later.", seconds)
        try:
            name = await provider.finish(Attempt(begun.state, begun.nonce, begun.verifier), query["code"])
        except SignInFailed as error:
            # Not counted in advance, as passwords are: a class behind one router signs in at once. Those in progress
            # are bounded by the conversation. From 500 on the fault is the provider's.
            if error.status < 500:
                self._guesses.wrong(peer)
            return _failed(error.status, f"{error}.")
        person = Person(name, is_shared=False)
        if self._login.accounts.role_of(person) is Role.ANYONE:
            _logger.warning("nobody has an account for %.80r, whom the provider signed in from %s", name, peer)
            who = name[:LONGEST_NAME]
            return _failed(
                403, f"{title} knows you as “{who}”, and nobody of that name has an account here. Ask for one."
            )
        return self._signed_in(request, name, begun.to)

    def _signed_in(self, request: Request, name: str, to: str) -> Response:
        end_session(self._login, request)
        session = self._login.sessions.begin(name, by_provider=True)
        answer = HTMLResponse(notice_page("Signed in", "", to, "Go on", at_once=True))
        cookie = session_cookie(request, session, is_secure=self._is_secure)
        answer.headers.append("Set-Cookie", cookie)
        return answer

    @property
    def _is_secure(self) -> bool:
        provider = self._login.provider
        return provider is not None and provider.provider.address.startswith("https:")

    def _set_cookie(self, request: Request, answer: Response, value: str, seconds: int) -> None:
        secure = "; Secure" if self._is_secure else ""
        name = f"{cookie_name(request.scope)}_oidc"
        answer.headers.append("Set-Cookie", f"{name}={value}; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}")

    def _sealed(self, begun: _Begun) -> str:
        text = base64.urlsafe_b64encode(msgspec.json.encode(begun)).decode()
        return f"{text}.{self._seal(text)}"

    def _seal(self, text: str) -> str:
        return hmac.new(self._secret, text.encode("utf-8", "replace"), hashlib.sha256).hexdigest()

    def _begun(self, request: Request) -> _Begun | None:
        """Return the sign-in that this browser began; None if there is none, or it took too long."""
        wanted = f"{cookie_name(request.scope)}_oidc"
        for header in Headers(scope=request.scope).getlist("cookie"):
            for pair in header.split(";"):
                name, _, value = pair.strip().partition("=")
                text, _, seal = value.partition(".")
                if name != wanted or not secrets.compare_digest(seal.encode(), self._seal(text).encode()):
                    continue
                try:
                    begun = msgspec.json.decode(base64.urlsafe_b64decode(text), type=_Begun)
                except (binascii.Error, ValueError):
                    continue
                if time.time() < begun.until:
                    return begun
        return None


def _absent() -> Response:
    return JSONResponse({"error": "this dashboard has no provider for signing in"}, 404)


def _again(provider: Conversation) -> str:
    # Somebody who uses another address of this dashboard has begun, but the cookie is that address's.
    place = provider.provider.address
    return f"This sign-in was not begun in this browser at {place}, or it took longer than 10 minutes. Begin again."


def _failed(status: int, why: str) -> Response:
    text = f"{why[0].upper()}{why[1:]}"
    return HTMLResponse(notice_page("You are not signed in", text, "login/", "Sign in again"), status)


def _too_many(why: str, seconds: float) -> Response:
    answer = _failed(429, why)
    answer.headers["Retry-After"] = str(max(1, math.ceil(seconds)))
    return answer


def _within(to: str) -> str:
    """Return the place of a page of this dashboard; the first page's for one that is elsewhere or too long."""
    is_strange = (
        len(to.encode("utf-8", "replace")) > _LONGEST_TO or not to.isprintable() or "\\" in to or to.startswith("/")
    )
    return "" if is_strange or ".." in to.partition("?")[0].split("/") else to
