"""The HTTP service of contract `system_info`: `/publish` measures, publishes and answers with the sample.

`uvicorn rabbitry.apps.monitor.publisher:app --port 8000` serves it alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec
from fastapi import FastAPI, Request, Response
from starlette.types import Lifespan

from rabbitry._words import reason
from rabbitry.apps.monitor.agent import SHORT, Publisher
from rabbitry.apps.monitor.names import SYSTEM_INFO
from rabbitry.apps.monitor.sample import Sample
from rabbitry.apps.monitor.sampling import MeasuringHangs, Meter, hostname, sample
from rabbitry.apps.monitor.settings import Settings, from_environment
from rabbitry.apps.settings import variables
from rabbitry.exceptions import PublishReturned, RabbitryError, UsageError
from rabbitry.runtime.http.guard import Guard, is_head
from rabbitry.runtime.http.origins import is_from_another_site

if TYPE_CHECKING:
    app: FastAPI

PORT = 8000

_logger = logging.getLogger(__name__)


def create_app(publisher: Publisher, settings: Settings, lifespan: Lifespan[FastAPI] | None = None) -> FastAPI:
    """Return the service for a publisher whose connection its owner, or `lifespan`, keeps.

    `/publish` publishes to the exchange that `settings` name, which must be one of the publisher's.
    """
    exchange = next(exchange for exchange in publisher.exchanges if exchange.name == settings.exchange)
    meter = Meter()
    # No pages of API documentation: they load scripts from elsewhere.
    app = FastAPI(title="Rabbitry", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Guard, names=[settings.host], password=settings.password)

    @app.api_route("/publish", methods=["GET", "POST"])
    async def publish(request: Request) -> Response:
        """Measure now and publish: 200 `success`; 503 `unheard` if nobody listens, `failed` otherwise.

        The contract has a GET with an effect. It has none as HEAD, and none for another site's page, which can make a
        browser send a GET without asking it for anything.
        """
        if is_from_another_site(request.headers):
            return _answer("refused", "another site's page asked", None, 403)
        if is_head(request.scope):
            return _answer("failed" if publisher.away else "success", "HEAD publishes nothing", None)
        try:
            before = await meter.read()
            await asyncio.sleep(SHORT)
            measured = sample(before, await meter.read())
        except (MeasuringHangs, OSError) as error:
            return _answer("failed", reason(error, is_named=False), None)
        try:
            await publisher.publish(exchange, measured)
        except PublishReturned:
            return _answer("unheard", f"nobody listens on exchange '{exchange.name}'", measured)
        except RabbitryError as error:
            return _answer("failed", str(error), measured)
        return _answer("success", f"published to exchange '{exchange.name}'", measured)

    @app.get("/healthz")
    async def health() -> Response:
        """Report whether samples can be published: 200 while the broker is connected, 503 otherwise."""
        state = {"broker": "connected"} if publisher.away is None else {"broker": "away", "reason": publisher.away}
        return Response(msgspec.json.encode(state), 503 if publisher.away else 200, media_type="application/json")

    return app


def standalone() -> FastAPI:
    """Return the standalone service, with settings from the environment and `.env`: it publishes on demand only.

    Raises:
        SystemExit: a setting makes no sense; the text names it.
    """
    try:
        settings = from_environment(variables(), default_port=PORT)
    except UsageError as error:
        raise SystemExit(f"rabbitry: {error}") from error
    publisher = Publisher([replace(SYSTEM_INFO, name=settings.exchange)], hostname())

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        stop = asyncio.Event()
        connecting = asyncio.create_task(_keep_connected(publisher, settings, stop), name="publisher")
        try:
            yield
        finally:
            stop.set()
            await connecting

    return create_app(publisher, settings, lifespan)


async def _keep_connected(publisher: Publisher, settings: Settings, stop: asyncio.Event) -> None:
    try:
        await publisher.run(settings.broker, stop, stop.wait)
    except RabbitryError as error:
        # The service stays up, so that whoever asks it is told too; uvicorn can't be made to end from here.
        _logger.error("nothing can be published, and this is not tried again: %s", error)  # noqa: TRY400 - no defect of ours


def _answer(status: str, message: str, measured: Sample | None, code: int | None = None) -> Response:
    body = msgspec.json.encode({"status": status, "message": message, "data": measured})
    return Response(body, code or (200 if status == "success" else 503), media_type="application/json")


if not TYPE_CHECKING:  # type checkers would accept any name

    def __getattr__(name: str) -> FastAPI:
        # Made when uvicorn asks for it: only then are the environment and .env read.
        if name == "app":
            globals()[name] = made = standalone()
            return made
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
