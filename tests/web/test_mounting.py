"""The dashboard without its usual apps: what stays, and what an app that does not start costs."""

import contextlib
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from starlette.routing import Mount as Mounted
from starlette.routing import Route, WebSocketRoute

from rabbitry.apps import Panel, Plugin, View
from rabbitry.apps.installed import RESERVED, installed
from rabbitry.apps.settings import Settings
from rabbitry.web.server import Mount, create_app


def _plugin(name: str, title: str, folder: Path, *, panel: Panel | None = None, path: str = "") -> Plugin:
    view = View(title=title, module="main.js", path=path, description='a "view" & more')
    return Plugin(name=name, title="X", views=(view,), static=folder, panel=panel)


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


async def test_the_navigation_is_on_each_page_and_says_where_it_is(tmp_path: Path) -> None:
    mounted = [Mount(_plugin("one", "One & only", tmp_path)), Mount(_plugin("two", "A page", tmp_path, path="deep/er"))]
    async with _client(create_app(Settings(port=0), mounted)) as client:
        first = (await client.get("/")).text
        assert '<li><a href="./" aria-current="page">Overview</a></li>' in first
        assert first.index('<a href="two/deep/er/">A page</a>') < first.index('<a href="one/">One &amp; only</a>')
        page = (await client.get("/two/deep/er/")).text
        assert '<li><a href="../../../">Overview</a></li>' in page
        assert '<a href="../../../two/deep/er/" aria-current="page">A page</a>' in page
        assert 'src="../../../two/static/main.js"' in page
        assert (await client.get("/healthz")).json() == {"broker": "unknown"}


async def test_without_apps_there_is_the_first_page() -> None:
    async with _client(create_app(Settings(port=0), [])) as client:
        page = (await client.get("/")).text
        assert "<title>Overview – Rabbitry</title>" in page
        assert '<p class="section" aria-hidden="true">Apps</p>' not in page


def test_no_app_may_have_the_name_of_a_path_of_the_dashboard() -> None:
    routes = create_app(Settings(port=0), []).routes
    paths = {route.path.split("/")[1] for route in routes if isinstance(route, Route | WebSocketRoute | Mounted)}
    assert {"feed", "healthz", "queues", "static"} <= paths
    assert paths - {""} <= RESERVED


@pytest.mark.parametrize(
    ("broker", "more"),
    [
        ("amqp://guest:guest@127.0.0.1:5672/", ""),
        ("amqp://127.0.0.1:7000/", " --broker amqp://127.0.0.1:7000/"),
        ("amqp://localhost/a%2Fb", " --broker amqp://localhost:5672/a%2Fb"),
        ("amqp://guest:secret@127.0.0.1/", None),
        ("amqp://rabbit.example/", None),
    ],
)
async def test_newcomers_get_whole_commands_without_a_password(broker: str, more: str | None) -> None:
    async with _client(create_app(Settings(port=0, broker=broker), [])) as client:
        described = (await client.get("/static/views.js")).text
    (found,) = re.findall(r"^export const trials = (.*);$", described, re.MULTILINE)
    commands = [trial["command"] for trial in json.loads(found)]
    wanted = [trial.command for plugin in installed().plugins.values() for trial in plugin.trials]
    assert len(wanted) == 3
    assert commands == ([] if more is None else [f"rabbitry {command}{more}" for command in wanted])


async def test_files_are_compressed(tmp_path: Path) -> None:
    text = "export const word = 1;\n" * 100
    (tmp_path / "main.js").write_text(text)
    async with _client(create_app(Settings(port=0), [Mount(_plugin("a", "A", tmp_path))])) as client:
        for path in ("/a/static/main.js", "/static/style.css", "/static/vendor/uplot/uPlot.iife.min.js"):
            found = await client.get(path, headers={"Accept-Encoding": "gzip"})
            assert found.headers["Content-Encoding"] == "gzip"
            assert "Accept-Encoding" in found.headers["Vary"]
            assert found.num_bytes_downloaded < len(found.content) / 2
            plain = await client.get(path, headers={"Accept-Encoding": "identity"})
            assert "Content-Encoding" not in plain.headers
            assert plain.content == found.content
            known = {"Accept-Encoding": "gzip", "If-None-Match": found.headers["ETag"]}
            assert (await client.get(path, headers=known)).status_code == 304
        page = await client.get("/", headers={"Accept-Encoding": "gzip"})
        assert "Content-Encoding" not in page.headers


async def test_an_app_brings_a_page_and_a_panel(tmp_path: Path) -> None:
    (tmp_path / "main.js").write_text('import { html } from "../../static/html.js";\nimport "./part.js";\n')
    (tmp_path / "part.js").write_text('export const open = async () => import("./later.js");\n')
    (tmp_path / "later.js").touch()
    (tmp_path / "other.js").touch()
    panel = Panel(module="panel.js", styles=("panel.css",))
    async with _client(create_app(Settings(port=0), [Mount(_plugin("a", "A", tmp_path, panel=panel))])) as client:
        described = (await client.get("/static/views.js")).text
        assert '{"section":"Apps","title":"A","path":"a/"}' in described
        assert 'export const panels = ["a/static/panel.js"];' in described
        assert '<link rel="stylesheet" href="a/static/panel.css">' in (await client.get("/")).text
        page = re.sub(r"\?v=[0-9a-f]{16}", "?v", (await client.get("/a/")).text)
        assert "<title>A – Rabbitry</title>" in page
        assert '<script type="module" src="../a/static/main.js?v"></script>' in page
        assert '<link rel="modulepreload" href="../a/static/part.js?v">' in page
        assert '<link rel="modulepreload" href="../static/vendor/preact/preact.mjs?v">' in page  # html.js imports it
        assert '"../a/static/later.js":"../a/static/later.js?v"' in page
        assert '<link rel="modulepreload" href="../a/static/later.js' not in page
        assert "other.js" not in page
        assert '<meta name="description" content="a &quot;view&quot; &amp; more">' in page
        assert "panel.css" not in page


async def test_an_app_that_does_not_start_leaves_the_navigation(tmp_path: Path) -> None:
    mounted = [
        Mount(_plugin("bad", "Bad", tmp_path), APIRouter(lifespan=lambda _: _Fails())),
        Mount(_plugin("good", "Good", tmp_path), APIRouter()),
    ]
    async with _client(create_app(Settings(port=0), mounted)) as client:
        described = (await client.get("/static/views.js")).text
        assert '"path":"good/"' in described
        assert "bad/" not in described
        assert "Bad" not in (await client.get("/")).text
