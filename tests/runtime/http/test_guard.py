"""Who an HTTP service answers."""

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, Router

from rabbitry.runtime.http.guard import Guard, is_head
from rabbitry.runtime.http.guesses import ADDRESSES, FORGET_AFTER, FREE, LONGEST, Guesses


async def _hello(request: Request) -> PlainTextResponse:
    return PlainTextResponse("hello")


def client(url: str, *, names: tuple[str, ...] = (), password: str | None = None) -> httpx.AsyncClient:
    """A client of a guarded service; the host of `url` is the address that the service is reached at."""
    app = Guard(Starlette(routes=[Route("/", _hello)]), names=names, password=password)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=url)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1", "[::1]:8000", "my.name"])
async def test_names_of_this_machine_are_served(host: str) -> None:
    async with client("http://127.0.0.1:8000", names=("my.name",)) as http:
        assert (await http.get("/", headers={"Host": host})).text == "hello"


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "[::1", "", "127.0.0.1.evil.example"])
async def test_names_that_a_foreign_dns_server_may_resolve_are_refused(host: str) -> None:
    async with client("http://127.0.0.1:8000") as http:
        assert (await http.get("/", headers={"Host": host})).status_code == 421


async def test_without_a_password_only_this_machine_may_connect() -> None:
    async with client("http://192.0.2.7:8000") as http:
        refused = await http.get("/")
        assert refused.status_code == 403
        assert "APP_PASSWORD" in refused.text
        assert (await http.get("/", headers={"Host": "localhost"})).status_code == 403


async def test_with_a_password_other_machines_reach_it_by_any_name() -> None:
    async with client("http://192.0.2.7:8000", password="open sesame") as http:
        assert (await http.get("/")).status_code == 401
        assert (await http.get("/", auth=("me", "open"))).status_code == 401
        assert (await http.get("/", headers={"Authorization": "Basic ~~~"})).status_code == 401
        assert (await http.get("/", headers={"Host": "any.name"}, auth=("me", "open sesame"))).text == "hello"
        assert (await http.get("/")).text == "hello"  # by the cookie of the login


async def test_another_site_s_page_can_not_change_anything() -> None:
    app = Guard(Starlette(routes=[Route("/", _hello, methods=["GET", "POST"])]))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:8000") as http:
        for origin in ("https://evil.example", "null", "http://127.0.0.1:9000"):
            assert (await http.post("/", headers={"Origin": origin})).status_code == 403
            assert (await http.get("/", headers={"Origin": origin})).text == "hello"
        assert (await http.post("/", headers={"Origin": "http://127.0.0.1:8000"})).text == "hello"
        assert (await http.post("/")).text == "hello"  # programs that are no browsers


async def test_a_post_of_another_site_is_refused_also_without_an_origin() -> None:
    app = Guard(Starlette(routes=[Route("/", _hello, methods=["POST"])]))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:8000") as http:
        assert (await http.post("/", headers={"Sec-Fetch-Site": "cross-site"})).status_code == 403


async def test_wrong_passwords_cost_their_address_a_growing_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("rabbitry.runtime.http.guard.Guesses", lambda: Guesses(lambda: now))
    app = Guard(Starlette(routes=[Route("/", _hello)]), password="sesame")

    def at(address: str) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.ASGITransport(app, client=(address, 1)), base_url="http://192.0.2.7")

    async with at("198.51.100.1") as guesser, at("198.51.100.2") as other:
        for number in range(FREE):
            assert (await guesser.get("/", auth=("me", str(number)))).status_code == 401
        for pause in (1, 2, 4, 8, 16, 32, 60, 60):
            refused = await guesser.get("/", auth=("me", "sesame"))  # it may be right: that is not told
            assert (refused.status_code, refused.headers["retry-after"]) == (429, str(pause))
            assert "198.51.100.1" in refused.text
            assert (await guesser.get("/")).status_code == 401  # asks for nothing, and tries nothing
            now += pause
            assert (await guesser.get("/", auth=("me", "wrong"))).status_code == 401
        assert (await other.get("/", auth=("me", "sesame"))).status_code == 200
        now += 60
        assert (await guesser.get("/", auth=("me", "sesame"))).status_code == 200
        for _ in range(FREE):
            await guesser.get("/", auth=("me", "wrong"))
        assert (await guesser.get("/")).status_code == 200  # by the cookie, whoever guesses meanwhile


def test_addresses_that_guess_are_bounded_and_forgotten() -> None:
    now = 0.0
    guesses = Guesses(lambda: now)
    for number in range(ADDRESSES + 10):
        guesses.wrong(str(number))
    assert len(guesses) == ADDRESSES
    for _ in range(100):
        guesses.wrong("one")
    assert guesses.wait("one") == LONGEST
    now = FORGET_AFTER + 1
    guesses.wrong("one")
    assert guesses.wait("one") == 0


@pytest.mark.parametrize("others", ['x={"a":1}', "a b=1", "nothing", "x[y]=é", "rabbitry_page_8004=stale", ";;=;"])
async def test_cookies_of_other_services_on_the_host_are_ignored(others: str) -> None:
    app = Guard(Starlette(routes=[Route("/", _hello)]), password="sesame")
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://192.0.2.7:8003") as http:
        own = (await http.get("/", auth=("me", "sesame"))).headers["set-cookie"].partition(";")[0]
        http.cookies.clear()
        for cookies in (f"{others}; {own}", f"{own}; {others}", f"rabbitry_page_8003=stale; {own}"):
            assert (await http.get("/", headers=[(b"Cookie", cookies.encode())])).text == "hello"
        assert (await http.get("/", headers=[(b"Cookie", others.encode())])).status_code == 401


async def test_two_services_of_one_host_do_not_take_each_other_s_cookie_away() -> None:
    names = []
    for port in (8000, 8003):
        async with client(f"http://192.0.2.7:{port}", password="sesame") as http:
            names.append((await http.get("/", auth=("me", "sesame"))).headers["set-cookie"].partition("=")[0])
    assert names[0] != names[1]


@pytest.mark.parametrize(("scheme", "secure"), [("http", False), ("https", True)])
async def test_the_cookie_of_a_tls_login_is_only_sent_over_tls(scheme: str, secure: bool) -> None:
    async with client(f"{scheme}://192.0.2.7", password="sesame") as http:
        cookie = (await http.get("/", auth=("me", "sesame"))).headers["set-cookie"]
        assert ("; Secure" in cookie) is secure
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie


async def test_head_works_where_get_does() -> None:
    methods: list[str] = []

    async def tell(request: Request) -> PlainTextResponse:
        methods.append(f"{request.method} {is_head(request.scope)}")
        return PlainTextResponse("hello")

    app = Guard(Router([Route("/", tell, methods=["GET", "POST"])]))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as http:
        answer = await http.head("/")
        assert (answer.status_code, answer.content, answer.headers["content-length"]) == (200, b"", "5")
        assert (await http.get("/")).text == "hello"
        assert (await http.head("/missing")).status_code == 404
    assert methods == ["GET True", "GET False"]
