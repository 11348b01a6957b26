"""Rabbitry's program; `fill COUNT` adds items, `telemetry COUNT` measures the cost of telemetry."""

import asyncio
import json
import statistics
import sys
import time
from typing import Final

import rabbitry
from benchmarks.flow_peers import IN, OUT, URL, Item
from rabbitry.flow.message import Publication
from rabbitry.flow.worker._counting import Counting
from rabbitry.flow.worker._job import Job, Led, Result
from rabbitry.telemetry import Report, ReportKind

app = rabbitry.App("bench")
handled = 0
_TURN: Final = 0.3  # seconds; reports come each 2 s, so that turns of both kinds have some
_FEWEST: Final = 500  # messages in a turn that counts


@app.stage("in", queue=IN, then="out")
async def handle(item: Item) -> Item:
    """Increment the number."""
    global handled
    handled += 1
    return Item(item.n + 1, item.text)


app.output("out", queue=OUT)


async def fill(count: int) -> None:
    """Publish items."""
    async with app.publisher(URL) as publisher:
        for number in range(count):
            await publisher.send(Item(number), key="in")
        await publisher.wait_for_confirms()


class Silent(Counting):
    """Counts nothing and reports nothing."""

    def handled(self, job: Job, result: Result, outgoing: list[Publication], led: Led | None) -> None: ...

    def settled(self, job: Job, now: float) -> None: ...

    def reports(self, kind: ReportKind) -> list[Report]:
        """Return no reports."""
        return []


async def telemetry(count: int) -> None:
    """Handle the waiting items with and without telemetry, in turns; print the cost of both, in µs of CPU a message.

    Both run in one process in short turns, because two runs differ by more than the difference measured.
    """
    spent: dict[type[Counting], list[float]] = {Counting: [], Silent: []}
    async with app.worker(URL) as worker:
        counting = worker._engine.counting
        while handled < count:
            for kind, costs in spent.items():
                counting.__class__ = kind
                before, cpu = handled, time.process_time()
                await asyncio.sleep(_TURN)
                if handled - before > _FEWEST:
                    costs.append((time.process_time() - cpu) / (handled - before) * 1e6)
    print(json.dumps({"with": statistics.median(spent[Counting]), "without": statistics.median(spent[Silent])}))


if __name__ == "__main__":
    asyncio.run({"fill": fill, "telemetry": telemetry}[sys.argv[1]](int(sys.argv[2])))
