"""Accounting for messages after workers were killed: each input is done, waiting or a dead letter."""

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import Iterable

from tests.flow._running import bodies, gathered
from tests.flow.worker._victim import app
from tests.support import commands
from tests.support.launcher import Launched, launch

OUT, DEAD = "victim.out", "victim.dead"


def victim(url: str, *arguments: str) -> Launched:
    """Start a worker that kills itself."""
    with open(os.devnull, "wb") as nowhere:
        output = nowhere.fileno()
        return launch([url, *arguments], commands.environment(), output, output, module="tests.flow.worker._victim")


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
        code = await asyncio.get_running_loop().run_in_executor(None, process.wait, 90)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    assert code == -signal.SIGKILL, f"step {step} never came: exit code {code}"


async def settled(url: str, names: Iterable[str]) -> tuple[Counter[str], Counter[str]]:
    """Run a worker until each input has come out or is a dead letter; return what came out, and the dead letters."""
    async with app.worker(url, connect_attempts=1):
        found = await gathered(url, (OUT, DEAD), set(names))
    for queue, came in found.items():  # what came a second time may have been in hand
        came.update(body.decode() for body in await bodies(url, queue))
    return found[OUT], found[DEAD]


async def lose_nothing(url: str, steps: Iterable[str], inputs: int, seed: int) -> int:
    """Kill workers at these steps, then let one finish; returns how many outputs came more than once."""
    names = [f"{'reject' if n % 10 == 0 else 'fail' if n % 10 == 1 else 'take'} {n}" for n in range(inputs)]
    chance = random.Random(seed)
    await publish(url, names)
    for step in steps:
        await kill_at(url, step, chance.randint(1, 3))
    out, dead = await settled(url, names)
    assert set(out) | set(dead) == set(names), f"seed {seed}"
    assert all(dead[name] for name in names if not name.startswith("take"))
    return sum(out.values()) - len(out) + sum(dead.values()) - len(dead)
