"""The dashboard's HTTP interface: the pages of the apps, and the files that these share."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgspec
from fastapi import APIRouter, FastAPI, Response, WebSocket
from fastapi.responses import HTMLResponse, JSONResponse
from starlette.staticfiles import StaticFiles

from rabbitry.apps import Plugin, Site, View
from rabbitry.apps.exceptions import PluginError
from rabbitry.apps.installed import Broken, attempt, installed, resolve
from rabbitry.runtime.http.guard import Guard
from rabbitry.web._shell import STATIC, overview, shell
from rabbitry.web.feed.pages import Feed
from rabbitry.web.sources import Sources

if TYPE_CHECKING:
    from rabbitry.apps.settings import Settings

PORT: Final = 8003

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Mount:
    """An app in the dashboard: its routes, if it has some, and its views."""

    plugin: Plugin
    router: APIRouter | None = None

    @property
    def prefix(self) -> str:
        """The place of the app's routes, without a slash at its end."""
        return "" if self.plugin.is_home else f"/{self.plugin.name}"

    def place(self, view: View) -> str:
        """Return a view's place, without a slash at its beginning; empty for the first page."""
        home = self.plugin.is_home and view is self.plugin.views[0]
        whole = "" if home else f"{self.plugin.name}/{view.path}".strip("/")
        return f"{whole}/" if whole else ""


def mounts(site: Site, options: Mapping[str, Mapping[str, object]] | None = None) -> list[Mount]:
    """Return the dashboard's parts of the installed apps. An app that does not load is logged and left out.

    Args:
        site: The broker and the settings for the pages.
        options: App → the values of its own options; the defaults if there are none.
    """
    found: list[Mount] = []
    for broken in installed().broken:
        _logger.warning("%s", broken)
    for name, plugin in installed().plugins.items():
        if plugin.router is None and not plugin.views:
            continue
        made = attempt(plugin, partial(_mount, plugin, site, (options or {}).get(name, {})))
        if isinstance(made, Broken):
            _logger.warning("%s", made)
        else:
            found.append(made)
    return found


def create_app(settings: Settings, mounted: Sequence[Mount], management: str | None = None) -> FastAPI:
    """Return the dashboard, an ASGI application. The background work of the apps runs while it runs.

    Args:
        settings: The broker, the address of the page, and its password.
        mounted: The apps in it.
        management: The URL of the broker's management API; RabbitMQ's port on the broker's host if it is None.

    Raises:
        UsageError: `management`, or the broker's URL, is no URL.
    """
    sources = Sources(settings.broker, management)
    feed = Feed(sources.topics)
    # No pages of API documentation: they load scripts from elsewhere, which the policy forbids.
    app = FastAPI(title="Rabbitry", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Guard, names=[settings.host], password=settings.password)
    live = [*mounted]
    for mount in mounted:
        _add(app, mount)

    @app.get("/static/views.js", include_in_schema=False)
    async def views() -> Response:
        """Return the navigation: an entry for each view, the first page first."""
        return Response(f"export const views = {_navigation(live).decode()};\n", media_type="text/javascript")

    @app.get("/", include_in_schema=False)
    async def first() -> HTMLResponse:
        """Return the first page if no app brings one."""
        return HTMLResponse(overview([(mount.place(view), view.title) for mount, view in _views(live)]))

    @app.websocket("/feed")
    async def page(websocket: WebSocket) -> None:
        """Serve a page the topics that it subscribes to."""
        await feed.serve(websocket)

    @app.get("/healthz")
    async def health() -> JSONResponse:
        """Return that the dashboard runs, when no app says more."""
        return JSONResponse({"broker": "unknown"})

    app.mount("/static", StaticFiles(directory=STATIC))
    # In place of the one that `include_router` put together, which ends the dashboard if one app's fails.
    app.router.lifespan_context = partial(_running, live, sources)
    return app


@contextlib.asynccontextmanager
async def _running(live: list[Mount], sources: Sources, app: FastAPI) -> AsyncIterator[None]:
    """Run the feed's sources and the background work of the apps.

    An app that can't start is logged and left out of the navigation.
    """
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(sources.running())
        for mount in [*live]:
            if mount.router is None:
                continue
            try:
                await stack.enter_async_context(mount.router.lifespan_context(app))
            except Exception:
                _logger.exception("app %r is left out: it does not start", mount.plugin.name)
                live.remove(mount)
        yield


def _mount(plugin: Plugin, site: Site, options: Mapping[str, object]) -> Mount:
    if plugin.static is not None and not plugin.static.is_dir():
        raise PluginError(f"its static folder '{plugin.static}' is not there")
    if plugin.router is None:
        return Mount(plugin)
    router = resolve(plugin.router)(site, **options)
    if not isinstance(router, APIRouter):
        raise PluginError(f"{plugin.router!r} returned a {type(router).__name__}, and no fastapi.APIRouter")
    return Mount(plugin, router)


def _add(app: FastAPI, mount: Mount) -> None:
    plugin = mount.plugin
    if mount.router is not None:
        app.include_router(mount.router, prefix=mount.prefix)
    for view in plugin.views:
        # After the router, which may serve a page of its own there.
        place = mount.place(view)
        app.add_api_route(f"/{place}", partial(_page, shell(plugin, view, place)), include_in_schema=False)
    if plugin.static is not None:
        app.mount(f"/{plugin.name}/static", StaticFiles(directory=plugin.static))


async def _page(text: str) -> HTMLResponse:
    return HTMLResponse(text)


def _views(live: Sequence[Mount]) -> list[tuple[Mount, View]]:
    found = [(mount, view) for mount in live for view in mount.plugin.views]
    return sorted(found, key=lambda each: (each[0].place(each[1]) != "", each[1].title))


def _navigation(live: Sequence[Mount]) -> bytes:
    entries: list[dict[str, Any]] = [{"path": mount.place(view), "title": view.title} for mount, view in _views(live)]
    return msgspec.json.encode(entries)
