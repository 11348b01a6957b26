"""A broker with dead letters, and a dashboard over it, for the tests of the Dead letters view."""

import asyncio
import contextlib
import re
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from rabbitry.amqp.client import Channel, Properties
from rabbitry.amqp.protocol.tables import FieldValue
from rabbitry.apps.settings import Settings
from rabbitry.runtime.http.serving import serve
from rabbitry.runtime.listening import listen
from rabbitry.web.login.gate import Access
from rabbitry.web.login.sessions import TOKEN_HEADER as HEADER
from rabbitry.web.server import create_app
from tests.support.waiting import eventually_awaited


@dataclass
class System:
    """A broker, and whether it is RabbitMQ."""

    broker: str
    management: str
    is_rabbitmq: bool


@contextlib.asynccontextmanager
async def served(system: System, access: Access | None = None) -> AsyncIterator[httpx.AsyncClient]:
    """Serve a dashboard, to whom `access` allows; the client has the token of its pages."""
    (listener,) = listen("127.0.0.1", 0)
    stop = asyncio.Event()
    app = create_app(Settings(port=0, broker=system.broker), [], system.management, access=access)
    serving = asyncio.create_task(serve(app, [listener], stop))
    try:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/dead/"
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            await take_token(client)
            yield client
    finally:
        stop.set()
        await serving


async def take_token(client: httpx.AsyncClient) -> None:
    """Send the token of the dashboard's pages with each of the client's requests."""
    page = (await client.get("")).text
    found = re.search(r'<meta name="rabbitry-token" content="([\w-]{30,})">', page)
    assert found is not None
    client.headers[HEADER] = found[1]


async def bury(
    channel: Channel, app: str, bodies: Sequence[bytes], *, queue: str, error: str = "ValueError: no", stage: str = "s"
) -> None:
    """Put dead letters into an app's queue, as a worker leaves them."""
    await channel.declare_queue(f"{app}.dead", durable=True)
    for number, body in enumerate(bodies):
        headers: dict[str, FieldValue] = {
            "x-rabbitry-reason": "failed",
            "x-rabbitry-error": error.replace("{n}", str(number)),
            "x-rabbitry-traceback": "Traceback",
            "x-rabbitry-stage": stage,
            "x-rabbitry-queue": queue,
            "x-rabbitry-failed-at": f"2026-11-27T10:00:{number % 60:02}.000+00:00",
            "x-rabbitry-attempt": 5,
            "tenant": "blue",
        }
        properties = Properties(headers=headers, message_id=f"{stage}-{number}", delivery_mode=2)
        await channel.send(body, routing_key=f"{app}.dead", properties=properties)
    await channel.wait_for_confirms()


async def count(channel: Channel, queue: str) -> int:
    """Return how many messages are ready in a queue."""
    return (await channel.declare_queue(queue, passive=True)).message_count


async def settled(channel: Channel, queue: str, number: int) -> None:
    """Wait until so many messages are ready: what was only looked at comes back."""

    async def is_so() -> bool:
        return await count(channel, queue) == number

    await eventually_awaited(is_so, f"{number} messages in {queue}")


async def taken(channel: Channel, queue: str) -> Counter[bytes]:
    """Take all messages out of a queue."""
    found: Counter[bytes] = Counter()
    while (delivery := await channel.get(queue, no_ack=True)) is not None:
        found[delivery.body] += 1
    return found


async def finished(client: httpx.AsyncClient, action: str, number: int = 1) -> list[dict[str, Any]]:
    """Wait until so many actions have ended, and return their entries in the audit log, the newest first."""

    async def entries() -> list[dict[str, Any]]:
        found = [
            entry for entry in (await client.get("../audit/api/entries")).json() if entry["action"].startswith(action)
        ]
        ended = [entry for entry in found if "so far" not in entry["result"] and "begun" not in entry["result"]]
        return ended if len(ended) >= number else []

    return await eventually_awaited(entries, f"{number} × {action} has ended")
