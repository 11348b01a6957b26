"""Warren's program; as a command: `fill COUNT`, `work`, or `silent`, a worker that neither counts nor reports."""

import asyncio
import sys

import warren
from benchmarks.flow_peers import IN, OUT, URL, Item
from warren.flow import engine
from warren.flow.counting import Counting
from warren.flow.job import Job, Result
from warren.flow.message import Outgoing

app = warren.App("bench")


@app.stage("in", queue=IN, then="out")
async def handle(item: Item) -> Item:
    """Raise the number."""
    return Item(item.n + 1, item.text)


app.output("out", queue=OUT)


async def fill(count: int) -> None:
    """Put items in."""
    async with app.publisher(URL) as publisher:
        for number in range(count):
            await publisher.send(Item(number), key="in")
        await publisher.wait_for_confirms()


class Silent(Counting):
    """Counts nothing, to show what counting and reporting cost."""

    def received(self, job: Job) -> None: ...

    def handled(self, job: Job, result: Result, outgoing: list[Outgoing]) -> None: ...

    def settled(self, job: Job, now: float) -> None: ...


def silence() -> None:
    """Take telemetry out of the worker."""

    class Reporter:
        def __init__(self, *arguments: object) -> None: ...

        async def run(self) -> None: ...

    vars(engine).update(Counting=Silent, Reporter=Reporter)  # where the worker finds them


async def work() -> None:
    """Work until killed."""
    async with app.worker(URL) as worker:
        await worker.wait()


if __name__ == "__main__":
    if sys.argv[1] == "silent":
        silence()
    asyncio.run(fill(int(sys.argv[2])) if sys.argv[1] == "fill" else work())
