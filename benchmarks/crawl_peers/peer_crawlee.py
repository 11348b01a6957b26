"""Crawlee's program: its fastest crawler that reads HTML (Parsel), storage in memory; robots.txt obeyed, no delay.

`peer_crawlee.py COUNT URL…`
"""

import asyncio
import logging
import sys
from datetime import timedelta

from _counting import Count
from crawlee import ConcurrencySettings
from crawlee.crawlers import ParselCrawler, ParselCrawlingContext
from crawlee.storage_clients import MemoryStorageClient


async def main(wanted: int, urls: list[str]) -> None:
    """Crawl `wanted` pages."""
    count = Count(wanted)
    crawler = ParselCrawler(
        respect_robots_txt_file=True,
        storage_client=MemoryStorageClient(),
        concurrency_settings=ConcurrencySettings(min_concurrency=16, max_concurrency=32, desired_concurrency=32),
        request_handler_timeout=timedelta(seconds=60),
        configure_logging=False,
        statistics_log_format="inline",
    )

    async def handle(context: ParselCrawlingContext) -> None:
        await context.push_data({"url": context.request.url, "title": context.selector.css("title::text").get()})
        await context.enqueue_links(strategy="all")
        if count.page():
            crawler.stop("enough")

    crawler.router.default_handler(handler=handle)
    await crawler.run(urls)


logging.disable(logging.WARNING)
asyncio.run(main(int(sys.argv[1]), sys.argv[2:]))
