"""A worker of stages with limits that notes when its handlers begin and end, for tests: URL FILE."""

import asyncio
import os
import sys
import time

import rabbitry

app = rabbitry.App("limited")
_file = -1


@app.stage("ask", rate="20/s")
async def ask(number: int) -> None:
    """Note the time in one write, which a kill does not cut."""
    os.write(_file, f"{time.time()}\n".encode())


@app.stage("run", total_concurrency=2)
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
