"""How exactly a stage's rate and a schedule hold while workers are killed: `make bench ARGS=limits`.

Four workers share `rate="20/s"` for a minute, in which one is killed every five seconds and replaced. Then three share
a schedule of one tick a second, of which one after the other is killed, 50 times. On the embedded broker and on
RabbitMQ 3.10.8; prints the table of docs/performance.md. `--seconds 20 --kills 10` is short; `--broker embedded` runs
one of them.
"""

import argparse
import asyncio
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from tests.flow.worker._over_kills import RATE, begun_over_kills, rate_of, ticks_over_kills
from tests.support.embedded import BrokerProcess
from tests.support.rabbitmq import RabbitMQ

_KILLED_EACH: Final = 5
"""Seconds between two kills of a worker with a rate."""
_BEFORE: Final = 5
"""Seconds beyond the measured ones, in which the workers start."""


async def _rate(url: str, seconds: int) -> tuple[float, int]:
    """Return how many messages began in a second, and the number of kills."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "begun"
        path.touch()
        kills = seconds // _KILLED_EACH
        _, begun = await begun_over_kills(url, path, (seconds + _BEFORE) * RATE, kills)
    return rate_of(begun, seconds), kills


def _row(broker: str, url: str, seconds: int, kills: int) -> str:
    rate, killed = asyncio.run(_rate(url, seconds))
    ticks = asyncio.run(ticks_over_kills(url, kills)) if kills else []
    wanted = set(range(ticks[0], ticks[-1] + 1)) if ticks else set()
    twice, missed = len(ticks) - len(set(ticks)), len(wanted - set(ticks))
    share = (rate / RATE - 1) * 100
    return f"| {broker} | {rate:.2f} ({share:+.1f} %) | {killed} | {len(ticks)} | {kills} | {twice} | {missed} |"


def main() -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(prog="benchmarks.limits")
    parser.add_argument("--seconds", type=int, default=60, help="of the rate")
    parser.add_argument("--kills", type=int, default=50, help="of workers with the schedule")
    parser.add_argument("--broker", choices=("embedded", "rabbitmq"))
    options = parser.parse_args()
    rows = []
    with ExitStack() as stack:
        if options.broker != "rabbitmq":
            url = stack.enter_context(BrokerProcess("--log-level", "error", anew=True)).url
            rows.append(_row("embedded", url, options.seconds, options.kills))
        if options.broker != "embedded":
            rows.append(_row("RabbitMQ 3.10.8", stack.enter_context(RabbitMQ()).url, options.seconds, options.kills))
    print(f"| broker | begun a second of {RATE} | kills | ticks | kills | twice | missed |")
    print("|---|---|---|---|---|---|---|")
    print(*rows, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
