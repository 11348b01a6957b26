"""CPU that a handler's context and dependencies cost for a message, beside a handler that asks for neither."""

import asyncio
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Annotated, cast

import rabbitry
from rabbitry import Depends
from rabbitry.flow.context import Context, Publishing
from rabbitry.flow.message import Message
from rabbitry.flow.worker._executors import handling
from rabbitry.flow.worker._executors.invoker import Input, Invoker, PutAsync
from rabbitry.flow.worker._executors.results import succeeded

_ROUNDS = 15
_MESSAGES = 5_000
_BODY = b"7"


class _Work:
    """The input of a call."""

    is_cancelled = False
    is_stale = False
    body = _BODY

    def message(self) -> Message:
        """Return metadata; no handler here asks for it."""
        raise NotImplementedError


def engine() -> int:
    """Return a dependency."""
    return 1


def _invokers() -> dict[str, Invoker]:
    app = rabbitry.App("bench")

    @app.stage("plain")
    async def plain(number: int) -> None: ...

    @app.stage("context")
    async def context(number: int, context: Context) -> None: ...

    @app.stage("worker")
    async def worker(number: int, engine: Annotated[int, Depends(engine, scope="worker")]) -> None: ...

    @app.stage("message")
    async def message(number: int, engine: Annotated[int, Depends(engine)]) -> None: ...

    publishing = cast("Publishing", None)  # nothing is published
    found = {}
    for stage in app.stages.values():
        keys = [key for _, key in stage.signature.plan.parameters]
        instances = dict.fromkeys(keys, 1) if stage.name == "worker" else {}
        found[stage.name] = Invoker(stage, instances=instances, publishing=publishing)
    return found


async def _per_message(call: Callable[[], object]) -> float:
    """Return the microseconds of CPU of one awaited call."""
    began = time.process_time()
    for _ in range(_MESSAGES):
        await call()  # type: ignore[misc] # a coroutine
    return (time.process_time() - began) / _MESSAGES * 1e6


async def _measure() -> dict[str, list[float]]:
    invokers, work = _invokers(), cast("Input", _Work())
    put = cast("PutAsync", None)
    stage = invokers["plain"].stage

    async def directly() -> object:
        return succeeded(stage, _BODY, await stage.handler(**stage.arguments(stage.codec.decode(_BODY), work.message)))

    calls: dict[str, Callable[[], object]] = {"decoded and called directly": directly}
    names = {
        "plain": "a handler that asks for nothing",
        "context": "with a `Context`",
        "worker": 'with a dependency of scope "worker"',
        "message": 'with a dependency of scope "message"',
    }
    for name, invoker in invokers.items():
        calls[names[name]] = partial(handling.call_async, invoker, work, put)
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(_ROUNDS):
        for name, call in calls.items():
            taken[name].append(await _per_message(call))
    return taken


def main() -> int:
    """Measure in turns and print the medians."""
    taken = asyncio.run(_measure())
    medians = {name: statistics.median(values) for name, values in taken.items()}
    least = medians["decoded and called directly"]
    print("| a message of | CPU, µs | more than called directly, µs |")
    print("|---|---|---|")
    for name, median in medians.items():
        print(f"| {name} | {median:.2f} | {median - least:.2f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
