"""`delivery.process()`, which settles a message at the end of a block."""

import asyncio
import contextlib

import pytest

import rabbitry
from rabbitry.amqp.client.channel import Channel
from rabbitry.amqp.client.consuming import Delivery
from rabbitry.amqp.client.url import BrokerURL
from tests.support.proxy import FaultProxy
from tests.support.waiting import eventually


async def _got(channel: Channel, queue: str) -> Delivery:
    delivery = await channel.get(queue)
    assert delivery is not None
    return delivery


async def _filled(channel: Channel) -> str:
    queue = (await channel.declare_queue("", exclusive=True)).name
    await channel.publish(b"work", routing_key=queue)
    return queue


async def test_a_block_that_ends_acknowledges(broker_url: str) -> None:
    async with rabbitry.connect(broker_url) as connection:
        channel = await connection.channel()
        queue = await _filled(channel)
        delivery = await _got(channel, queue)
        async with delivery.process(requeue=True):
            pass
        with pytest.raises(rabbitry.AlreadySettled):
            delivery.ack()
        await channel.close()
        await channel.open()
        assert await channel.get(queue) is None


async def _lost(delivery: Delivery) -> None:
    await eventually(lambda: delivery.is_lost, "the connection is lost")


@pytest.mark.parametrize(
    ("requeue", "error", "comes_back"),
    [
        (False, ValueError, False),
        (True, ValueError, True),
        (ValueError, ValueError, True),
        (OSError, ValueError, False),
        ((OSError, LookupError), KeyError, True),
        (False, asyncio.CancelledError, True),
        (False, KeyboardInterrupt, True),
    ],
)
async def test_a_block_that_fails_rejects_by_rule(
    broker_url: str,
    requeue: bool | type[Exception] | tuple[type[Exception], ...],
    error: type[BaseException],
    comes_back: bool,
) -> None:
    async with rabbitry.connect(broker_url) as connection:
        channel = await connection.channel()
        queue = await _filled(channel)
        with pytest.raises(error):
            async with (await _got(channel, queue)).process(requeue=requeue):
                raise error
        again = await channel.get(queue)
        assert (again is not None) is comes_back


async def test_a_message_is_requeued_once(broker_url: str) -> None:
    async with rabbitry.connect(broker_url) as connection:
        channel = await connection.channel()
        queue = await _filled(channel)
        for _ in range(2):
            with pytest.raises(ValueError, match="bad"):
                async with (await _got(channel, queue)).process(requeue=True, requeue_once=True):
                    raise ValueError("bad")
        assert await channel.get(queue) is None


async def test_a_delivery_settled_within_the_block_is_left_alone(broker_url: str) -> None:
    async with rabbitry.connect(broker_url) as connection:
        channel = await connection.channel()
        queue = await _filled(channel)
        delivery = await _got(channel, queue)
        async with delivery.process():
            delivery.nack()
        again = await _got(channel, queue)

        async def fail_after_ack() -> None:
            async with again.process(requeue=True):
                again.ack()
                raise ValueError("bad")

        with pytest.raises(ValueError, match="bad"):
            await fail_after_ack()
        assert await channel.get(queue) is None
        await channel.publish(b"more", routing_key=queue)
        unneeded = await channel.get(queue, no_ack=True)
        assert unneeded is not None
        async with unneeded.process():
            pass


async def test_a_block_whose_channel_is_gone_ends_quietly(broker_url: str) -> None:
    async with rabbitry.connect(broker_url) as connection:
        channel = await connection.channel()
        queue = await _filled(channel)
        async with (await _got(channel, queue)).process():
            await channel.close()
        await channel.open()
        assert (await _got(channel, queue)).redelivered


def test_blocking_deliveries_are_settled_by_the_same_rules(broker_url: str) -> None:
    with rabbitry.connect_blocking(broker_url) as connection:
        channel = connection.channel()
        queue = channel.declare_queue("", exclusive=True).name
        channel.publish(b"work", routing_key=queue)
        first = channel.get(queue)
        assert first is not None
        with pytest.raises(OSError, match="away"), first.process(requeue=OSError, requeue_once=True):
            raise OSError("away")
        second = channel.get(queue)
        assert second is not None
        assert second.redelivered
        with second.process():
            assert second.body == b"work"
        assert channel.get(queue) is None


async def test_a_consumer_goes_on_over_lost_connections(broker_url: str, url: BrokerURL, proxy: FaultProxy) -> None:
    """The robust consumer of docs/howto/from-aio-pika.md, which is cut off twice while it handles a message."""
    bodies = [b"%d" % number for number in range(30)]
    faults = {b"5": proxy.cut, b"15": proxy.reset}
    handled: list[bytes] = []
    failed: list[bytes] = []
    async with rabbitry.connect(broker_url) as outside, rabbitry.connect(url) as connection:
        feed = await outside.channel()
        await feed.declare_queue("robust", durable=True)
        for body in bodies:
            await feed.send(body, routing_key="robust")
        await feed.wait_for_confirms()
        channel = await connection.channel(prefetch=10)
        await channel.declare_queue("robust", durable=True)
        async with channel.consume("robust", restore=True) as deliveries:
            async for delivery in deliveries:
                with contextlib.suppress(LookupError):
                    async with delivery.process(requeue=True, requeue_once=True):
                        if fault := faults.pop(delivery.body, None):
                            await fault()
                            await _lost(delivery)
                        if delivery.body == b"28" and not failed:
                            failed.append(delivery.body)
                            raise LookupError
                        handled.append(delivery.body)
                if handled.count(b"5") > 1 and handled.count(b"15") > 1 and set(handled) == set(bodies):
                    break
        await connection.close()
        assert (await feed.declare_queue("robust", passive=True)).message_count == 0
    assert failed == [b"28"]
