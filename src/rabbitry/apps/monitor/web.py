"""The page of the machines, as routes that the dashboard mounts: samples over a WebSocket, and the broker's state."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Final, TypeAlias, TypedDict

from fastapi import APIRouter, Response, WebSocket
from fastapi.responses import JSONResponse

from rabbitry.amqp.client.url import parse_url
from rabbitry.apps import Site
from rabbitry.apps.api import answers, json_response
from rabbitry.apps.monitor.consumer import Connected, Lost, Received, SampleFeed
from rabbitry.apps.monitor.hub import BrokerState, Hub, SampleState
from rabbitry.apps.monitor.reading import Reading
from rabbitry.exceptions import ConnectFailed, RabbitryError
from rabbitry.runtime.http.pages import serve_page

SHORTEST_PAUSE: Final = 0.05
"""Seconds between two updates of a page: at a hundred samples a second it draws twenty times."""

Event: TypeAlias = Connected | Lost | Received
Feed: TypeAlias = Callable[[], AbstractAsyncContextManager[AsyncIterator[Event]]]

_logger = logging.getLogger(__name__)


class Health(TypedDict):
    """The state of the connection to the broker, how many hosts are known, and how many samples came."""

    broker: BrokerState
    hosts: int
    samples: int


def feed_of(broker: str, exchange: str, queue: str) -> Feed:
    """Return the source of samples: an exchange of a broker, whose messages come to a queue."""

    def opened() -> AbstractAsyncContextManager[AsyncIterator[Event]]:
        return SampleFeed(broker, exchange=exchange, queue=queue)

    return opened


def pages(site: Site, feed: Feed) -> APIRouter:
    """Return the routes, which are fed while the dashboard runs.

    Args:
        site: The broker that is shown, and whom to tell of a refused login.
        feed: Opens the source of samples.
    """

    def record(reading: Reading) -> None:
        cpu, memory, received, sent = reading.values
        numbers = {"cpu": cpu, "memory": memory, "disk": reading.disk, "received": received, "sent": sent}
        site.record(reading.source.id, numbers)

    hub = Hub(str(parse_url(site.broker)), record=record)
    site.export(hub.metrics)

    @contextlib.asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[None]:
        feeding = asyncio.create_task(_feed(hub, feed, site.refused), name="feed")
        try:
            yield
        finally:
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)

    router = APIRouter(lifespan=lifespan)

    @router.get("/healthz", responses=answers(Health))
    async def health() -> JSONResponse:
        """Return whether samples can come: 200 while the broker is connected, 503 otherwise."""
        broker = hub.broker
        return JSONResponse(
            {"broker": broker.state, "hosts": hub.host_count, "samples": hub.received},
            200 if broker.state == "connected" else 503,
        )

    @router.get(
        "/api/machines", tags=["machines"], summary="The machines, with their last samples",
        responses=answers(list[SampleState]),
    )  # fmt: skip
    async def machines() -> Response:
        found = [known.latest for machine in hub.ids() if (known := hub.whole(machine)) is not None]
        return json_response(found)

    @router.websocket("/ws")
    async def live(websocket: WebSocket) -> None:
        await serve_page(websocket, hub.page, pause=SHORTEST_PAUSE)

    return router


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
                        _logger.info("broker connected: %s", hub.broker.where)
                    case Lost(reason):
                        hub.set_broker("away", reason)
    except RabbitryError as error:
        hub.set_broker("refused", str(error))
        if isinstance(error, ConnectFailed) and refused is not None:
            refused(error)
        else:
            _logger.warning("no samples will come, this is not tried again: %s", error)
        raise
