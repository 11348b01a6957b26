"""A worker that kills itself (SIGKILL) in the middle of a generator or a batch, for tests: URL NUMBER.

NUMBER is that of the value, over all its handlers, at which it dies; 0 is never.
"""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator

import rabbitry

app = rabbitry.App("killed")
EACH = 5
"""Values that a generator makes of one input."""
BATCH = 100
_left = 0


def _value() -> None:
    global _left
    _left -= 1
    if _left == 0:
        os.kill(os.getpid(), signal.SIGKILL)


@app.stage("async", then="out", concurrency=10)
async def yield_async(number: int) -> AsyncIterator[str]:
    for part in range(EACH):
        await asyncio.sleep(0)
        yield f"async {number}.{part}"
        _value()


@app.stage("thread", then="out")
def yield_in_thread(number: int) -> Iterator[str]:
    for part in range(EACH):
        yield f"thread {number}.{part}"
        _value()


@app.stage("batch", then="out", batch=BATCH)
async def handle_batch(numbers: list[int]) -> list[str]:
    for _ in numbers:
        _value()
    return [f"batch {number}" for number in numbers]


@app.stage("both", then="out", batch=BATCH)
def yield_batch(numbers: list[int]) -> Iterator[rabbitry.Outgoing]:
    for index, number in enumerate(numbers):
        yield rabbitry.Outgoing(f"both {number}", index=index)
        _value()


app.output("out", queue="killed.out")


def expected(inputs: int) -> set[str]:
    """Return all that comes of so many inputs of each stage."""
    parts = {f"{kind} {n}.{part}" for kind in ("async", "thread") for n in range(inputs) for part in range(EACH)}
    return parts | {f"{kind} {n}" for kind in ("batch", "both") for n in range(inputs)}


async def main() -> None:
    """Work until killed."""
    global _left
    url, number = sys.argv[1:]
    _left = int(number)
    async with app.worker(url, connect_attempts=1) as worker:
        await worker.wait()


if __name__ == "__main__":
    asyncio.run(main())
