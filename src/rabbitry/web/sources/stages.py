"""The stages that a broker has queues of, for those whose workers were gone before the dashboard began.

Each stage has a queue that pauses it, whose name and arguments tell the app, the stage and the stage's own queue (see
`rabbitry.flow.wiring.pausing`).
"""

from __future__ import annotations

from collections.abc import Container
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import quote, urlencode

from rabbitry.apps.management import NothingThere, Unanswerable, get, get_object, part_of, place_of
from rabbitry.flow.wiring.pausing import QUEUE, pause_queue, paused_stage
from rabbitry.web.sources.fields import text

if TYPE_CHECKING:
    import httpx

MOST: Final = 500
"""Queues that are asked for."""


class Declared(NamedTuple):
    """A stage, its queue, and the exchange and key that the queue is bound with."""

    app: str
    stage: str
    queue: str
    exchange: str
    key: str


async def declared(client: httpx.AsyncClient, vhost: str, known: Container[str]) -> list[Declared]:
    """Return stages that were declared in a virtual host.

    Args:
        client: A client of the broker's management API.
        vhost: The virtual host.
        known: `APP/STAGE` of stages that are left out.

    Raises:
        ConnectFailed: The management API does not answer.
    """
    infix = pause_queue("", "")
    query = urlencode({"page": 1, "page_size": MOST, "name": infix, "columns": "name,arguments"})
    page = await get_object(client, f"/api/queues/{quote(vhost, safe='')}?{query}")
    items = page.get("items")
    found: list[Declared] = []
    for item in items if isinstance(items, list) else ():
        named = paused_stage(text(item.get("name"))) if isinstance(item, dict) else None
        queue = text(part_of(item, "arguments").get(QUEUE)) if named else ""
        if named is None or not queue or "/".join(named) in known:
            continue
        try:
            bindings = await get(client, f"/api/queues/{place_of(vhost, queue)}/bindings")
        except (NothingThere, Unanswerable):
            continue  # the queue was deleted, or the argument names something that can't be asked for
        # Of a queue that was deleted RabbitMQ tells the binding to the default exchange alone.
        for one in bindings:
            if exchange := text(one.get("source")):
                found.append(Declared(*named, queue, exchange, text(one.get("routing_key"))))
                break
    return found
