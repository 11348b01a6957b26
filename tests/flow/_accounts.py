"""Accounting for messages after workers were killed: each input is done, waiting or a dead letter."""

import asyncio
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable

import rabbitry
from tests.flow._running import dead_of, eventually_holds
from tests.flow._victim import app
from tests.support import commands

_EMPTY = [
    "victim.handle",
    "victim.suspects.handle",
    *(f"victim.retry.{delay}" for delay in ("1s", "5s", "30s", "5m", "1h")),
]


def victim(url: str, *arguments: str) -> "subprocess.Popen[bytes]":
    """Start a worker that kills itself."""
    command = [sys.executable, "-m", "tests.flow._victim", url, *arguments]
    return subprocess.Popen(command, env=commands.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


async def publish(url: str, names: Iterable[str]) -> None:
    """Publish inputs."""
    async with app.publisher(url) as publisher:
        for name in names:
            await publisher.send(name, key="in")
        await publisher.wait_for_confirms()


async def kill_at(url: str, step: str, number: int) -> None:
    """Run a worker until it kills itself at a step."""
    process = victim(url, step, str(number))
    try:
        code = await asyncio.get_running_loop().run_in_executor(None, process.wait, 30)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    assert code == -signal.SIGKILL, f"step {step} never came: exit code {code}"


async def settle_all(url: str) -> None:
    """Run a worker until nothing waits any more."""
    async with app.worker(url, connect_attempts=1):
        for queue in _EMPTY:
            await eventually_holds(url, queue, 0, within=60)
        # What is in hand has left its queue; stopping settles it.


async def accounted(url: str, of: rabbitry.App = app, queue: str = "victim.out") -> tuple[Counter[str], Counter[str]]:
    """Give what came out, and what is a dead letter."""
    out: Counter[str] = Counter()
    async with rabbitry.connect(url) as connection, await connection.channel() as channel:
        while (delivery := await channel.get(queue)) is not None:
            out[delivery.body.decode()] += 1
            delivery.ack()
    return out, Counter(letter.body.decode() for letter in await dead_of(url, of))


async def lose_nothing(url: str, steps: Iterable[str], inputs: int, seed: int) -> int:
    """Kill workers at these steps, then let one finish; returns how many outputs came more than once."""
    names = [f"{'reject' if n % 10 == 0 else 'fail' if n % 10 == 1 else 'take'} {n}" for n in range(inputs)]
    chance = random.Random(seed)
    await publish(url, names)
    for step in steps:
        await kill_at(url, step, chance.randint(1, 3))
    await settle_all(url)
    out, dead = await accounted(url)
    assert set(out) | set(dead) == set(names), f"absent: {set(names) - set(out) - set(dead)} (seed {seed})"
    assert all(dead[name] for name in names if not name.startswith("take"))
    return sum(out.values()) - len(out) + sum(dead.values()) - len(dead)
