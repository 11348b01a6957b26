"""The client on uvloop: large bodies, a loss in the middle, and the broker on uvloop too."""

import asyncio
import sys
from collections.abc import Coroutine
from typing import Any

import pytest

import rabbitry
from rabbitry.amqp.client import parse_url
from rabbitry.broker import Broker, BrokerConfig
from tests.support.proxy import FaultProxy

uvloop = pytest.importorskip("uvloop")


def _run(main: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)


async def _through_a_loss(url: str) -> None:
    port = parse_url(url).hosts[0][1]
    async with FaultProxy(port) as proxy, rabbitry.connect(url.replace(f":{port}/", f":{proxy.port}/")) as connection:
        channel = await connection.channel(prefetch=10)
        queue = (await channel.declare_queue("", exclusive=True)).name
        large = bytes(range(256)) * 8192
        async with channel.consume(queue) as deliveries:
            for number in range(20):
                await channel.send(b"%d" % number, routing_key=queue)
                if number == 10:
                    await channel.wait_for_confirms()
                    await proxy.reset()
            await channel.wait_for_confirms()
            await channel.publish(large, routing_key=queue)
            async with asyncio.timeout(90):
                async for delivery in deliveries:
                    delivery.ack()
                    if len(delivery.body) == len(large):
                        assert delivery.body == large
                        break


def test_the_client_on_uvloop(broker_url: str) -> None:
    _run(_through_a_loss(broker_url))


def test_the_broker_on_uvloop() -> None:
    async def both() -> None:
        async with Broker(BrokerConfig(port=0, management_port=0)) as broker:
            await _through_a_loss(broker.url)

    _run(both())


@pytest.mark.skipif(sys.platform == "win32", reason="uvloop is not for Windows")
def test_the_blocking_client_uses_uvloop() -> None:
    from rabbitry.runtime.io_thread import new_event_loop

    loop = new_event_loop()
    try:
        assert type(loop).__module__.startswith("uvloop")
    finally:
        loop.close()
