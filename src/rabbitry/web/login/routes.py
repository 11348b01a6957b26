"""Signing in and out: the page, and the requests that it sends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse

from rabbitry._decode import decode_json
from rabbitry.apps import Role, needs, user_of
from rabbitry.apps.api import answers, json_response, route_class
from rabbitry.apps.exceptions import InvitationRefused
from rabbitry.exceptions import Undecodable, UsageError
from rabbitry.runtime.http.guard import cookie_name, peer_of
from rabbitry.web._shell import login_page
from rabbitry.web.answers import Me, SignedIn, SignedOut
from rabbitry.web.login.accounts import TooManyGuesses
from rabbitry.web.login.gate import SESSION, Login
from rabbitry.web.login.requests import body_of

if TYPE_CHECKING:
    from rabbitry.web.login.accounts import Person
    from rabbitry.web.login.sessions import Session

_LARGEST: Final = 10_000


class Credentials(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The name and the password that somebody signs in with."""

    name: str
    password: str


class Accepted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The token of an invitation, and the password that the invited person chose."""

    token: str
    password: str


class LoginRoutes:
    """The routes for signing in and out.

    They lie at the dashboard's root, and the cookie has no Path: browsers then take the folder of the request's URL,
    which is right behind a proxy that adds a prefix.

    Args:
        login: The accounts and sessions.
    """

    def __init__(self, login: Login) -> None:
        self._login = login
        self.router: APIRouter = APIRouter(route_class=route_class(_LARGEST))
        self.router.add_api_route("/login/", self.page, include_in_schema=False)
        self.router.add_api_route("/session", self.show, responses=answers(Me))
        add = self.router.add_api_route
        add("/session", self.sign_in, methods=["POST"], openapi_extra=body_of(Credentials), responses=answers(SignedIn))
        add("/invitation", self.accept, methods=["POST"], openapi_extra=body_of(Accepted), responses=answers(SignedIn))
        add("/logout", self.sign_out, methods=["POST"], responses=answers(SignedOut))

    @needs(Role.ANYONE)
    async def page(self, request: Request) -> HTMLResponse:
        """Return the page for signing in."""
        return HTMLResponse(login_page(self._login.token_for(request), self._login.provider_title))

    @needs(Role.ANYONE)
    async def show(self, request: Request) -> Response:
        """Return the name and role of the signed-in user, and whether a login is needed."""
        user = user_of(request)
        return json_response({"name": user.name, "role": user.role.label, "has_login": self._login.has_login})

    @needs(Role.ANYONE)
    async def sign_in(self, request: Request) -> Response:
        """Begin a session, whose key goes to the browser as a cookie."""
        try:
            typed = decode_json(await request.body(), Credentials)
        except Undecodable as error:
            raise UsageError(f"the request has no name and password: {error}") from error
        if not self._login.has_login:
            raise UsageError("this dashboard has no login")
        if self._login.accounts.is_first(typed.name, typed.password):
            why = "this is your first password: choose one of your own"
            return JSONResponse({"error": why, "is_first": True}, 403)
        try:
            person = await self._login.accounts.check(typed.name, typed.password, peer_of(request.scope))
        except TooManyGuesses as error:
            return JSONResponse({"error": str(error)}, 429, {"Retry-After": str(error.seconds)})
        if person is None:
            return JSONResponse({"error": "wrong name or password"}, 401, {"WWW-Authenticate": "Rabbitry"})
        return self._signed_in(request, person)

    @needs(Role.ANYONE)
    async def accept(self, request: Request) -> Response:
        """Set the password of an invited user, and begin a session."""
        try:
            given = decode_json(await request.body(), Accepted)
        except Undecodable as error:
            raise UsageError(f"the request has no token and password: {error}") from error
        try:
            person = await self._login.accounts.accept(given.token, given.password, peer_of(request.scope))
        except TooManyGuesses as error:
            return JSONResponse({"error": str(error)}, 429, {"Retry-After": str(error.seconds)})
        except InvitationRefused as error:
            return JSONResponse({"error": str(error)}, 403)
        return self._signed_in(request, person)

    def _signed_in(self, request: Request, person: Person) -> Response:
        """Begin a session, and return its answer with the cookie."""
        end_session(self._login, request)
        session = self._login.sessions.begin(person.name, is_shared=person.is_shared)
        answer = json_response({"name": person.name})
        # A proxy that ends TLS may not forward the scheme; the browser's Origin has it.
        is_secure = request.url.scheme == "https" or request.headers.get("origin", "").startswith("https:")
        answer.headers["Set-Cookie"] = session_cookie(request, session, is_secure=is_secure)
        return answer

    @needs(Role.MEMBER)
    async def sign_out(self, request: Request) -> Response:
        """End the session. The answer names the page for leaving the provider, if the user signed in through it."""
        session: Session | None = request.scope.get(SESSION)
        end_session(self._login, request)
        provider = self._login.provider
        leave = provider.leaving if session is not None and session.by_provider and provider is not None else ""
        answer = json_response({"done": "signed out"} | ({"leave": leave} if leave else {}))
        answer.headers["Set-Cookie"] = f"{cookie_name(request.scope)}=; Max-Age=0; HttpOnly; SameSite=Strict"
        return answer


def end_session(login: Login, request: Request) -> None:
    """End the session of a request, if it has one."""
    session: Session | None = request.scope.get(SESSION)
    if session is not None:
        login.sessions.end(session)


def session_cookie(request: Request, session: Session, *, is_secure: bool) -> str:
    """Return the header that makes a browser keep a session's key. is_secure: whether the browser uses TLS."""
    secure = "; Secure" if is_secure else ""
    return f"{cookie_name(request.scope)}={session.key}; HttpOnly; SameSite=Strict{secure}"
