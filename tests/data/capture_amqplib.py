"""Records what py-amqplib 1.0.2 (2011, AMQP 0-8) and RabbitMQ 3.10.8 say to each other; README.md beside it.

Run it with `.venv/bin/python -m tests.data.capture_amqplib PYTHON2`, a Python 2.7 that has amqplib 1.0.2.
"""

import asyncio
import sys
from pathlib import Path

from tests.data import AMQPLIB
from tests.data.capture import Recorder
from tests.support.proxy import FaultProxy
from tests.support.rabbitmq import RabbitMQ

PROGRAMS = Path(__file__).parent / "amqplib_programs.py2"
DESCRIPTIONS = {
    "crawler": "Declares exchange and both queues, binds logq, publishes two pages and two lines of the log.",
    "processor": "Binds proc, takes two pages, acks each before its work, logs each.",
    "page": "Binds logq and takes four lines of the log.",
    "refused": "Declares a queue that exists durable with amqplib's defaults: 406.",
}


class _Program:
    """One program, on a proxy of its own that records it."""

    def __init__(self, python: str, name: str, vhost: str) -> None:
        self.name = name
        self._python = python
        self._vhost = vhost
        self.recorder = Recorder()

    async def run(self, port: int, consuming: asyncio.Event) -> None:
        async with FaultProxy(port, tap=self.recorder) as proxy:
            arguments = (str(PROGRAMS), self.name, f"127.0.0.1:{proxy.port}", self._vhost)
            process = await asyncio.create_subprocess_exec(self._python, *arguments, stdout=asyncio.subprocess.PIPE)
            assert process.stdout is not None
            if await process.stdout.readline():
                consuming.set()
            if code := await process.wait():
                raise SystemExit(f"{self.name} ended with exit code {code}")


async def main(python: str) -> None:
    """Record all programs anew: the consumers first, then the crawler."""
    AMQPLIB.mkdir(exist_ok=True)
    vhost = "capture"
    with RabbitMQ() as server:
        server.add_vhost(vhost)
        programs = {name: _Program(python, name, vhost) for name in DESCRIPTIONS}
        async with asyncio.TaskGroup() as tasks:
            for name in ("page", "processor"):
                consuming = asyncio.Event()
                tasks.create_task(programs[name].run(server.port, consuming))
                await consuming.wait()
            for name in ("crawler", "refused"):
                await programs[name].run(server.port, asyncio.Event())
    for name, program in programs.items():
        program.recorder.write(name, DESCRIPTIONS[name], folder=AMQPLIB, client="amqplib 1.0.2 on Python 2.7")
        print(name)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
