"""`rabbitry topology plan` and `apply`, as a user runs them, killed in the middle."""

import asyncio
import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

import rabbitry
from tests.flow._running import bodies, counts
from tests.support import commands
from tests.support.management import broker_and_management

_SHOP = """
import rabbitry
app = rabbitry.App("shop")
app.output("order", queue="shop.orders", queue_arguments={"x-max-length": 100000})
"""
_TOTAL = 3000


@pytest.fixture(params=["embedded", "rabbitmq"])
def brokers(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """The URLs of a broker and of its management API."""
    with broker_and_management(request) as urls:
        yield urls


async def _fill(url: str) -> None:
    async with rabbitry.connect(url) as connection, await connection.channel() as channel:
        await channel.declare_queue("shop.orders", durable=True)
        for number in range(_TOTAL):
            await channel.send(str(number).encode(), routing_key="shop.orders")


def test_a_killed_apply_goes_on_where_it_was(brokers: tuple[str, str], tmp_path: Path) -> None:
    url, management = brokers
    (tmp_path / "shop_to_move.py").write_text(_SHOP)
    more = {"RABBITRY_BROKER": url, "RABBITRY_MANAGEMENT": management, "PYTHONPATH": str(tmp_path)}
    asyncio.run(_fill(url))
    plan = commands.run("topology", "plan", "shop_to_move:app", more=more)
    assert plan.returncode == 0, plan.stderr
    assert "queue 'shop.orders': PRECONDITION_FAILED" in plan.stdout
    assert f"move the messages of 'shop.orders' to 'shop.orders.moving': {_TOTAL} now" in plan.stdout
    asked = commands.run("topology", "apply", "shop_to_move:app", more=more)
    assert (asked.returncode, asked.stdout) == (2, plan.stdout), asked.stderr
    assert "pass --yes" in asked.stderr
    apply = ("topology", "apply", "shop_to_move:app", "--yes", "--json")
    with commands.service(*apply, more=more) as killed:
        killed.wait_for('"step":"move-back".*"moved":[1-9]')
        killed.process.send_signal(signal.SIGKILL)
        killed.process.wait()
    done = commands.run(*apply, more=more)
    assert done.returncode == 0, done.stderr
    steps = [json.loads(line)["step"] for line in done.stdout.splitlines()]
    assert "wait" not in steps, "the queue had been swapped"
    assert steps[-1:] in (["remove"], []), "what was left; nothing if it was done before it was killed"
    again = commands.run("topology", "plan", "shop_to_move:app", more=more)
    assert (again.returncode, again.stdout) == (0, "")
    assert re.search("nothing is declared with other flags", again.stderr)
    assert asyncio.run(counts(url, ["shop.orders.moving"])) == {"shop.orders.moving": -1}
    assert {int(body) for body in asyncio.run(bodies(url, "shop.orders"))} == set(range(_TOTAL))
