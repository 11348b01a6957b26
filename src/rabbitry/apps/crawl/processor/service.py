"""Running a processor until it is stopped."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from rabbitry.apps.crawl import names
from rabbitry.apps.crawl.node import Node
from rabbitry.apps.crawl.processor.stage import NODE, processor_app
from rabbitry.apps.crawl.running import run_worker
from rabbitry.runtime.tasks import until


async def run(
    url: str,
    stop: asyncio.Event,
    *,
    processes: int = 1,
    plain: bool = False,
    strict: bool = False,
    connect_attempts: int | None = None,
    deadline: float = 10.0,
    started: Callable[[str], None] | None = None,
) -> bool:
    """Run a processor until `stop` is set; return whether it finished its work in progress within `deadline` seconds.

    processes, plain: see `processor_app`. `started` is called with the node's name when it consumes. Raises the errors
    of `Worker`.
    """
    node = Node(names.PROCESSOR)
    os.environ[NODE] = node.id  # inherited by its processes
    worker = processor_app(processes, plain=plain).worker(
        url, strict=strict, connect_attempts=connect_attempts, id=node.id
    )
    if await until(stop, worker.__aenter__()) is None:
        return True
    if started is not None:
        started(str(node))
    return await run_worker(worker, stop, deadline)
