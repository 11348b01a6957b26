"""The crawler as a role: an app whose stage receives batches and yields pages, outcomes, reports and log lines."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from rabbitry.apps.crawl import names
from rabbitry.apps.crawl.crawler.batches import Crawler, Item
from rabbitry.apps.crawl.crawler.fetching import Page
from rabbitry.apps.crawl.messages import PAGE, Batch, Outcome, Report
from rabbitry.apps.crawl.node import Node, crawl_app
from rabbitry.flow import App, Message, Outgoing
from rabbitry.flow.message import INTERRUPTED

if TYPE_CHECKING:
    from rabbitry.amqp.protocol.tables import FieldValue

TIME_LIMIT: Final = 20 * 60.0
"""Seconds for a batch. With so many, none waits in one crawler while another could take it (`Worker`)."""


def crawler_app(crawler: Crawler, concurrency: int, *, plain: bool = False) -> App:
    """Return the app of a crawler.

    Args:
        crawler: Processes the batches.
        concurrency: The number of batches, thus of hosts, at once.
        plain: Publish pages in the original crawler's form, and declare with its flags.
    """
    app = crawl_app(plain=plain)
    app.output(names.PAGE_KEY, queue=names.PAGE_QUEUE)
    app.output(names.KEEPER_KEY, queue=names.KEEPER_QUEUE, single_active=True)

    @app.stage(
        names.BATCH_KEY,
        queue=names.BATCH_QUEUE,
        name=names.CRAWLER,
        concurrency=concurrency,
        time_limit=TIME_LIMIT,
    )
    async def crawl(batch: Batch, message: Message) -> AsyncIterator[Outgoing]:
        # A batch that another crawler had may be fetched already; so may one of this crawler's that failed.
        is_repeated = message.attempt > 1 or INTERRUPTED in message.headers
        async with contextlib.aclosing(crawler.crawl(batch, is_repeated=is_repeated)) as items:
            async for item in items:
                for outgoing in published(item, batch, crawler.node, plain=plain):
                    yield outgoing
                    del outgoing
                del item  # a page may be large, and the next may take long

    return app


def published(item: Item, batch: Batch, node: Node, *, plain: bool = False) -> Iterator[Outgoing]:
    """Return the messages for an item of a batch: the item, and a log line."""
    match item:
        case Page():
            yield _page(item, batch, node, plain=plain)
            text = f"{item.status}, {item.size} bytes in {item.took:.2f} s"
            yield node.logged(item.url, text, outcome="page", wire=item.wire)
        case Outcome():
            yield Outgoing(item, key=names.KEEPER_KEY)
            status = "" if item.status is None else f" {item.status}"
            text = f"{item.outcome}{status}" + (f": {item.detail}" if item.detail else "")
            yield node.logged(item.url, text, outcome=item.outcome, wire=item.wire)
        case Report():
            yield Outgoing(item, key=names.KEEPER_KEY)
            if item.left:
                yield node.logged(item.origin, f"{len(item.left)} of {len(batch.addresses)} returned: {item.why}")


def _page(page: Page, batch: Batch, node: Node, *, plain: bool) -> Outgoing:
    """Return a page in the form of contract 5. plain: as the original crawler's text, with our headers."""
    at = datetime.fromtimestamp(page.fetched_at, UTC).isoformat(timespec="milliseconds")
    headers: dict[str, FieldValue] = {
        "x-rabbitry-url": page.url,
        "x-rabbitry-final-url": page.final_url,
        "x-rabbitry-status": page.status,
        "x-rabbitry-fetched-at": at,
        "x-rabbitry-crawler": node.id,
        "x-rabbitry-origin-headers": page.headers,
        "x-rabbitry-batch": batch.id,
        "x-rabbitry-wire": page.wire,
        "x-rabbitry-size": page.size,
        "x-rabbitry-took": round(page.took, 6),
    }
    if page.purpose != "page":
        headers["x-rabbitry-purpose"] = page.purpose
    if plain:
        text = f"{node.kind}|{node.id}|{at}|".encode() + page.body
        return Outgoing(text, key=names.PAGE_KEY, headers=headers, content_type="text/plain", type="PlainPage")
    return Outgoing(
        page.body,
        key=names.PAGE_KEY,
        headers=headers,
        content_type=_short(page.content_type),
        content_encoding="zstd",
        type=PAGE,
    )


def _short(content_type: str) -> str:
    """Return a Content-Type that fits into a property: 255 bytes, UTF-8. The full one is in the origin's headers."""
    return content_type.encode("utf-8", "replace")[:255].decode("utf-8", "ignore") or "application/octet-stream"
