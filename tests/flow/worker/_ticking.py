"""A worker whose schedule ticks each second, for tests: URL."""

import asyncio
import sys

import rabbitry

app = rabbitry.App("ticking")


@app.every(1, missed="all")
async def count(tick: rabbitry.Tick) -> None:
    """Do nothing: the tests look at the stage's queue."""


async def main() -> None:
    """Work until killed."""
    async with app.worker(sys.argv[1], connect_attempts=1) as worker:
        await worker.wait()


if __name__ == "__main__":
    asyncio.run(main())
