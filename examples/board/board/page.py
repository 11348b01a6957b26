"""The routes of the board's page."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator

from fastapi import APIRouter

import rabbitry
from rabbitry.apps import Site


def router(site: Site) -> APIRouter:
    """Return the routes; the notes are read while the dashboard runs."""
    notes: deque[str] = deque(maxlen=20)

    @contextlib.asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[None]:
        reading = asyncio.create_task(_read(site.broker, notes))
        try:
            yield
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    made = APIRouter(lifespan=lifespan)

    @made.get("/api/notes")
    async def shown() -> list[str]:
        return list(notes)

    return made


async def _read(broker: str, notes: deque[str]) -> None:
    async with rabbitry.connect(broker, connect_attempts=None) as connection:
        channel = await connection.channel()
        await channel.declare_exchange("board", "fanout", durable=True)
        queue = await channel.declare_queue(exclusive=True)
        await channel.bind_queue(queue.name, "board")
        async with channel.consume(queue.name) as deliveries:
            async for delivery in deliveries:
                notes.appendleft(delivery.body.decode(errors="replace"))
                delivery.ack()
