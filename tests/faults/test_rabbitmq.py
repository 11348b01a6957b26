"""Every confirmed message arrives from one RabbitMQ that is killed, paused and restarted under load."""

import asyncio
import random
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final

import pytest

from tests.support.load import Load, running_load
from tests.support.rabbitmq import RabbitMQ

_LONG: Final = 300
_BATCH: Final = 100
"""Times 50 are the messages a second."""


async def _kill(server: RabbitMQ) -> None:
    await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.start)


async def _pause(server: RabbitMQ) -> None:
    """Pause for less than two heartbeats: the connections survive."""
    server.pause()
    await asyncio.sleep(0.5)
    server.resume()


async def _hang(server: RabbitMQ) -> None:
    """Pause for more than two heartbeats: the client considers the server dead, and cannot connect meanwhile."""
    server.pause()
    await asyncio.sleep(8)
    server.resume()


async def _restart(server: RabbitMQ) -> None:
    await asyncio.to_thread(server.stop)
    await asyncio.to_thread(server.start)


_FAULTS: Final[dict[str, Callable[[RabbitMQ], Awaitable[None]]]] = {
    "killed": _kill,
    "paused": _pause,
    "hanging": _hang,
    "restarted": _restart,
}


def _url(server: RabbitMQ) -> str:
    return f"{server.url}?heartbeat=2&connection_timeout=3000"


def _check(load: Load) -> None:
    load.account.check()
    assert not load.account.unconfirmed  # the server returns long before the messages' deadline


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "fault",
    [
        "killed",
        pytest.param("hanging", marks=pytest.mark.faults),
        pytest.param("paused", marks=pytest.mark.faults),
        pytest.param("restarted", marks=pytest.mark.faults),
    ],
)
async def test_a_failing_server_loses_no_confirmed_message(own_rabbitmq: RabbitMQ, fault: str) -> None:
    async with running_load(_url(own_rabbitmq), batch=_BATCH) as load:
        await load.arrives(2000)
        await _FAULTS[fault](own_rabbitmq)
        await load.arrives(2000)
        await load.settle()
    _check(load)
    if fault != "paused":
        assert load.account.losses["publisher"]
        assert load.account.losses["consumer"]
    print(f"{fault}: {load.account}", file=sys.stderr)


@pytest.mark.faults
@pytest.mark.timeout(_LONG + 300)
async def test_five_minutes_of_a_failing_server(own_rabbitmq: RabbitMQ) -> None:
    chance = random.Random(5)
    loop = asyncio.get_running_loop()
    end = loop.time() + _LONG
    suffered: Counter[str] = Counter()
    async with running_load(_url(own_rabbitmq), batch=_BATCH) as load:
        while loop.time() < end:
            await load.arrives(500)
            await asyncio.sleep(chance.uniform(0, 2))
            fault = chance.choice(list(_FAULTS))
            suffered[fault] += 1
            await _FAULTS[fault](own_rabbitmq)
        await load.settle(60)
    _check(load)
    print(f"server {', '.join(f'{name} {count} times' for name, count in suffered.items())}; {load.account}",
          file=sys.stderr)  # fmt: skip
