"""The dashboard without its usual apps: what stays, and what an app that does not start costs."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
from fastapi import APIRouter, FastAPI

from rabbitry.apps import Plugin, View
from rabbitry.apps.settings import Settings
from rabbitry.web.server import Mount, create_app


def _plugin(name: str, title: str, folder: Path, *, is_home: bool = False, path: str = "") -> Plugin:
    view = View(title=title, module="main.js", path=path, description='a "view" & more')
    return Plugin(name=name, title="X", views=(view,), static=folder, is_home=is_home)


@contextlib.asynccontextmanager
async def _client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client,
    ):
        yield client


class _Fails:
    """What an app does in the background, and can't begin."""

    async def __aenter__(self) -> None:
        raise ValueError("not today")

    async def __aexit__(self, *_: object) -> None:
        raise AssertionError("it was never entered")


async def test_without_a_first_page_the_others_are_listed(tmp_path: Path) -> None:
    mounted = [Mount(_plugin("one", "One & only", tmp_path)), Mount(_plugin("two", "A page", tmp_path, path="deep/er"))]
    async with _client(create_app(Settings(port=0), mounted)) as client:
        page = (await client.get("/")).text
        assert '<a href="two/deep/er/">A page</a><a href="one/">One &amp; only</a>' in page
        assert (await client.get("/healthz")).json() == {"broker": "unknown"}
        assert 'src="../../../two/static/main.js"' in (await client.get("/two/deep/er/")).text


async def test_without_apps_the_first_page_says_so() -> None:
    async with _client(create_app(Settings(port=0), [])) as client:
        assert "No app brings a page." in (await client.get("/")).text


async def test_the_first_page_is_the_home_of_one_app_and_leads_the_navigation(tmp_path: Path) -> None:
    (tmp_path / "main.js").touch()
    (tmp_path / "part.js").touch()
    mounted = [Mount(_plugin("a", "A", tmp_path)), Mount(_plugin("home", "Home", tmp_path, is_home=True))]
    async with _client(create_app(Settings(port=0), mounted)) as client:
        assert (await client.get("/static/views.js")).text == (
            'export const views = [{"path":"","title":"Home"},{"path":"a/","title":"A"}];\n'
        )
        page = (await client.get("/")).text
        assert "<title>Rabbitry</title>" in page
        assert '<script type="module" src="home/static/main.js"></script>' in page
        assert '<link rel="modulepreload" href="home/static/part.js">' in page
        assert '<meta name="description" content="a &quot;view&quot; &amp; more">' in page
        assert "<title>A – Rabbitry</title>" in (await client.get("/a/")).text


async def test_an_app_that_does_not_start_leaves_the_navigation(tmp_path: Path) -> None:
    mounted = [
        Mount(_plugin("bad", "Bad", tmp_path), APIRouter(lifespan=lambda _: _Fails())),
        Mount(_plugin("good", "Good", tmp_path), APIRouter()),
    ]
    async with _client(create_app(Settings(port=0), mounted)) as client:
        assert (
            await client.get("/static/views.js")
        ).text == 'export const views = [{"path":"good/","title":"Good"}];\n'
