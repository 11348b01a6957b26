"""Running a role's worker until it is stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from rabbitry.flow.worker import Worker


async def run_worker(
    worker: Worker, stop: asyncio.Event, deadline: float, *, stopping: Callable[[], None] | None = None
) -> bool:
    """Wait until `stop` is set or the worker fails, then stop the worker, which is already entered.

    Args:
        worker: Handles messages already.
        stop: Ends the role.
        deadline: Seconds in which the worker may finish its work in progress.
        stopping: Called just before the worker stops.

    Returns:
        Whether the work in progress was finished.

    Raises:
        RabbitryError: The worker failed; see `Worker.wait`.
    """
    failing, told = asyncio.create_task(worker.wait()), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((failing, told), return_when=asyncio.FIRST_COMPLETED)
        if stopping is not None:
            stopping()
        is_done = await worker.stop(deadline)
        if failing.done() and not failing.cancelled():
            failing.result()
        return is_done
    finally:
        for task in (failing, told):
            task.cancel()
        await asyncio.gather(failing, told, return_exceptions=True)
