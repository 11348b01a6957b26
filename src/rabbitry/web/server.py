"""The dashboard's HTTP and WebSocket interface."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from fastapi import FastAPI, WebSocket
from fastapi.responses import FileResponse, JSONResponse
from starlette.staticfiles import StaticFiles

from rabbitry.amqp.client.url import parse_url
from rabbitry.apps._guard import Guard
from rabbitry.apps._live import serve_page
from rabbitry.apps.crawl.web import STATIC as CRAWL_STATIC
from rabbitry.apps.crawl.web import Keeper
from rabbitry.apps.crawl.web import Pages as CrawlPages
from rabbitry.apps.grading.stages import Wiring
from rabbitry.apps.grading.web import STATIC as GRADING_STATIC
from rabbitry.apps.grading.web import Pages as GradingPages
from rabbitry.apps.monitor.consumer import Connected, Lost, Received, SampleFeed
from rabbitry.apps.monitor.settings import Settings
from rabbitry.exceptions import ConnectFailed, RabbitryError
from rabbitry.web.hub import Hub

PORT = 8003
STATIC = Path(__file__).parent / "static"
SHORTEST_PAUSE = 0.05
"""Seconds between two updates of a page: at a hundred samples a second it draws twenty times."""

Event = Connected | Lost | Received
Feed = Callable[[], AbstractAsyncContextManager[AsyncIterator[Event]]]

log = logging.getLogger("rabbitry.web")


def create_app(
    settings: Settings,
    feed: Feed | None = None,
    *,
    wiring: Wiring | None = None,
    keeper: Keeper | None = None,
    refused: Callable[[ConnectFailed], None] | None = None,
) -> FastAPI:
    """Make the dashboard, an ASGI application that connects to the broker while it runs.

    Args:
        settings: where the samples come from, and where the page is served.
        feed: opens another source of events, for tests; a `SampleFeed` of the broker where it is None.
        wiring: the exchange that assignments are handed in to, and how it is declared.
        keeper: answers about the crawl, for tests; asked over the broker where it is None.
        refused: called where the broker refuses the login or the virtual host, which the page shows too.
    """
    hub = Hub(str(parse_url(settings.broker)))

    def from_broker() -> AbstractAsyncContextManager[AsyncIterator[Event]]:
        return SampleFeed(settings.broker, exchange=settings.exchange, queue=settings.queue)

    grading = GradingPages(settings.broker, wiring=wiring)
    crawl = CrawlPages(settings.broker, keeper, plain=wiring is not None and wiring.plain)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.feeding = feeding = asyncio.create_task(_feed(hub, feed or from_broker, refused), name="feed")
        try:
            async with grading.open(), crawl.open():
                yield
        finally:
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)

    # No pages of API documentation: they load scripts from elsewhere, which the policy forbids.
    app = FastAPI(title="Rabbitry", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Guard, names=[settings.host], password=settings.password)

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(STATIC / "index.html")

    @app.get("/healthz")
    async def health() -> JSONResponse:
        """Return whether samples can come: 200 while the broker is connected, 503 otherwise."""
        broker = hub.broker
        return JSONResponse(
            {"broker": broker.state, "hosts": hub.host_count, "samples": hub.received},
            200 if broker.state == "connected" else 503,
        )

    @app.websocket("/ws")
    async def live(websocket: WebSocket) -> None:
        await serve_page(websocket, hub.page, pause=SHORTEST_PAUSE)

    app.include_router(grading.router, prefix="/grading")
    app.include_router(crawl.router, prefix="/crawl")
    app.mount("/grading/static", StaticFiles(directory=GRADING_STATIC))
    app.mount("/crawl/static", StaticFiles(directory=CRAWL_STATIC))
    app.mount("/static", StaticFiles(directory=STATIC))
    return app


async def _feed(hub: Hub, feed: Feed, refused: Callable[[ConnectFailed], None] | None) -> None:
    """Pass what comes from the broker to the hub.

    Returns only by being cancelled, or by the error that no retry helps against, which the page shows.
    """
    try:
        async with feed() as events:
            async for event in events:
                match event:
                    case Received(body, routing_key):
                        hub.receive(body, routing_key)
                    case Connected():
                        hub.set_broker("connected")
                        log.info("broker connected: %s", hub.broker.where)
                    case Lost(reason):
                        hub.set_broker("away", reason)
    except RabbitryError as error:
        hub.set_broker("refused", str(error))
        if isinstance(error, ConnectFailed) and refused is not None:
            refused(error)
        else:
            log.warning("no samples will come, this is not tried again: %s", error)
        raise
