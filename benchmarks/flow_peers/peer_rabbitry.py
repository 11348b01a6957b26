"""Rabbitry's program; as a command `fill COUNT`, or `telemetry COUNT`: what counting and reporting cost."""

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
from rabbitry.flow.worker._job import Job, Result
from rabbitry.telemetry import Report, ReportKind

app = rabbitry.App("bench")
handled = 0
_TURN: Final = 0.3  # seconds; reports come each 2 s, so they fall into turns of both kinds
_FEWEST: Final = 500  # messages that make a turn count


@app.stage("in", queue=IN, then="out")
async def handle(item: Item) -> Item:
    """Raise the number."""
    global handled
    handled += 1
    return Item(item.n + 1, item.text)


app.output("out", queue=OUT)


async def fill(count: int) -> None:
    """Put items in."""
    async with app.publisher(URL) as publisher:
        for number in range(count):
            await publisher.send(Item(number), key="in")
        await publisher.wait_for_confirms()


class Silent(Counting):
    """Counts nothing and reports nothing."""

    def handled(self, job: Job, result: Result, outgoing: list[Publication]) -> None: ...

    def settled(self, job: Job, now: float) -> None: ...

    def reports(self, kind: ReportKind) -> list[Report]:
        """Give none."""
        return []


async def telemetry(count: int) -> None:
    """Handle what is there with and without telemetry, in turns; print what both cost, in µs of CPU a message.

    In one process, a moment of one after a moment of the other, since two runs differ by more than what is measured.
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
