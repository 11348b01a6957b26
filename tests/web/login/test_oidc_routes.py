"""Signing in through an OpenID Connect provider: Authlib's own server, over loopback."""

import asyncio
import contextlib
import gzip
import json
import re
from collections.abc import AsyncIterator, Iterator
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from joserfc.jwk import RSAKey

from rabbitry.runtime.http.guesses import FREE, Guesses
from rabbitry.web.login.oidc.settings import provider_of
from rabbitry.web.login.oidc_routes import _BURST
from rabbitry.web.login.sessions import TOKEN_HEADER
from tests.support.oidc_provider import RunningProvider, running_provider
from tests.web.login.dashboards import client, dashboard, sign_in, token_in

_PAGE = "http://127.0.0.1:8003"


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[RunningProvider]:
    with running_provider(monkeypatch) as running:
        running.redirect_uri = f"{_PAGE}/oidc-callback"
        yield running


@pytest.fixture
async def http(provider: RunningProvider, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    app = dashboard(tmp_path, provider=provider_of(provider.settings()))
    async with client(app) as made:
        yield made


async def _there(http: httpx.AsyncClient, to: str = "") -> str:
    """Go to the provider, and return the URL to which it sends the browser back."""
    begun = await http.get("/oidc", params={"to": to} if to else {})
    assert begun.status_code == 303, begun.text
    async with httpx.AsyncClient(trust_env=False, timeout=60) as other:
        answer = await other.get(begun.headers["location"])
    assert answer.status_code == 302, answer.text
    return str(answer.headers["location"])


async def _back(http: httpx.AsyncClient, to: str = "") -> httpx.Response:
    return await http.get(await _there(http, to))


def _text(answer: httpx.Response) -> str:
    return unescape(" ".join(re.sub("<[^>]+>", " ", answer.text.partition("<body>")[2]).split()))


async def test_a_person_with_an_account_signs_in_and_out(http: httpx.AsyncClient, provider: RunningProvider) -> None:
    assert '<a href="../oidc">Sign in with single sign-on</a>' in (await http.get("/login/")).text
    answer = await _back(http, "audit/?page=2")
    assert answer.status_code == 200
    # The page goes on by itself: a redirect from another site would not carry a `SameSite=Strict` cookie.
    assert '<meta http-equiv="refresh" content="0; url=./audit/?page=2">' in answer.text
    cookies = answer.headers.get_list("set-cookie")
    assert any("HttpOnly; SameSite=Strict" in cookie for cookie in cookies)
    assert any("_oidc=; Max-Age=0" in cookie for cookie in cookies)
    assert not any("Path" in cookie for cookie in cookies)
    assert (await http.get("/session")).json() == {"name": "vera", "role": "viewer", "has_login": True}
    http.headers[TOKEN_HEADER] = token_in((await http.get("/audit/")).text)
    left = (await http.post("/logout")).json()
    assert left == {"done": "signed out", "leave": f"{provider.issuer}/leave?client_id=rabbitry"}
    assert (await http.get("/audit/")).status_code == 401
    assert (await sign_in(http, "otto")).status_code == 200  # the other login goes on
    assert (await http.post("/logout")).json() == {"done": "signed out"}


async def test_the_request_has_pkce_state_nonce_and_the_exact_place(provider: RunningProvider, tmp_path: Path) -> None:
    provider.redirect_uri = "https://course.example.org/board/oidc-callback"
    app = dashboard(tmp_path, provider=provider_of(provider.settings()))
    async with client(app, url="http://127.0.0.1:8003") as http:  # behind a proxy with a prefix
        begun = await http.get("/oidc")
        asked = {name: values[0] for name, values in parse_qs(urlsplit(begun.headers["location"]).query).items()}
        assert asked["redirect_uri"] == provider.redirect_uri
        assert (asked["code_challenge_method"], asked["response_type"]) == ("S256", "code")
        assert len({asked["state"], asked["nonce"], asked["code_challenge"]}) == 3
        assert min(len(asked[name]) for name in ("state", "nonce", "code_challenge")) == 43
        cookie = begun.headers["set-cookie"]
        assert "Max-Age=600; HttpOnly; SameSite=Lax; Secure" in cookie
        assert "Path" not in cookie
        # A provider refuses a place that is not exactly the registered one.
        provider.redirect_uri = "https://course.example.org/oidc-callback"
        async with httpx.AsyncClient(trust_env=False, timeout=60) as other:
            refused = await other.get(begun.headers["location"])
        assert "code=" not in refused.headers.get("location", "")


@pytest.mark.parametrize(
    "wrong",
    [
        {"nonce": "another"},
        {"aud": ["another"]},
        {"aud": ["rabbitry", "another"], "azp": "another"},
        {"iss": "https://another.example"},
        {"exp": 1},
        {"iat": 1 << 40},
        {"at_hash": "another"},
    ],
    ids=lambda wrong: ",".join(wrong),
)
async def test_a_token_that_is_not_for_this_sign_in_is_refused(
    http: httpx.AsyncClient, provider: RunningProvider, wrong: dict[str, Any]
) -> None:
    provider.wrong = wrong
    answer = await _back(http)
    assert answer.status_code == 403
    assert "The answer of single sign-on is not valid here" in _text(answer)
    assert (await http.get("/audit/")).status_code == 401


async def test_a_token_with_a_wrong_signature_is_refused_and_a_new_key_is_not(
    http: httpx.AsyncClient, provider: RunningProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = provider.key
    provider.published = [known]
    provider.key = RSAKey.generate_key(2048, {"kid": "one"})
    assert (await _back(http)).status_code == 403
    provider.key = RSAKey.generate_key(2048, {"kid": "two"})
    assert (await _back(http)).status_code == 403
    monkeypatch.setattr("rabbitry.web.login.oidc.provider._KEYS_AGAIN", 0.0)
    provider.published = [known, provider.key]
    assert (await _back(http)).status_code == 200


async def test_a_forged_or_repeated_answer_is_refused(http: httpx.AsyncClient, provider: RunningProvider) -> None:
    place = await _there(http)
    forged = httpx.URL(place).copy_set_param("state", "forged")
    mixed = httpx.URL(place).copy_set_param("iss", "https://another.example")
    stolen = dict(http.cookies)
    for url in (forged, mixed):
        answer = await http.get(url)
        assert (answer.status_code, "Begin again." in _text(answer)) == (400, True)
    assert provider.tokens == {}
    assert (await http.get(place)).status_code == 400  # the cookie served once
    sealed = stolen["rabbitry_page_8003_oidc"]
    for cookie in ("x", f"x{sealed}", f"{sealed}x", sealed.partition(".")[0]):
        assert (await http.get(place, headers={"Cookie": f"rabbitry_page_8003_oidc={cookie}"})).status_code == 400
    kept = {"Cookie": f"rabbitry_page_8003_oidc={sealed}"}
    assert (await http.get(place, headers=kept)).status_code == 200
    again = await http.get(place, headers=kept)  # the provider takes each code once
    assert (again.status_code, "refused this sign-in" in _text(again)) == (403, True)
    denied = httpx.URL(await _there(http)).copy_remove_param("code").copy_set_param("error", "access_denied")
    assert _text(await http.get(denied)).startswith("You are not signed in Single sign-on did not sign you in.")


async def test_the_answer_of_another_tab_leaves_this_tabs_sign_in(http: httpx.AsyncClient) -> None:
    first, second = await _there(http), await _there(http)
    answer = await http.get(first)
    assert (answer.status_code, f"was not begun in this browser at {_PAGE}/" in _text(answer)) == (400, True)
    assert (await http.get("/oidc-callback?code=x&state=x")).status_code == 400  # nor does anybody's link end it
    assert (await http.get(second)).status_code == 200


@pytest.mark.parametrize("path", ["/token", "/keys", "/userinfo"])
async def test_an_answer_of_another_form_is_refused_in_words(
    http: httpx.AsyncClient, provider: RunningProvider, path: str
) -> None:
    provider.only_userinfo = {"preferred_username"}
    for body in (b"", b"[]", b"5", b"null", b'{"a":' + b"[" * 100_000, b"\xff", b"{}"):
        provider.raw = {path: (body, {})}
        answer = await _back(http)
        assert (answer.status_code, "does not answer as it should" in _text(answer)) == (502, True), body[:9]


async def test_a_compressed_answer_is_refused_before_it_is_unpacked(
    http: httpx.AsyncClient, provider: RunningProvider, caplog: pytest.LogCaptureFixture
) -> None:
    bomb = gzip.compress(b" " * (1 << 24))
    assert len(bomb) < 1 << 20
    provider.raw = {"/keys": (bomb, {"Content-Encoding": "gzip"})}
    assert (await _back(http)).status_code == 502
    assert "answers with a compressed body, which was not asked for" in caplog.text


async def test_keys_of_unknown_kinds_do_not_hide_the_others(
    http: httpx.AsyncClient, provider: RunningProvider, caplog: pytest.LogCaptureFixture
) -> None:
    strange = [
        {"kty": "EC", "crv": "BP-256", "x": "AQ", "y": "AQ", "kid": "one"},
        {"kty": "AKP", "alg": "ML-DSA-44", "pub": "AQ", "kid": "two"},
        {"kty": "RSA", "n": "AQ", "kid": "three"},
        {"use": "sig"},
    ]
    keys = [*strange, provider.key.as_dict(private=False)]
    provider.raw = {"/keys": (json.dumps({"keys": keys}).encode(), {})}
    assert (await _back(http)).status_code == 200


async def test_a_set_without_a_usable_key_is_refused(
    http: httpx.AsyncClient, provider: RunningProvider, caplog: pytest.LogCaptureFixture
) -> None:
    provider.raw = {"/keys": (b'{"keys": [{"kty": "AKP"}]}', {})}
    assert (await _back(http)).status_code == 502
    assert "/keys has no key that can be used, among 1" in caplog.text


async def test_unknown_people_are_refused_by_their_name_as_text(
    http: httpx.AsyncClient, provider: RunningProvider
) -> None:
    for name in ("nobody", "<b>eve</b>", "Vera", "x" * 5000, ""):
        provider.person = {"sub": "18", "preferred_username": name}
        answer = await _back(http)
        assert answer.status_code == 403, name
        assert "<b>" not in answer.text
        assert ("nobody of that name has an account here" in _text(answer)) is (name != "")
    for strange in (["vera"], "ve\nra", "\u202evera", "vera\0"):
        provider.person = {"sub": "18", "preferred_username": strange}
        assert "does not tell who you are" in _text(await _back(http))


async def test_only_a_verified_address_names_an_account_and_userinfo_may_have_it(
    provider: RunningProvider, tmp_path: Path
) -> None:
    settings = provider.settings() | {"RABBITRY_OIDC_CLAIM": "email", "RABBITRY_OIDC_TITLE": "Uni & Co"}
    app = dashboard(tmp_path, provider=provider_of(settings))
    async with client(app) as http:
        assert "Sign in with Uni &amp; Co" in (await http.get("/login/")).text
        provider.person = {"sub": "17", "email": "otto"}
        assert "has not verified your email address" in _text(await _back(http))
        provider.person |= {"email_verified": True}
        provider.only_userinfo = {"email", "email_verified"}
        assert (await _back(http)).status_code == 200
        assert (await http.get("/session")).json()["name"] == "otto"
        provider.wrong = {"sub": "another"}
        assert (await _back(http)).status_code == 502


async def test_without_the_provider_the_other_login_goes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with running_provider(monkeypatch) as provider:
        provider.redirect_uri = f"{_PAGE}/oidc-callback"
        settings = provider_of(provider.settings())
    async with client(dashboard(tmp_path, provider=settings)) as http:
        answer = await http.get("/oidc")
        assert answer.status_code == 502
        assert "Single sign-on can't be reached" in _text(answer)
        assert (await sign_in(http, "vera")).status_code == 200


async def test_a_description_that_is_not_the_providers_is_refused(
    provider: RunningProvider, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for member, value in {
        "issuer": "https://another.example",
        "token_endpoint": "http://192.0.2.1/token",
        "jwks_uri": None,
        "end_session_endpoint": "https://id.example.org:port/",
        "padding": "x" * (1 << 20),
    }.items():
        provider.description = {member: value}
        async with client(dashboard(tmp_path, provider=provider_of(provider.settings()))) as http:
            assert (await http.get("/oidc")).status_code == 502, member
    assert "describes the issuer 'https://another.example'" in caplog.text
    assert "names 'http://192.0.2.1/token', which is not an HTTPS URL" in caplog.text
    assert "answers with more than 1048576 bytes" in caplog.text


async def test_failed_sign_ins_cost_the_address_a_pause(
    http: httpx.AsyncClient, provider: RunningProvider, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("rabbitry.web.login.oidc_routes.Guesses", lambda: Guesses(lambda: 0.0))
    async with client(dashboard(tmp_path, provider=provider_of(provider.settings()))) as limited:
        statuses = []
        for _ in range(FREE + 1):
            place = httpx.URL(await _there(limited)).copy_set_param("code", "guessed")
            statuses.append((await limited.get(place)).status_code)
        assert statuses == [403] * FREE + [429]


async def test_a_class_behind_one_router_signs_in_at_once(provider: RunningProvider, tmp_path: Path) -> None:
    app = dashboard(tmp_path, provider=provider_of(provider.settings()))
    async with contextlib.AsyncExitStack() as stack:
        browsers = [await stack.enter_async_context(client(app)) for _ in range(FREE + 3)]
        places = [await _there(browser) for browser in browsers]
        back = zip(browsers, places, strict=True)
        answers = await asyncio.gather(*(browser.get(place) for browser, place in back))
        assert [answer.status_code for answer in answers] == [200] * len(browsers)


async def test_an_address_that_begins_too_often_has_to_wait(
    provider: RunningProvider, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("rabbitry.web.login.oidc_routes._PAUSE", 3600.0)
    app = dashboard(tmp_path, provider=provider_of(provider.settings()))
    async with client(app) as http, client(app, "192.0.2.7") as elsewhere:
        assert {(await http.get("/oidc")).status_code for _ in range(_BURST)} == {303}
        refused = await http.get("/oidc")
        assert refused.status_code == 429
        assert 3000 < int(refused.headers["Retry-After"]) <= 3600  # of an hour, time has passed
        assert "Too many sign-ins begin at your address now." in _text(refused)
        assert (await elsewhere.get("/oidc")).status_code == 303


async def test_a_page_elsewhere_is_not_gone_to(http: httpx.AsyncClient) -> None:
    wide = "\u20ac" * 600  # 1800 bytes: with them the cookie would be too large for browsers
    for to in (
        wide,
        "//evil.example",
        "https:\\\\evil.example",
        "../../other",
        "a\nb",
        "x" * 2000,
        "https://evil.example",
    ):
        answer = await _back(http, to)
        assert answer.status_code == 200
        found = re.search(r'content="0; url=\./([^"]*)"', answer.text)
        assert found is not None
        assert found[1] in ("", "https://evil.example")  # a path of this dashboard


async def test_a_secret_may_have_any_characters(provider: RunningProvider, tmp_path: Path) -> None:
    provider.secret = "100%25+a:b /ü&"  # read wrongly unless it is form-encoded
    async with client(dashboard(tmp_path, provider=provider_of(provider.settings()))) as http:
        assert (await _back(http)).status_code == 200


async def test_a_public_client_has_pkce_alone(provider: RunningProvider, tmp_path: Path) -> None:
    provider.secret = ""
    async with client(dashboard(tmp_path, provider=provider_of(provider.settings()))) as http:
        assert (await _back(http)).status_code == 200
        assert len(provider.verifiers[-1]) == 43


async def test_without_a_provider_its_routes_say_so(tmp_path: Path) -> None:
    async with client(dashboard(tmp_path)) as http:
        assert 'id="other"' not in (await http.get("/login/")).text
        for path in ("/oidc", "/oidc-callback"):
            answer = await http.get(path)
            assert (answer.status_code, "has no provider" in answer.text) == (404, True)
