"""All roles of a crawl in one process: a crawler, a processor and a keeper, until stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from rabbitry.apps.crawl.crawler import service as crawler
from rabbitry.apps.crawl.keeper import service as keeper
from rabbitry.apps.crawl.processor import service as processor
from rabbitry.runtime.tasks import until


@dataclass(frozen=True, slots=True)
class Options:
    """Options of the roles. processes: the processor's."""

    crawler: crawler.Options
    keeper: keeper.Options
    processes: int = 1


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
    """Run all roles until `stop` is set; return whether all finished their work in progress within `deadline` seconds.

    `started` is called with the nodes' names when all of them consume. If one fails, the others stop, and its error is
    raised.
    """
    names: list[str] = []

    def tell(name: str) -> None:
        names.append(name)
        if len(names) == len(roles) and started is not None:
            started(", ".join(names))

    ending = asyncio.Event()
    common = {"strict": strict, "connect_attempts": connect_attempts, "deadline": deadline, "started": tell}
    roles = (
        partial(keeper.run, options.keeper, url, ending),
        partial(crawler.run, options.crawler, url, version, ending),
        partial(processor.run, url, ending, processes=options.processes, plain=options.keeper.plain),
    )
    tasks = [asyncio.create_task(role(**common)) for role in roles]
    try:
        await until(stop, asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED))
    finally:
        ending.set()
        finished = await asyncio.gather(*tasks, return_exceptions=True)
    for one in finished:
        if isinstance(one, BaseException):
            raise one
    return all(finished)
