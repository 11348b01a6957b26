"""An OpenID Connect provider on this machine: Authlib's own server, with Flask, in a thread.

It asks nobody: whoever comes is the person in `person`. A test may have it issue tokens that are not valid.
"""

import contextlib
import functools
import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from authlib.integrations.flask_oauth2 import AuthorizationServer, ResourceProtector
from authlib.integrations.flask_oauth2 import current_token as current
from authlib.oauth2.rfc6749 import ClientMixin, TokenMixin
from authlib.oauth2.rfc6749.grants import AuthorizationCodeGrant
from authlib.oauth2.rfc6750 import BearerTokenValidator
from authlib.oauth2.rfc7636 import CodeChallenge
from authlib.oidc.core import AuthorizationCodeMixin
from authlib.oidc.core.grants import OpenIDCode
from flask import Flask, Response, jsonify, request
from joserfc.jwk import KeySet, RSAKey
from werkzeug.serving import make_server

CLIENT_ID = "rabbitry"
SECRET = "a secret of the provider"


@functools.cache
def _first_key() -> RSAKey:
    """Return the key that each provider of this process begins with: making one takes 34 ms of CPU."""
    return RSAKey.generate_key(2048, {"kid": "one"})


@dataclass
class _Client(ClientMixin):  # type: ignore[misc] # Authlib brings no types
    redirect_uri: str
    secret: str

    def get_client_id(self) -> str:
        return CLIENT_ID

    def get_default_redirect_uri(self) -> str:
        return self.redirect_uri

    def get_allowed_scope(self, scope: str) -> str:
        return scope

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        return redirect_uri == self.redirect_uri

    def check_client_secret(self, client_secret: str) -> bool:
        return client_secret == self.secret

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return method == ("client_secret_basic" if self.secret else "none")

    def check_response_type(self, response_type: str) -> bool:
        return response_type == "code"

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type == "authorization_code"


@dataclass
class _Code(AuthorizationCodeMixin):  # type: ignore[misc] # Authlib brings no types
    redirect_uri: str
    scope: str
    nonce: str
    code_challenge: str
    code_challenge_method: str

    def get_redirect_uri(self) -> str:
        return self.redirect_uri

    def get_scope(self) -> str:
        return self.scope

    def get_nonce(self) -> str:
        return self.nonce

    def get_auth_time(self) -> int:
        return int(time.time())

    def get_acr(self) -> None:
        return None

    def get_amr(self) -> None:
        return None


@dataclass
class _Token(TokenMixin):  # type: ignore[misc] # Authlib brings no types
    scope: str

    def check_client(self, client: object) -> bool:
        return True

    def get_scope(self) -> str:
        return self.scope

    def is_expired(self) -> bool:
        return False

    def is_revoked(self) -> bool:
        return False


@dataclass
class RunningProvider:
    """A provider that runs.

    Attributes:
        redirect_uri: The one that it accepts, exactly.
        secret: The client's secret; empty for a public client.
        person: The claims of whoever signs in.
        wrong: Claims that it puts into tokens instead of the right ones.
        only_userinfo: Claims that are not in the token, but answered by the userinfo endpoint.
        key: The key that it signs with.
        algorithm: The algorithm that it signs with.
        issuer: Its URL.
        description: Members of its description that differ.
        raw: Path → the body and headers that it answers with instead.
    """

    redirect_uri: str = ""
    secret: str = SECRET
    person: dict[str, Any] = field(default_factory=lambda: {"sub": "17", "preferred_username": "vera"})
    wrong: dict[str, Any] = field(default_factory=dict)
    only_userinfo: set[str] = field(default_factory=set)
    key: RSAKey = field(default_factory=_first_key)
    algorithm: str = "RS256"
    issuer: str = ""
    description: dict[str, Any] = field(default_factory=dict)
    raw: dict[str, tuple[bytes, dict[str, str]]] = field(default_factory=dict)
    verifiers: list[str] = field(default_factory=list)
    codes: dict[str, _Code] = field(default_factory=dict)
    tokens: dict[str, _Token] = field(default_factory=dict)
    published: list[RSAKey] = field(default_factory=list)

    def settings(self) -> dict[str, str]:
        """Return the variables with which a dashboard signs people in here."""
        return {
            "RABBITRY_OIDC_ISSUER": self.issuer,
            "RABBITRY_OIDC_CLIENT_ID": CLIENT_ID,
            "RABBITRY_OIDC_CLIENT_SECRET": self.secret,
            "RABBITRY_OIDC_URL": self.redirect_uri.removesuffix("oidc-callback"),
        }


def _grants(state: RunningProvider) -> tuple[type[AuthorizationCodeGrant], OpenIDCode]:
    class Grant(AuthorizationCodeGrant):  # type: ignore[misc] # Authlib brings no types
        TOKEN_ENDPOINT_AUTH_METHODS = ["client_secret_basic", "none"]  # noqa: RUF012 # as Authlib has it

        def save_authorization_code(self, code: str, request: Any) -> None:
            asked = request.payload.data
            state.codes[code] = _Code(
                request.payload.redirect_uri, request.payload.scope, asked.get("nonce", ""),
                asked["code_challenge"], asked["code_challenge_method"],
            )  # fmt: skip

        def query_authorization_code(self, code: str, client: object) -> _Code | None:
            return state.codes.get(code)

        def delete_authorization_code(self, authorization_code: _Code) -> None:
            state.codes = {code: one for code, one in state.codes.items() if one is not authorization_code}

        def authenticate_user(self, authorization_code: _Code) -> dict[str, Any]:
            return state.person

    class Identity(OpenIDCode):  # type: ignore[misc] # Authlib brings no types
        def exists_nonce(self, nonce: str, request: object) -> bool:
            return any(code.nonce == nonce for code in state.codes.values())

        def resolve_client_private_key(self, client: object) -> RSAKey:
            return state.key

        def get_client_algorithm(self, client: object) -> str:
            return state.algorithm

        def get_encode_header(self, client: object) -> dict[str, str]:
            return {"alg": state.algorithm, "kid": str(state.key.kid)}

        def get_client_claims(self, client: object) -> dict[str, Any]:
            return {"iss": state.issuer, "aud": [CLIENT_ID]}

        def generate_user_info(self, user: dict[str, Any], scope: str) -> dict[str, Any]:
            return {name: value for name, value in user.items() if name not in state.only_userinfo} | state.wrong

    return Grant, Identity(require_nonce=True)


def _application(state: RunningProvider) -> Flask:
    app = Flask("provider")
    server = AuthorizationServer(
        app,
        query_client=lambda client_id: _Client(state.redirect_uri, state.secret) if client_id == CLIENT_ID else None,
        save_token=lambda token, _: state.tokens.update({token["access_token"]: _Token(token["scope"])}),
    )
    grant, identity = _grants(state)
    server.register_grant(grant, [identity, CodeChallenge(required=True)])

    class Validator(BearerTokenValidator):  # type: ignore[misc] # Authlib brings no types
        def authenticate_token(self, token_string: str) -> _Token | None:
            return state.tokens.get(token_string)

    protect = ResourceProtector()
    protect.register_token_validator(Validator())

    @app.before_request
    def answer_otherwise() -> Response | None:
        found = state.raw.get(request.path)
        return None if found is None else Response(found[0], headers=found[1])

    @app.get("/.well-known/openid-configuration")
    def describe() -> Response:
        described = {
            "issuer": state.issuer,
            "authorization_endpoint": f"{state.issuer}/authorize",
            "token_endpoint": f"{state.issuer}/token",
            "jwks_uri": f"{state.issuer}/keys",
            "userinfo_endpoint": f"{state.issuer}/userinfo",
            "end_session_endpoint": f"{state.issuer}/leave",
        }
        return jsonify(described | state.description)

    @app.get("/authorize")
    def authorize() -> Any:
        found = server.get_consent_grant(end_user=state.person)
        return server.create_authorization_response(request=None, grant_user=state.person, grant=found)

    @app.post("/token")
    def token() -> Any:
        state.verifiers.append(request.form.get("code_verifier", ""))
        return server.create_token_response()

    @app.get("/keys")
    def keys() -> Response:
        return jsonify(KeySet([*state.published] or [state.key]).as_dict(private=False))

    @app.get("/leave")
    def leave() -> str:
        return "<!doctype html><link rel=icon href=data:,><p>You have left."

    @app.get("/userinfo")
    @protect("openid")  # type: ignore[untyped-decorator] # Authlib brings no types
    def userinfo() -> Response:
        assert current
        return jsonify(state.person)

    return app


@contextlib.contextmanager
def running_provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningProvider]:
    """Run a provider on a free port of 127.0.0.1."""
    monkeypatch.setenv("AUTHLIB_INSECURE_TRANSPORT", "1")  # its server refuses http otherwise, on loopback too
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    state = RunningProvider()
    server = make_server("127.0.0.1", 0, _application(state), threaded=True)
    state.issuer = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, name="provider")
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
