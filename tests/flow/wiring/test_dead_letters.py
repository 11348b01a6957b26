"""A replay publishes at most one batch of copies whose originals the broker may still have. Others test the rest."""

import asyncio

import pytest

import rabbitry
from rabbitry.amqp.client import parse_url
from rabbitry.exceptions import ConnectionClosed
from rabbitry.flow.wiring import dead_letters
from rabbitry.flow.wiring.dead_letters import DeadLetter
from tests.support.proxy import FaultProxy, Way
from tests.support.waiting import eventually_awaited
from tests.web.dead.serving import bury, count, settled, taken


async def test_unread_acks_leave_at_most_one_batch_twice(
    broker_url: str, no_leaks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters, "BATCH", 20)
    url = parse_url(broker_url)
    async with (
        FaultProxy(url.hosts[0][1]) as proxy,
        rabbitry.connect(broker_url) as over,
        rabbitry.connect(url._replace(hosts=(("127.0.0.1", proxy.port),))) as taking,
    ):
        channel = await over.channel()
        await channel.declare_queue("again.queue", durable=True)
        await bury(channel, "again", [b"%d" % number for number in range(100)], queue="again.queue")

        def chosen(_: DeadLetter) -> bool:
            proxy.pause(Way.TO_SERVER)  # from here on the broker gets none of the acks
            return True

        replaying = asyncio.create_task(dead_letters.replay(taking, "again", chosen, over=over))

        async def is_full() -> bool:
            return await count(channel, "again.queue") >= 20

        await eventually_awaited(is_full, "a batch of copies")
        for _ in range(50):  # turns in which the replay could publish more
            await count(channel, "again.queue")
        await proxy.reset()
        proxy.resume()  # the connection recovers, and the broker answers over the next one
        with pytest.raises(ConnectionClosed):
            await replaying
        await settled(channel, "again.dead", 100)
        assert sum((await taken(channel, "again.queue")).values()) == 20
