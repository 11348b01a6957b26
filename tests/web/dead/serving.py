"""A broker with dead letters, and a dashboard over it, for the tests of the Dead letters view."""

from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx

from rabbitry.amqp.client import Channel, Properties
from rabbitry.amqp.protocol.tables import FieldValue
from rabbitry.web.login.gate import Access
from tests.support.waiting import eventually_awaited
from tests.web import serving
from tests.web.serving import System


def served(system: System, access: Access | None = None) -> AbstractAsyncContextManager[httpx.AsyncClient]:
    """Serve a dashboard, to whom `access` allows; the client is at the Dead letters view."""
    return serving.served(system.broker, system.management, "dead/", access=access)


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
