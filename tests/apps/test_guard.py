"""Who an HTTP service answers."""

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from rabbitry.apps._guard import Guard


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
async def test_names_that_a_stranger_s_dns_may_give_are_not(host: str) -> None:
    async with client("http://127.0.0.1:8000") as http:
        assert (await http.get("/", headers={"Host": host})).status_code == 421


async def test_without_a_password_only_this_machine_reaches_it_whatever_it_listens_on() -> None:
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
