"""A worker of stages with limits that notes when their handlers begin and end, for tests: URL FILE QUEUE_TYPE."""

import asyncio
import os
import sys
import time

import rabbitry

KEYS = 3
"""The messages of all stages are numbers; their keys are the remainders."""
app = rabbitry.App("limited")
_file = -1


def remainder(number: int) -> int:
    """Return the key of a message."""
    return number % KEYS


def _begun(number: int) -> None:
    """Note the key and the time in one write, which a kill does not cut."""
    os.write(_file, f"{remainder(number)} {time.time()}\n".encode())


async def _call(number: int) -> None:
    """Note the beginning and the end."""
    os.write(_file, f"+ {os.getpid()} {number}\n".encode())
    await asyncio.sleep(0.03)
    os.write(_file, f"- {os.getpid()} {number}\n".encode())


@app.stage("ask", rate="20/s")
async def ask(number: int) -> None:
    """Have a rate."""
    _begun(number)


@app.stage("ask each", limit_by=remainder, rate_each="20/s")
async def ask_each(number: int) -> None:
    """Have a rate for each key."""
    _begun(number)


@app.stage("ask both", rate="40/s", limit_by=remainder, rate_each="20/s")
async def ask_both(number: int) -> None:
    """Have a rate beside that of each key."""
    _begun(number)


@app.stage("run", total_concurrency=2)
async def run(number: int) -> None:
    """Have calls at once."""
    await _call(number)


@app.stage("run each", limit_by=remainder, concurrency_each=1, concurrency=8)
async def run_each(number: int) -> None:
    """Have calls at once for each key."""
    await _call(number)


@app.stage("run both", total_concurrency=2, limit_by=remainder, concurrency_each=1)
async def run_both(number: int) -> None:
    """Have calls at once beside those of each key."""
    await _call(number)


async def main() -> None:
    """Work until killed."""
    global _file
    url, path, queue_type = sys.argv[1:]
    app.queue_type = "quorum" if queue_type == "quorum" else "classic"
    _file = os.open(path, os.O_WRONLY | os.O_APPEND)
    async with app.worker(url, connect_attempts=1) as worker:
        await worker.wait()


if __name__ == "__main__":
    asyncio.run(main())
