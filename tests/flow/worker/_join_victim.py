"""A worker of an app with a join that kills itself (SIGKILL) at one step of the settlement, for tests.

Its arguments are URL STORE LOG KIND [STEP NUMBER]. KIND is "plain", or "idempotent" for an app whose stages before the
join handle each message once: the split by a key, since copies of a job have ids of their own. Each run of the join
writes a line to LOG: the job, the id of the message that runs it, its attempt and its uncounted retries.
"""

import asyncio
import os
import sys

import rabbitry
from rabbitry.flow._parts import part_of
from rabbitry.flow.message import PART, UNCOUNTED
from rabbitry.flow.worker import _engine
from tests.flow.worker import _victim

PARTS = 5
CONCURRENCY = 5


def make_app(store: str, log: str, kind: str) -> rabbitry.App:
    """Return the app."""
    app = rabbitry.App("jobs", store=store)
    is_once = kind == "idempotent"

    @app.stage("job", then="part", delays=[0], concurrency=CONCURRENCY, idempotent=str if is_once else False)
    async def split(number: int) -> list[str]:
        return [f"{number}.{part}" for part in range(PARTS)]

    @app.stage("part", then="worked", delays=[0], concurrency=CONCURRENCY, idempotent=is_once)
    async def work(part: str) -> list[str]:
        return [part, part]  # each part comes twice, of kills apart

    @app.join("worked", of="split", then="joined", delays=[0], concurrency=CONCURRENCY)
    async def join(parts: list[str], message: rabbitry.Message) -> str:
        part = part_of(str(message.headers[PART]))
        assert part is not None
        file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, f"{part.job} {message.id} {message.attempt}.{message.headers.get(UNCOUNTED, 0)}\n".encode())
        os.close(file)
        return " ".join(parts)

    app.output("joined", queue="jobs.joined")
    return app


async def main() -> None:
    """Work until killed."""
    url, store, log, kind, *more = sys.argv[1:]
    if more:
        _victim._step, _victim._left = more[0], int(more[1])
        vars(_engine)["Settler"] = _victim.Victim  # where the real worker finds it
    async with make_app(store, log, kind).worker(url, connect_attempts=1) as worker:
        await worker.wait()


if __name__ == "__main__":
    asyncio.run(main())
