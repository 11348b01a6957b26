"""The conversation with an OpenID Connect provider: its description, its keys, and the tokens that it issues.

Authlib builds the requests and validates the claims; joserfc, on which Authlib stands, checks signatures.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import httpx
import msgspec
from authlib.oauth2.auth import ClientAuth
from authlib.oauth2.client import OAuth2Client
from authlib.oauth2.rfc6749.parameters import prepare_token_request
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import JWKRegistry, Key, KeySet

from rabbitry._decode import decode_json, decode_object
from rabbitry.exceptions import RabbitryError, Undecodable
from rabbitry.web.login.oidc.settings import Provider, is_safe

_TIMEOUT: Final = 10.0
"""Seconds for one answer of the provider."""
_LARGEST: Final = 1 << 20
"""Bytes of one answer of the provider."""
_DESCRIBED_FOR: Final = 3600.0
"""Seconds after which the provider's description and keys are fetched anew."""
_KEYS_AGAIN: Final = 60.0
"""Seconds between two requests for the keys because a token names an unknown one."""
_AGAIN_AFTER: Final = 5.0
"""Seconds after a failed request for the description in which it is not repeated."""
_AT_ONCE: Final = 8
"""Conversations at once; further sign-ins wait."""
_MOST: Final = 64
"""Sign-ins in progress or waiting; further ones are refused."""
_LEEWAY: Final = 60
"""Seconds by which the provider's clock may differ."""
_ALGORITHMS: Final = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
"""Signatures that are accepted: those with a public key. `none`, and secrets that both sides share, are not."""

_logger = logging.getLogger(__name__)


class SignInFailed(RabbitryError):
    """Somebody could not sign in through the provider.

    Attributes:
        status: The HTTP status of the answer.
    """

    def __init__(self, status: int, why: str) -> None:
        self.status: int = status
        super().__init__(why)


class _Description(msgspec.Struct, frozen=True):
    """What is read of the provider's description (OpenID Connect Discovery 1.0, section 3)."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str = ""
    end_session_endpoint: str = ""
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("client_secret_basic",)


class _Keys(msgspec.Struct, frozen=True):
    """The provider's keys (RFC 7517, section 5), not checked yet."""

    keys: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Attempt:
    """The secrets of one sign-in, from the way there to the way back.

    Attributes:
        state: Binds the answer to this browser.
        nonce: Binds the token to this sign-in.
        verifier: The PKCE code verifier (RFC 7636).
    """

    state: str
    nonce: str
    verifier: str


class Conversation:
    """The dashboard's conversation with one provider.

    Args:
        provider: The settings.
    """

    def __init__(self, provider: Provider) -> None:
        self.provider: Provider = provider
        self._described: tuple[_Description, float] | None = None
        self._keys: tuple[KeySet, float] | None = None
        self._again_at = 0.0
        self._describing = asyncio.Lock()
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._present = 0
        self._context: ssl.SSLContext | None = None

    async def begin(self, attempt: Attempt) -> str:
        """Return the URL of the provider to which a browser goes to sign in.

        Args:
            attempt: The secrets of this sign-in.

        Raises:
            SignInFailed: The provider does not answer, or not as it must, or too many people sign in.
        """
        described = self._known()
        if described is None:
            async with self._turn():
                described = await self._describe()
        client = self._client(described)
        url, _ = client.create_authorization_url(
            described.authorization_endpoint, state=attempt.state, nonce=attempt.nonce, code_verifier=attempt.verifier
        )
        return str(url)

    async def finish(self, attempt: Attempt, code: str) -> str:
        """Exchange the code of a browser that came back, and return the name of its person: the value of the claim.

        Args:
            attempt: The secrets of this sign-in.
            code: The code that the browser brought.

        Raises:
            SignInFailed: The provider does not answer, refuses the code, or its token is not for this sign-in; or too
                many people sign in.
        """
        async with self._turn():
            described = await self._describe()
            token = await self._exchange(described, attempt, code)
            claims = await self._claims(described, attempt, token)
            if self.provider.claim not in claims and described.userinfo_endpoint:
                claims = {**await self._userinfo(described, token, claims), **claims}
        return self._name(claims)

    @property
    def leaving(self) -> str:
        """The URL at which a browser ends its session with the provider; empty if none is known.

        It is that of the last description, so that signing out does not wait for the provider.
        """
        found = "" if self._described is None else self._described[0].end_session_endpoint
        return str(httpx.URL(found).copy_merge_params({"client_id": self.provider.client_id})) if found else ""

    @contextlib.asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Wait for one of the conversations at once. Raises SignInFailed if too many wait already."""
        if self._present >= _MOST:
            raise SignInFailed(503, f"too many people sign in with {self.provider.title} now: try again in a minute")
        self._present += 1
        try:
            async with self._turns:
                yield
        finally:
            self._present -= 1

    def _client(self, described: _Description) -> OAuth2Client:
        method = "none"
        if self.provider.client_secret:
            offered = described.token_endpoint_auth_methods_supported
            method = "client_secret_basic" if "client_secret_basic" in offered else "client_secret_post"
        return OAuth2Client(
            None, self.provider.client_id, self.provider.client_secret, method, scope=self.provider.scopes,
            redirect_uri=self.provider.redirect_uri, code_challenge_method="S256",
        )  # fmt: skip

    def _proof(self, method: str) -> ClientAuth:
        """Return what adds the dashboard's id and secret to a request for a token."""
        pair = (self.provider.client_id, self.provider.client_secret)
        if method == "client_secret_basic":
            # Form-encoded by RFC 6749, section 2.3.1, which Authlib leaves to its caller. A space as `%20`, because
            # some providers decode no `+`.
            pair = (quote(pair[0], safe=""), quote(pair[1], safe=""))
        return ClientAuth(*pair, method)

    def _known(self) -> _Description | None:
        """Return the provider's description if it is not too old."""
        if self._described is not None and time.monotonic() - self._described[1] < _DESCRIBED_FOR:
            return self._described[0]
        return None

    async def _describe(self) -> _Description:
        """Return the provider's description, fetched anew if it is too old.

        Anybody can cause this request. One at a time is made, and none for a while after a failure, so that people who
        wait behind a provider that is away wait for one timeout and not for one each.
        """
        async with self._describing:
            if (known := self._known()) is not None:
                return known
            if time.monotonic() < self._again_at:
                raise self._unusable()
            try:
                described = await self._description()
            except SignInFailed:
                self._again_at = time.monotonic() + _AGAIN_AFTER
                raise
            self._described = described, time.monotonic()
            return described

    async def _description(self) -> _Description:
        place = f"{self.provider.issuer.rstrip('/')}/.well-known/openid-configuration"
        answer = await self._fetch("GET", place)
        try:
            described = decode_json(answer.content, _Description)
        except Undecodable as error:
            raise self._failed(f"{place} is no description of a provider: {error}") from error
        # Another issuer's description would make this one accept tokens of the other (Discovery 1.0, section 4.3).
        if described.issuer != self.provider.issuer:
            raise self._failed(f"{place} describes the issuer {described.issuer!r}, not {self.provider.issuer!r}")
        named = (described.authorization_endpoint, described.token_endpoint, described.jwks_uri)
        others = tuple(url for url in (described.userinfo_endpoint, described.end_session_endpoint) if url)
        for url in (*named, *others):
            if not (is_safe(url) and _is_url(url)):
                raise self._failed(f"{place} names {url!r}, which is not an HTTPS URL")
        return described

    async def _exchange(self, described: _Description, attempt: Attempt, code: str) -> Mapping[str, object]:
        client = self._client(described)
        body = prepare_token_request(
            "authorization_code", code=code, redirect_uri=self.provider.redirect_uri, code_verifier=attempt.verifier
        )
        headers = {"Accept": "application/json", "Content-Type": "application/x-www-form-urlencoded;charset=UTF-8"}
        proof = self._proof(client.token_endpoint_auth_method)
        url, headers, body = proof.prepare("POST", described.token_endpoint, headers, body)
        answer = await self._fetch("POST", url, headers, body, refusals=True)
        try:
            token = decode_object(answer.content)
        except Undecodable as error:
            raise self._failed(f"{described.token_endpoint} answers a code with no JSON object: {error}") from error
        if "error" in token:  # RFC 6749, section 5.2
            said = f"{token['error']}: {token.get('error_description', 'no description')}"
            _logger.warning("the provider %s refused a code: %.300s", self.provider.issuer, said)
            raise SignInFailed(403, f"{self.provider.title} refused this sign-in: begin again")
        if not isinstance(token.get("id_token"), str) or not isinstance(token.get("access_token"), str):
            raise self._failed("its answer to a code has no id_token or no access_token")
        return token

    async def _claims(
        self, described: _Description, attempt: Attempt, token: Mapping[str, object]
    ) -> dict[str, object]:
        """Return the claims of a checked ID token (OpenID Connect Core 1.0, section 3.1.3.7)."""
        text, keys = str(token["id_token"]), await self._key_set(described)
        try:
            try:
                found = jwt.decode(text, keys, _ALGORITHMS)
            except (JoseError, ValueError):
                # The provider may have changed its keys since.
                keys = await self._key_set(described, again=True)
                found = jwt.decode(text, keys, _ALGORITHMS)
            options = {
                "iss": {"essential": True, "value": self.provider.issuer},
                "aud": {"essential": True, "value": self.provider.client_id},
            }
            params = {
                "nonce": attempt.nonce,
                "client_id": self.provider.client_id,
                "access_token": token["access_token"],
            }
            claims = CodeIDToken(found.claims, found.header, options, params)
            claims.validate(leeway=_LEEWAY)
        except (JoseError, ValueError, TypeError, RecursionError) as error:
            _logger.warning("a token of the provider %s is refused: %s", self.provider.issuer, error)
            raise SignInFailed(403, f"the answer of {self.provider.title} is not valid here: begin again") from error
        return dict(claims)

    async def _key_set(self, described: _Description, *, again: bool = False) -> KeySet:
        lasts = _KEYS_AGAIN if again else _DESCRIBED_FOR
        if self._keys is not None and time.monotonic() - self._keys[1] < lasts:
            return self._keys[0]
        answer = await self._fetch("GET", described.jwks_uri)
        try:
            given = decode_json(answer.content, _Keys).keys
        except Undecodable as error:
            raise self._failed(f"{described.jwks_uri} has no set of keys: {error}") from error
        found = [key for key in map(_usable, given) if key is not None]
        if not found:
            raise self._failed(f"{described.jwks_uri} has no key that can be used, among {len(given)}")
        keys = KeySet(found)
        self._keys = keys, time.monotonic()
        return keys

    async def _userinfo(
        self, described: _Description, token: Mapping[str, object], claims: Mapping[str, object]
    ) -> dict[str, object]:
        headers = {"Accept": "application/json", "Authorization": f"Bearer {token['access_token']}"}
        answer = await self._fetch("GET", described.userinfo_endpoint, headers)
        try:
            found = decode_object(answer.content)
        except Undecodable as error:
            raise self._failed(f"{described.userinfo_endpoint} answers no JSON object: {error}") from error
        if found.get("sub") != claims["sub"]:
            raise self._failed(f"{described.userinfo_endpoint} answers about another person")
        return found

    def _name(self, claims: Mapping[str, object]) -> str:
        """Return the value of the claim. An address that the provider has not checked is nobody's name."""
        claim = self.provider.claim
        name = claims.get(claim)
        # Half of a surrogate pair, which JSON may hold, can't be sent to the browser.
        if not isinstance(name, str) or not name.isprintable() or not name:
            _logger.warning(
                "a token of the provider %s lacks the claim %r, or it is no name", self.provider.issuer, claim
            )
            raise SignInFailed(403, f"{self.provider.title} does not tell who you are: it sends no {claim!r}")
        if claim == "email" and claims.get("email_verified") is not True:
            raise SignInFailed(403, f"{self.provider.title} has not verified your email address")
        return name

    async def _fetch(
        self, method: str, url: str, headers: Mapping[str, str] | None = None, body: str = "", *, refusals: bool = False
    ) -> httpx.Response:
        """Return an answer of the provider, with its body. refusals: return those with a status from 400 to 499 too."""
        text = bytearray()
        # Not compressed: a few bytes could become many before they are counted.
        sent = {"Accept-Encoding": "identity", **(headers or {})}
        try:
            async with (
                asyncio.timeout(_TIMEOUT),
                httpx.AsyncClient(timeout=_TIMEOUT, verify=await self._trusted()) as client,
                client.stream(method, url, headers=sent, content=body.encode()) as answer,
            ):
                if answer.headers.get("content-encoding", "identity") != "identity":
                    raise self._failed(f"{url} answers with a compressed body, which was not asked for")
                async for chunk in answer.aiter_raw():
                    text += chunk
                    if len(text) > _LARGEST:
                        raise self._failed(f"{url} answers with more than {_LARGEST} bytes")
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            raise self._failed(f"{url} does not answer: {str(error) or type(error).__name__}") from error
        if not (answer.is_success or (refusals and answer.is_client_error)):
            raise self._failed(f"{url} answers with status {answer.status_code}")
        return httpx.Response(answer.status_code, content=bytes(text), request=answer.request)

    async def _trusted(self) -> ssl.SSLContext:
        """Return the context for TLS. It is made once, in a thread: loading the authorities takes 35 ms of CPU."""
        if self._context is None:
            self._context = await asyncio.to_thread(httpx.create_ssl_context)
        return self._context

    def _failed(self, why: str) -> SignInFailed:
        """Return the error for a provider that does not work. The log has the reason, and the page does not."""
        _logger.warning("the provider %s can't be used: %s", self.provider.issuer, why)
        return self._unusable()

    def _unusable(self) -> SignInFailed:
        return SignInFailed(
            502, f"{self.provider.title} can't be reached, or does not answer as it should: try again later"
        )


def _is_url(text: str) -> bool:
    """Return whether httpx takes a text as a URL. It refuses some that `is_safe` does not, such as `https://host:x/`."""
    try:
        httpx.URL(text)
    except httpx.InvalidURL:
        return False
    return True


def _usable(given: dict[str, Any]) -> Key | None:
    """Return a key of the provider; None for one of an unknown kind, which says nothing about the others (RFC 7517)."""
    try:
        return JWKRegistry.import_key(given)
    except (JoseError, ValueError, TypeError, KeyError):
        return None
