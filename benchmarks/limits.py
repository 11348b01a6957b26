"""How exactly a stage's rate and a schedule hold while workers are killed: `make bench ARGS=limits`.

Four workers share `rate="20/s"` for a minute, in which one is killed every five seconds and replaced; then the same
with that rate for each of three keys, and once more with `rate="40/s"` of the whole stage beside it. Then three share a
schedule of one tick a second, of which one after the other is killed, 50 times. Then one worker handles messages of
which each has a key of its own, and messages of ten keys in turn. On the embedded broker and on RabbitMQ 3.10.8; prints
the tables of docs/performance.md. `--seconds 20 --kills 10` is short; `--broker embedded` runs one of them.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from tests.flow.worker._limited import KEYS
from tests.flow.worker._limited import app as limited
from tests.flow.worker._over_kills import (
    RATE,
    WHOLE,
    Begun,
    begun_over_kills,
    rate_of,
    ticks_over_kills,
)
from tests.support.embedded import BrokerProcess
from tests.support.rabbitmq import RabbitMQ

import rabbitry
from rabbitry.flow.wiring.retries import suspects_queue

_KILLED_EACH: Final = 5
"""Seconds between two kills of a worker with a rate."""
_BEFORE: Final = 5
"""Seconds beyond the measured ones, in which the workers start."""
_HANDLED: Final = 1000
"""Messages that one worker handles."""


async def _begun(url: str, stage: str, rate: float, seconds: int) -> Begun:
    """Run workers with kills until a stage, or each of its keys, has begun what its rate allows in so many seconds."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "begun"
        path.touch()
        number = round((seconds + _BEFORE) * rate)
        begun = await begun_over_kills(url, path, stage, number, seconds // _KILLED_EACH)
    async with rabbitry.connect(url) as connection, await connection.channel() as channel:
        # What is left, since the workers of the next run would handle it beside what is measured there.
        for queue in (limited.stages[stage].queue, suspects_queue(limited.name, stage)):
            await channel.delete_queue(queue)
    return begun


async def _handled(url: str, name: str, key_of: Callable[[int], int], rate: str | None, total: int | None) -> float:
    """Return how many messages with limits for each key one worker handles in a second, from the first one on.

    The handler does nothing.
    """
    app, done, number, began = rabbitry.App(name), asyncio.Event(), 0, 0.0

    @app.stage("in", limit_by=key_of, rate_each=rate, concurrency_each=total)
    async def handle(_: int) -> None:
        nonlocal number, began
        number += 1
        if number == 1:
            began = time.perf_counter()
        if number == _HANDLED:
            done.set()

    async with app.publisher(url) as publisher:
        for each in range(_HANDLED):
            await publisher.send(each, key="in")
        await publisher.wait_for_confirms()
    async with app.worker(url):
        await done.wait()
        return (_HANDLED - 1) / (time.perf_counter() - began)


async def _speed(broker: str, url: str) -> str:
    """Return the row of the messages that one worker handles."""
    found = [
        await _handled(url, f"speed{place}", key_of, rate, total)
        for place, (key_of, rate, total) in enumerate(
            (
                (lambda number: number, None, 1),
                (lambda number: number % 10, None, 1),
                (lambda number: number, "1000/s", None),
                (lambda number: number % 10, "1000/s", None),
            )
        )
    ]
    return f"| {broker} | {' | '.join(f'{rate:,.0f}' for rate in found)} |"


def _row(broker: str, url: str, seconds: int, kills: int) -> str:
    """Return the row of what begins while workers are killed."""
    one = rate_of(asyncio.run(_begun(url, "ask", RATE, seconds)).all, seconds)
    each = asyncio.run(_begun(url, "ask_each", RATE, seconds)).by_key.values()
    by_key = sorted(rate_of(moments, seconds) for moments in each)
    both = rate_of(asyncio.run(_begun(url, "ask_both", WHOLE / KEYS, seconds)).all, seconds)
    ticks = asyncio.run(ticks_over_kills(url, kills)) if kills else []
    wanted = set(range(ticks[0], ticks[-1] + 1)) if ticks else set()
    twice, missed = len(ticks) - len(set(ticks)), len(wanted - set(ticks))
    rates = f"{_beside(one, RATE)} | {by_key[0]:.2f} to {by_key[-1]:.2f} | {_beside(both, WHOLE)}"
    return f"| {broker} | {rates} | {seconds // _KILLED_EACH} | {len(ticks)} | {kills} | {twice} | {missed} |"


def _beside(rate: float, wanted: float) -> str:
    return f"{rate:.2f} ({(rate / wanted - 1) * 100:+.1f} %)"


def main() -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(prog="benchmarks.limits")
    parser.add_argument("--seconds", type=int, default=60, help="of the rate")
    parser.add_argument("--kills", type=int, default=50, help="of workers with the schedule")
    parser.add_argument("--broker", choices=("embedded", "rabbitmq"))
    options = parser.parse_args()
    rows, speeds = [], []
    with ExitStack() as stack:
        if options.broker != "rabbitmq":
            url = stack.enter_context(BrokerProcess("--log-level", "error", anew=True)).url
            rows.append(_row("embedded", url, options.seconds, options.kills))
            speeds.append(asyncio.run(_speed("embedded", url)))
        if options.broker != "embedded":
            url = stack.enter_context(RabbitMQ()).url
            rows.append(_row("RabbitMQ 3.10.8", url, options.seconds, options.kills))
            speeds.append(asyncio.run(_speed("RabbitMQ 3.10.8", url)))
    begun = f"begun a second of {RATE} | … of each key | … of {WHOLE}, beside {RATE} of each key"
    print(f"| broker | {begun} | kills | ticks | kills | twice | missed |")
    print("|---|---|---|---|---|---|---|---|---|")
    print(*rows, sep="\n")
    print("\n| broker | at once, a key each | … ten keys | rate, a key each | … ten keys |")
    print("|---|---|---|---|---|")
    print(*speeds, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
