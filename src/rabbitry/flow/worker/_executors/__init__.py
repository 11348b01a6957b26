"""Running handlers: `async def` in the worker's loop, `def` in threads, `processes=True` behind such threads.

Each executor takes jobs from the loop that the worker lives in, and gives a result for each of them, once; before it, a
result "yielded" for each value that a generator made. Each message, or batch, is handled in a fresh copy of the context
that the executor was made in, so that none sees the variables of another. `Batcher` makes batches of single jobs first.
"""

from __future__ import annotations

from collections.abc import Callable

from rabbitry.flow.stage import Stage
from rabbitry.flow.worker._executors.batching import Batcher
from rabbitry.flow.worker._executors.executor import Executor, Report
from rabbitry.flow.worker._executors.tasks import AsyncExecutor
from rabbitry.flow.worker._executors.threads import ThreadExecutor

__all__ = ["Executor", "make_executor"]


def make_executor(stage: Stage, concurrency: int, report: Report, failed: Callable[[Exception], None]) -> Executor:
    """Make the executor that a stage's handler needs; `failed` is told of what ends the worker."""

    def make(report: Report) -> AsyncExecutor | ThreadExecutor:
        if stage.kind == "async":
            return AsyncExecutor(stage, concurrency, report)
        return ThreadExecutor(stage, concurrency, report, failed)

    return make(report) if stage.batch is None else Batcher(stage, concurrency, report, make)
