"""Running handlers: `async def` in the worker's loop, `def` in threads, `processes=True` behind such threads.

An executor takes jobs from the worker's loop and reports one result for each of them; before it, a result "yielded" for
each value of a generator. Each message, or batch, is handled in a fresh copy of the context that the executor was made
in, so that no handler sees the variables of another. `Batcher` first gathers single jobs into batches.
"""

from __future__ import annotations

from collections.abc import Callable

from rabbitry.flow.worker._executors.batching import Batcher
from rabbitry.flow.worker._executors.executor import Executor, Report
from rabbitry.flow.worker._executors.invoker import Invoker
from rabbitry.flow.worker._executors.tasks import AsyncExecutor
from rabbitry.flow.worker._executors.threads import ThreadExecutor

__all__ = ["Executor", "Invoker", "make_executor"]


def make_executor(invoker: Invoker, concurrency: int, report: Report, failed: Callable[[Exception], None]) -> Executor:
    """Return the executor that a stage's handler needs; it calls `failed` with an error that ends the worker."""
    stage = invoker.stage

    def make(report: Report) -> AsyncExecutor | ThreadExecutor:
        if stage.kind == "async":
            return AsyncExecutor(invoker, concurrency, report)
        return ThreadExecutor(invoker, concurrency, report, failed)

    return make(report) if stage.batch is None else Batcher(stage, concurrency, report, make)
