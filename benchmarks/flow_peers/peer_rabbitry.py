"""Rabbitry's program; `fill COUNT` adds items, `telemetry COUNT` measures the cost of telemetry."""

import asyncio
import json
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
_MESSAGES: Final = 1_000
"""Messages of a turn with or without telemetry. With few, those that are on their way between two turns matter."""
_LOOK: Final = 0.005
"""Seconds between two looks whether a turn is over."""


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
    """Handle the waiting items with and without telemetry; print its share of the CPU of a message, for each pair.

    A pair is two short turns in one process, one after the other, since the speed of a machine that others use changes
    by more than what is measured. The order changes from pair to pair.
    """
    shares: list[float] = []
    kinds: list[type[Counting]] = [Counting, Silent]
    async with app.worker(URL) as worker:
        counting = worker._engine.counting
        while handled + 3 * _MESSAGES < count:
            costs: dict[type[Counting], float] = {}
            for kind in kinds:
                counting.__class__ = kind
                before, cpu = handled, time.process_time()
                while handled < before + _MESSAGES:  # noqa: ASYNC110 - an event would cost each message
                    await asyncio.sleep(_LOOK)
                costs[kind] = (time.process_time() - cpu) / (handled - before)
            kinds.reverse()
            shares.append(1 - costs[Silent] / costs[Counting])
    print(json.dumps(shares))


if __name__ == "__main__":
    asyncio.run({"fill": fill, "telemetry": telemetry}[sys.argv[1]](int(sys.argv[2])))
