"""A worker of stages with limits for each key that notes when its handlers begin and end, for tests: URL FILE."""

import asyncio
import os
import sys
import time

import rabbitry

KEYS = 3
"""The messages of both stages are numbers; their keys are the remainders."""
app = rabbitry.App("keyed")
_file = -1


def remainder(number: int) -> int:
    """Return the key of a message."""
    return number % KEYS


@app.stage("ask", rate="20/s", limit_by=remainder)
async def ask(number: int) -> None:
    """Note the key and the time in one write, which a kill does not cut."""
    os.write(_file, f"{remainder(number)} {time.time()}\n".encode())


@app.stage("run", total_concurrency=1, limit_by=remainder, concurrency=8)
async def run(number: int) -> None:
    """Note the beginning and the end."""
    os.write(_file, f"+ {os.getpid()} {number}\n".encode())
    await asyncio.sleep(0.03)
    os.write(_file, f"- {os.getpid()} {number}\n".encode())


async def main() -> None:
    """Work until killed."""
    global _file
    url, path = sys.argv[1:]
    _file = os.open(path, os.O_WRONLY | os.O_APPEND)
    async with app.worker(url, connect_attempts=1) as worker:
        await worker.wait()


if __name__ == "__main__":
    asyncio.run(main())
