"""Signing in and out, over the dashboard's own routes."""

import asyncio
import contextlib
import re
import threading
from functools import partial
from pathlib import Path

import httpx
import msgspec
import pytest
import websockets

from rabbitry.apps.exceptions import InvitationRefused
from rabbitry.apps.passwords import hash_password, is_password
from rabbitry.apps.users_file import Account, changed_users, invited
from rabbitry.runtime.http.guesses import FREE, FREE_TOGETHER, Guesses
from rabbitry.runtime.http.serving import serve
from rabbitry.runtime.listening import listen
from rabbitry.web.login.accounts import Accounts, TooManyGuesses
from rabbitry.web.login.sessions import TOKEN_HEADER
from tests.support.waiting import eventually_awaited
from tests.web.login.dashboards import PASSWORD, client, dashboard, running, sign_in, token_in, users_file

_HTML = {"Accept": "text/html,*/*"}
_OUTSIDE = "http://192.0.2.7:8003"
"""An address that other machines reach."""


async def test_a_browser_is_led_to_the_login_and_back(tmp_path: Path) -> None:
    app = dashboard(tmp_path)
    async with client(app, url=_OUTSIDE) as http:
        for path, place in {
            "/": "login/",
            "/queues/?queue=a%2Fb": "../login/?to=queues%2F%3Fqueue%3Da%252Fb",
            "/audit/api/entries": "../../login/?to=audit%2Fapi%2Fentries",
            "//evil.example/%2F..": "../../login/?to=evil.example%2F%252F..",
        }.items():
            answer = await http.get(httpx.URL(_OUTSIDE).copy_with(raw_path=path.encode()), headers=_HTML)
            assert (answer.status_code, answer.headers["location"]) == (303, place)
        refused = await http.get("/audit/api/entries")
        assert (refused.status_code, refused.json()) == (401, {"error": "sign in first"})
        assert "basic" not in refused.headers["www-authenticate"].lower()  # a browser would ask for it with a dialog
        page = await http.get("/login/")
        assert "unsafe" not in page.headers["content-security-policy"]
        assert "<script" not in re.sub(r'<script [^>]*src="[^"]+"></script>', "", page.text)


async def test_a_session_has_a_cookie_of_its_own_until_it_is_ended(tmp_path: Path) -> None:
    app = dashboard(tmp_path)
    async with client(app, url=_OUTSIDE) as http:
        http.cookies.set("rabbitry_page_8003", "chosen-by-somebody-else", domain="192.0.2.7")
        answer = await sign_in(http, "vera")
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly; SameSite=Strict" in cookie
        assert "Secure" not in cookie
        assert "Path" not in cookie  # the folder of the request's URL, which is right behind a proxy's prefix
        assert "chosen" not in cookie
        page = (await http.get("/audit/")).text
        assert "<bdi>vera</bdi>, viewer" in page
        assert f'content="{http.headers[TOKEN_HEADER]}"' in page
        assert (await http.post("/logout", headers={TOKEN_HEADER: "x"})).status_code == 403
        assert (await http.post("/logout")).status_code == 200
        http.cookies.clear()
        assert (await http.get("/audit/", headers={"Cookie": cookie.partition(";")[0]})).status_code == 401


async def test_each_session_has_a_token_of_its_own(tmp_path: Path) -> None:
    app = dashboard(tmp_path)
    async with client(app) as one, client(app) as other:
        await sign_in(one, "ada")
        await sign_in(other, "ada")
        assert one.headers[TOKEN_HEADER] != other.headers[TOKEN_HEADER]
        one.headers[TOKEN_HEADER] = other.headers[TOKEN_HEADER]
        assert (await one.post("/logout")).status_code == 403


@pytest.mark.parametrize(("origin", "secure"), [("https://192.0.2.7:8003", True), ("http://192.0.2.7:8003", False)])
async def test_the_cookie_of_a_tls_login_is_only_sent_over_tls(tmp_path: Path, origin: str, secure: bool) -> None:
    async with client(dashboard(tmp_path), url=_OUTSIDE) as http:
        http.headers["Origin"] = origin
        http.headers[TOKEN_HEADER] = token_in((await http.get("/login/")).text)
        answer = await http.post("/session", json={"name": "vera", "password": PASSWORD})
        assert ("; Secure" in answer.headers["set-cookie"]) is secure


async def test_another_site_can_not_sign_anybody_in(tmp_path: Path) -> None:
    async with client(dashboard(tmp_path)) as http:
        typed = {"name": "vera", "password": PASSWORD}
        token = token_in((await http.get("/login/")).text)
        assert (await http.post("/session", json=typed)).status_code == 403
        for header in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
            assert (await http.post("/session", json=typed, headers={TOKEN_HEADER: token} | header)).status_code == 403


async def test_wrong_passwords_cost_the_address_and_the_name_a_pause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rabbitry.web.login.accounts.Guesses", partial(Guesses, lambda: 0.0))
    names = [str(number) for number in range(FREE_TOGETHER - FREE)]
    app = dashboard(tmp_path, users=users_file(tmp_path, dict.fromkeys(["vera", "ada", "bob", *names], "viewer")))
    async with client(app, "198.51.100.1", _OUTSIDE) as guesser, client(app, "198.51.100.2", _OUTSIDE) as other:
        answers = [await sign_in(guesser, "vera", "wrong") for _ in range(2 * FREE)]
        assert [answer.status_code for answer in answers] == [401] * FREE + [429] * FREE
        assert {answer.text for answer in answers[:FREE]} == {'{"error":"wrong name or password"}'}
        assert (await sign_in(guesser, "ada")).status_code == 200  # others at the address, behind a router, can sign in
        assert {(await sign_in(guesser, name, "wrong")).status_code for name in names} == {401}
        refused = await sign_in(guesser, "bob")
        assert (refused.status_code, refused.json()["error"]) == (
            429,
            "Too many wrong passwords from 198.51.100.1: try again in 1 s",
        )
        assert (await sign_in(other, "vera")).json()[
            "error"
        ] == "Too many wrong passwords for this name: try again in 1 s"
        assert (await sign_in(other, "ada")).status_code == 200


async def test_guesses_sent_at_once_are_all_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rabbitry.web.login.accounts.Guesses", partial(Guesses, lambda: 0.0))
    app = dashboard(tmp_path)
    async with client(app) as http:
        http.headers[TOKEN_HEADER] = token_in((await http.get("/login/")).text)
        sent = [http.post("/session", json={"name": "vera", "password": f"wrong {n}"}) for n in range(3 * FREE)]
        statuses = [answer.status_code for answer in await asyncio.gather(*sent)]
        assert sorted(statuses) == [401] * FREE + [429] * 2 * FREE


async def test_a_class_behind_one_router_signs_in_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rabbitry.web.login.accounts.Guesses", partial(Guesses, lambda: 0.0))
    names = [f"student{number}" for number in range(2 * FREE_TOGETHER)]
    accounts = Accounts(users_file(tmp_path, dict.fromkeys(names, "viewer")), None, lambda _: None)
    for name in names[: FREE_TOGETHER - 1]:  # one more wrong password, and the address would have to wait
        assert await accounts.check(name, "wrong", "198.51.100.1") is None
    found = await asyncio.gather(*(accounts.check(name, PASSWORD, "198.51.100.1") for name in names))
    assert [person and person.name for person in found] == names


async def test_with_the_shared_password_only_the_address_limits_guesses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rabbitry.web.login.accounts.Guesses", partial(Guesses, lambda: 0.0))
    accounts = Accounts(tmp_path / "none.json", "shared secret", lambda _: None)
    sent = [accounts.check(str(number), "wrong", "198.51.100.1") for number in range(2 * FREE)]
    found = await asyncio.gather(*sent, return_exceptions=True)
    assert [type(one) for one in found] == [type(None)] * FREE + [TooManyGuesses] * FREE
    assert await accounts.check("anyone", "shared secret", "198.51.100.2") is not None


async def test_programs_send_name_and_password_with_each_request(tmp_path: Path) -> None:
    app = dashboard(tmp_path, password="shared secret")
    async with client(app) as http:
        many = await asyncio.gather(*(http.get("/audit/", auth=("vera", PASSWORD)) for _ in range(3 * FREE)))
        assert {answer.status_code for answer in many} == {200}  # one attempt, and none that is wrong
        assert http.cookies == {}
        assert (await http.post("/queues/api/purge", auth=("vera", PASSWORD))).status_code == 403
        assert (await http.post("/queues/api/purge", auth=("ada", PASSWORD))).status_code == 400  # without a token
        shared = (await http.get("/session", auth=("anyone", "shared secret"))).json()
        assert shared == {"name": "anyone", "role": "admin", "has_login": True}
        assert (await http.get("/session", auth=("vera", "shared secret"))).status_code == 401  # vera has her own


async def test_hostile_names_are_text(tmp_path: Path) -> None:
    name = '<script>alert("1")</script>&"'
    app = dashboard(tmp_path, users=users_file(tmp_path, {name: "viewer"}))
    async with client(app) as http:
        await sign_in(http, name)
        page = (await http.get("/audit/")).text
        assert "&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&amp;&quot;" in page
        assert "<script>" not in page
        for wrong in ("\0", "x" * 5000, "\ud800", "a\nb", ""):
            async with client(app) as other:
                body = msgspec.json.encode({"name": wrong.encode("utf-8", "replace").decode(), "password": "p"})
                other.headers[TOKEN_HEADER] = token_in((await other.get("/login/")).text)
                assert (await other.post("/session", content=body)).status_code in (401, 429)
        for body in (b"", b"[]", b'{"name": 1, "password": "x"}', b'{"name": "a"}', b"\xff", b"{" * 5000):
            async with client(app) as other:
                other.headers[TOKEN_HEADER] = token_in((await other.get("/login/")).text)
                assert (await other.post("/session", content=body)).status_code == 400


async def test_without_users_this_machine_has_all_rights_and_a_proxy_none(tmp_path: Path) -> None:
    app = dashboard(tmp_path, users=tmp_path / "none.json")
    async with running(app), client(app) as http:
        assert (await http.get("/session")).json() == {"name": "", "role": "admin", "has_login": False}
        refused = await http.get("/", headers={"X-Forwarded-For": "192.0.2.1"})
        assert refused.status_code == 403
        assert "has no login" in refused.json()["error"]
        users_file(tmp_path).rename(tmp_path / "none.json")
        await eventually_awaited(lambda: _is_asked(app), "people have to sign in")


async def _is_asked(app: object) -> bool:
    async with client(app) as http:  # type: ignore[arg-type] # a FastAPI
        return (await http.get("/session")).json()["has_login"] is True


async def test_a_websocket_ends_with_its_session_and_with_its_user(tmp_path: Path) -> None:
    app = dashboard(tmp_path)
    (listener,) = listen("127.0.0.1", 0)
    port, stop = listener.getsockname()[1], asyncio.Event()
    serving = asyncio.create_task(serve(app, [listener], stop))
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
            for end in ("sign out", "remove the user"):
                await sign_in(http, "vera")
                cookie = "; ".join(f"{name}={value}" for name, value in http.cookies.items())
                url, headers = f"ws://127.0.0.1:{port}/feed", {"Cookie": cookie}
                async with websockets.connect(url, proxy=None, additional_headers=headers) as socket:
                    await socket.recv()
                    if end == "sign out":
                        assert (await http.post("/logout")).status_code == 200
                    else:
                        users_file(tmp_path, {"otto": "operator"})
                    async with asyncio.timeout(90):
                        with contextlib.suppress(websockets.ConnectionClosed):
                            while True:
                                await socket.recv()
                    assert (socket.close_code, socket.close_reason) == (1008, "you are signed out")
                assert (await http.get("/audit/")).status_code == 401
                http.cookies.clear()
    finally:
        stop.set()
        await serving


async def test_websockets_without_a_session_end_with_their_user_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rabbitry.web.login.accounts.LOOK_AGAIN", 0.1)
    file = tmp_path / "later.json"
    (listener,) = listen("127.0.0.1", 0)
    port, stop = listener.getsockname()[1], asyncio.Event()
    serving = asyncio.create_task(serve(dashboard(tmp_path, users=file), [listener], stop))
    url = f"ws://127.0.0.1:{port}/feed"
    otto = {"Authorization": httpx.BasicAuth("otto", PASSWORD)._auth_header}  # as httpx sends it
    try:
        async with websockets.connect(url, proxy=None) as nobody:
            await nobody.recv()
            users_file(tmp_path, {"otto": "operator", "vera": "viewer"}).replace(file)
            assert await _close_code(nobody) == 1008
        async with websockets.connect(url, proxy=None, additional_headers=otto) as program:
            await program.recv()
            users_file(tmp_path, {"otto": "viewer", "vera": "viewer"}).replace(file)
            assert await _close_code(program) == 1008
    finally:
        stop.set()
        await serving


async def _close_code(socket: websockets.ClientConnection) -> int | None:
    async with asyncio.timeout(90):
        with contextlib.suppress(websockets.ConnectionClosed):
            while True:
                await socket.recv()
    return socket.close_code


async def test_the_shared_password_takes_no_name_with_control_characters(tmp_path: Path) -> None:
    app = dashboard(tmp_path, users=tmp_path / "none.json", password=PASSWORD)
    async with client(app) as http:
        for name, status in (("any name", 200), ("", 200), ("two\nlines", 401), ("nul\0", 401), ("\u202ename", 401)):
            assert (await http.get("/session", auth=(name, PASSWORD))).status_code == status


async def test_only_a_trusted_proxy_says_where_a_request_comes_from(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    app = dashboard(tmp_path)
    (listener,) = listen("127.0.0.1", 0)
    port, stop = listener.getsockname()[1], asyncio.Event()
    serving = asyncio.create_task(serve(app, [listener], stop))
    try:
        for address, told in (("127.0.0.1", "198.51.100.9"), ("127.0.0.2", "127.0.0.2")):
            transport = httpx.AsyncHTTPTransport(local_address=address)
            async with httpx.AsyncClient(transport=transport, base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
                http.headers["X-Forwarded-For"] = "198.51.100.9"
                assert (await sign_in(http, "vera", "wrong")).status_code == 401
                assert caplog.messages[-1] == f"sign-in refused for 'vera' from {told}"
    finally:
        stop.set()
        await serving


async def test_an_invited_person_sets_a_password_and_is_signed_in(tmp_path: Path) -> None:
    file = users_file(tmp_path)
    with changed_users(file) as users:
        users["zoë"], token = invited(Account("viewer", ""), 60)
    app = dashboard(tmp_path, users=file)
    async with running(app), client(app) as http:
        assert (await http.get("/session", auth=("zoë", ""))).status_code == 401  # no password is not an empty one
        http.headers[TOKEN_HEADER] = token_in((await http.get("/login/")).text)
        first = await http.post("/session", json={"name": "zoë", "password": token})  # as a first password is typed
        assert (first.status_code, first.json()["is_first"], "set-cookie" in first.headers) == (403, True, False)
        same = await http.post("/invitation", json={"token": token, "password": token})
        assert (same.status_code, "choose another" in same.text) == (400, True)
        short = await http.post("/invitation", json={"token": token, "password": "short"})
        assert (short.status_code, "8 to 1024" in short.text) == (400, True)
        answer = await http.post("/invitation", json={"token": token, "password": PASSWORD})
        assert (answer.status_code, answer.json()) == (200, {"name": "zoë"})
        assert (await http.get("/audit/")).status_code == 200
        http.cookies.clear()
        assert (await http.get("/session", auth=("zoë", PASSWORD))).json()["role"] == "viewer"
        statuses = []
        for number in range(FREE_TOGETHER):
            given = {"token": token if number == 0 else f"guess {number}", "password": PASSWORD}
            statuses.append((await http.post("/invitation", json=given)).status_code)
        assert statuses == [403] * (FREE_TOGETHER - 1) + [429]  # the wrong password above counts too


async def test_a_password_that_is_replaced_while_it_is_checked_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, begun, go_on = users_file(tmp_path), threading.Event(), threading.Event()

    def slowly(password: str, hashed: str) -> bool:
        begun.set()
        return go_on.wait(60) and is_password(password, hashed)

    monkeypatch.setattr("rabbitry.web.login.accounts.is_password", slowly)
    changed = asyncio.Event()
    accounts = Accounts(file, None, lambda _: changed.set())
    async with accounts.running():
        checking = asyncio.create_task(accounts.check("ada", PASSWORD, "127.0.0.1"))
        await asyncio.to_thread(begun.wait, 60)
        with changed_users(file) as users:
            users["ada"] = Account("admin", hash_password("another horse", log_cost=1))
        await changed.wait()
        go_on.set()
        assert await checking is None
        assert await accounts.check("ada", PASSWORD, "127.0.0.1") is None  # it is not remembered as right either
        assert await accounts.check("ada", "another horse", "127.0.0.1") is not None


async def test_wrong_tokens_sent_at_once_are_all_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rabbitry.web.login.accounts.Guesses", partial(Guesses, lambda: 0.0))
    accounts = Accounts(users_file(tmp_path), None, lambda _: None)
    sent = [accounts.accept(f"guess {number}", PASSWORD, "198.51.100.1") for number in range(2 * FREE_TOGETHER)]
    kinds = [type(found) for found in await asyncio.gather(*sent, return_exceptions=True)]
    assert kinds == [InvitationRefused] * FREE_TOGETHER + [TooManyGuesses] * FREE_TOGETHER
