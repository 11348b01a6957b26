"""Running a crawler until it is stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from rabbitry.apps.crawl import names
from rabbitry.apps.crawl.crawler.batches import Crawler, Means
from rabbitry.apps.crawl.crawler.budgets import CPU, Bandwidth, Room
from rabbitry.apps.crawl.crawler.fetching import Fetcher
from rabbitry.apps.crawl.crawler.networks import Networks
from rabbitry.apps.crawl.crawler.resolving import SystemResolver
from rabbitry.apps.crawl.crawler.role import crawler_app
from rabbitry.apps.crawl.node import Node
from rabbitry.apps.crawl.running import run_worker
from rabbitry.runtime.tasks import background, until

CONCURRENCY: Final = 100
ROOM: Final = 6_000_000
"""Bytes of pages in memory; with those that may arrive beyond it, a crawler stays under 80 MiB."""


@dataclass(frozen=True, slots=True)
class Options:
    """Options set by the owner of a crawler's machine.

    allow_private: private networks that may be crawled. cpu_limit: share of a core. bandwidth: bytes a second.
    concurrency: hosts at once. plain: see `crawler_app`.
    """

    allow_private: Sequence[str] = ()
    cpu_limit: float | None = None
    bandwidth: float | None = None
    concurrency: int = CONCURRENCY
    plain: bool = False


async def run(
    options: Options,
    url: str,
    version: str,
    stop: asyncio.Event,
    *,
    strict: bool = False,
    connect_attempts: int | None = None,
    deadline: float = 10.0,
    started: Callable[[str], None] | None = None,
) -> bool:
    """Run a crawler until `stop` is set; return whether it finished its work in progress within `deadline` seconds.

    `started` is called with the node's name when it consumes. Raises the errors of `Worker`, and UsageError for a
    malformed network.
    """
    node = Node(names.CRAWLER)
    room, bandwidth = Room(ROOM), Bandwidth(options.bandwidth)
    fetcher = Fetcher(
        node.id,
        version,
        Networks(options.allow_private),
        SystemResolver(),
        room,
        bandwidth,
        connections=options.concurrency,
        is_packing=not options.plain,
    )
    means = Means(fetcher, room, bandwidth, CPU(options.cpu_limit))
    crawler = Crawler(node, means)
    worker = crawler_app(crawler, options.concurrency, plain=options.plain).worker(
        url, strict=strict, connect_attempts=connect_attempts, id=node.id
    )
    try:
        if await until(stop, worker.__aenter__()) is None:
            return True
        if started is not None:
            started(str(node))
        async with background(means.line.watch(worker.ping)):
            return await run_worker(worker, stop, deadline, stopping=crawler.stop)
    finally:
        fetcher.close()
