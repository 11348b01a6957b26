"""A worker of an idempotent stage that kills itself (SIGKILL) at one step of the settlement, for tests.

Its arguments are URL STORE LOG KIND [STEP NUMBER]. Each call of the handler writes the value to LOG. KIND is "single",
or "batch" for a handler of three at once.
"""

import asyncio
import os
import sys

import rabbitry
from rabbitry.flow.worker import _engine
from tests.flow.worker import _victim


def make_app(store: str, log: str, kind: str) -> rabbitry.App:
    """Return the app."""
    app = rabbitry.App("once", store=store)

    def note(order: str) -> str:
        file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, f"{order}\n".encode())
        os.close(file)
        return order

    if kind == "batch":

        @app.stage("order", name="charge", then="bill", delays=[0], batch=3, idempotent=True)
        async def charge_all(orders: list[str]) -> list[str]:
            return [note(order) for order in orders]
    else:

        @app.stage("order", then="bill", delays=[0], concurrency=5, idempotent=True)
        async def charge(order: str) -> str:
            return note(order)

    app.output("bill", queue="once.bills")
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
