"""Answers to requests for what is not there or not allowed, on dashboards with and without a login."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.web.login.dashboards import client, dashboard, sign_in

_OPENED = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.fixture
async def http(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a dashboard without a login."""
    async with client(dashboard(tmp_path, users=tmp_path / "none.json")) as http:
        yield http


@pytest.mark.parametrize(("place", "root"), [("/nothing", "./"), ("/dead/%3Cb%3E/x", "../../")])
async def test_a_browser_that_opens_an_unknown_address_gets_a_page(
    http: httpx.AsyncClient, place: str, root: str
) -> None:
    answer = await http.get(place, headers=_OPENED)
    assert (answer.status_code, answer.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert "This dashboard has no such address." in answer.text
    assert f'<a href="{root}">To the first page</a>' in answer.text
    assert f'href="{root}static/style.css"' in answer.text
    assert "<b>" not in answer.text


@pytest.mark.parametrize("place", ["/api/nothing", "/queues/api/nothing", "/nothing"])
async def test_a_program_gets_json(http: httpx.AsyncClient, place: str) -> None:
    headers = _OPENED if "api" in place else {"Accept": "*/*"}
    answer = await http.get(place, headers=headers)
    assert (answer.status_code, answer.json()) == (404, {"error": "this dashboard has no such address"})


async def test_a_wrong_method_is_refused_in_json(http: httpx.AsyncClient) -> None:
    answer = await http.options("/healthz", headers=_OPENED)
    assert (answer.status_code, answer.json()) == (405, {"error": "Method Not Allowed"})
    assert "GET" in answer.headers["allow"]


async def test_what_the_role_does_not_allow_is_refused_on_a_page_and_in_json(tmp_path: Path) -> None:
    async with client(dashboard(tmp_path)) as http:
        await sign_in(http, "mia")
        page = await http.get("/audit/", headers=_OPENED)
        assert (page.status_code, "<h1>" in page.text, "role viewer" in page.text) == (403, True, True)
        asked = await http.get("/audit/api/entries", headers=_OPENED)
        assert (asked.status_code, "role viewer" in asked.json()["error"]) == (403, True)
