"""A worker that kills itself (SIGKILL) at one step of the settlement, for tests: URL STEP NUMBER.

Without STEP it works until it is told to stop.
"""

import asyncio
import os
import signal
import sys

import rabbitry
from rabbitry.flow.message import Publication
from rabbitry.flow.worker import _engine
from rabbitry.flow.worker._job import Job, Pending, Result, Work
from rabbitry.flow.worker._settlement import Settler

app = rabbitry.App("victim")
STEPS = ("delivered", "handling", "handled", "sent", "confirmed", "acked", "rejected", "failed")


@app.stage("in", then="out", delays=[0], concurrency=20)
async def handle(text: str) -> str:
    _at("handling")
    await asyncio.sleep(0)
    if text.startswith("reject"):
        raise rabbitry.Reject
    if text.startswith("fail"):
        raise ValueError(text)
    return text


app.output("out", queue="victim.out")

_step, _left = "", 0


def _at(step: str) -> None:
    """Die where this is the step, the last time of so many."""
    global _left
    if step == _step:
        _left -= 1
        if _left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)


class Victim(Settler):
    """Settles as the real one does, and dies on the way."""

    def take(self, job: Job) -> bool:
        is_taken = super().take(job)
        _at("delivered")
        return is_taken

    def finish(self, work: Work, result: Result) -> None:
        _at("handled" if result.kind == "done" else result.kind)
        super().finish(work, result)

    async def _send(self, pending: Pending, message: Publication, refusals: int) -> None:
        await super()._send(pending, message, refusals)
        _at("sent")

    def _ack(self, job: Job) -> None:
        _at("confirmed")
        super()._ack(job)
        if _step == "acked":
            self._loop.call_soon(_at, "acked")


async def main() -> None:
    """Work until killed."""
    global _step, _left
    url, *more = sys.argv[1:]
    if more:
        _step, _left = more[0], int(more[1])
        vars(_engine)["Settler"] = Victim  # where the real worker finds it
    async with app.worker(url, connect_attempts=1) as worker:
        await worker.wait()


if __name__ == "__main__":
    asyncio.run(main())
