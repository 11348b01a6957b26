"""Races of losses, cancellations and closes: nobody is left waiting, and no message is lost."""

import asyncio
import os
import threading
from concurrent.futures import CancelledError
from contextlib import suppress

import pytest

import rabbitry
from rabbitry.amqp.client import BrokerURL, Channel, _window, blocking
from rabbitry.amqp.client._channel import ChannelCore
from rabbitry.runtime import backoff, loop_watchdog
from rabbitry.runtime.backoff import Backoff
from rabbitry.runtime.io_thread import IOThread
from tests.support.proxy import FaultProxy, Way
from tests.support.waiting import eventually, eventually_awaited, eventually_blocking


async def _eventually_consumed_by(looking: Channel, queue: str, consumers: int) -> None:
    """Wait until a queue has `consumers` consumers; RabbitMQ may not have noticed a lost connection yet."""

    async def is_so() -> bool:
        return (await looking.declare_queue(queue, passive=True)).consumer_count == consumers

    await eventually_awaited(is_so, f"{consumers} consumers")


async def test_a_consumer_waiting_to_be_restarted_ends_with_its_channel(no_leaks: None, broker_url: str) -> None:
    async with rabbitry.connect(broker_url) as other, rabbitry.connect(broker_url) as connection:
        declaring = await other.channel()
        queue = (await declaring.declare_queue("stays-away")).name
        channel = await connection.channel()
        async with channel.consume(queue, restore=True) as deliveries:
            waiting = asyncio.ensure_future(anext(deliveries))
            await declaring.delete_queue(queue)
            await channel.publish(b"x", routing_key=queue, mandatory=False)  # the cancel has come before its confirm
            await channel.close()
            async with asyncio.timeout(90):
                with pytest.raises(rabbitry.ChannelClosed):
                    await waiting


async def test_a_consumer_is_not_started_again_if_the_loss_came_before_cancel_ok(
    no_leaks: None, broker_url: str, url: BrokerURL, proxy: FaultProxy
) -> None:
    async with rabbitry.connect(broker_url) as other, rabbitry.connect(url) as connection:
        looking = await other.channel()
        channel = await connection.channel()
        queue = (await channel.declare_queue("left")).name
        consumer = channel.consume(queue)
        await consumer.start()
        proxy.pause(Way.TO_CLIENT)
        cancelling = asyncio.create_task(consumer.cancel())
        await asyncio.sleep(0)
        await proxy.cut()
        proxy.resume(Way.TO_CLIENT)
        await cancelling
        await channel.qos(10)  # answered once the connection is back
        await _eventually_consumed_by(looking, queue, 0)
        await channel.delete_queue(queue)


@pytest.mark.parametrize("restore", [False, True])
async def test_a_start_cancelled_during_a_loss_starts_nothing(
    no_leaks: None, broker_url: str, url: BrokerURL, proxy: FaultProxy, restore: bool
) -> None:
    async with rabbitry.connect(broker_url) as other, rabbitry.connect(url) as connection:
        looking = await other.channel()
        channel = await connection.channel()
        queue = (await channel.declare_queue("never")).name
        proxy.pause(Way.TO_CLIENT)
        starting = asyncio.create_task(channel.consume(queue, restore=restore).start())
        await asyncio.sleep(0)
        proxy.refuse()
        await proxy.cut()
        await eventually(lambda: not connection.is_open, "the loss")
        for _ in range(5):
            await asyncio.sleep(0)
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        proxy.resume(Way.TO_CLIENT)
        proxy.accept()
        await channel.qos(10)
        await _eventually_consumed_by(looking, queue, 0)
        await channel.delete_queue(queue)


async def test_a_get_cancelled_after_its_answer_requeues_the_message(
    broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with rabbitry.connect(broker_url) as connection:
        channel = await connection.channel()
        queue = (await channel.declare_queue(exclusive=True)).name
        await channel.publish(b"kept", routing_key=queue)
        answered = ChannelCore._hold_got
        getting: list[asyncio.Task[object]] = []

        def cancel_then(self: ChannelCore, answer: object) -> None:
            answered(self, answer)  # type: ignore[arg-type] # passed on as it came
            # The answer is set in this loop iteration; the task that waits for it runs in the next.
            asyncio.get_running_loop().call_soon(getting[0].cancel)

        monkeypatch.setattr(ChannelCore, "_hold_got", cancel_then)
        getting.append(asyncio.create_task(channel.get(queue)))
        with pytest.raises(asyncio.CancelledError):
            await getting[0]
        monkeypatch.undo()
        again = await channel.get(queue)
        assert again is not None
        assert (again.body, again.redelivered) == (b"kept", True)
        again.ack()


async def test_properties_that_cannot_be_encoded_leave_the_next_message_whole(broker_url: str) -> None:
    async with rabbitry.connect(broker_url) as connection:
        channel = await connection.channel()
        queue = (await channel.declare_queue(exclusive=True)).name
        await channel.publish(b"1", routing_key=queue)
        bad = rabbitry.Properties(message_id="x" * 300)
        with pytest.raises(rabbitry.UsageError):
            await channel.publish(b"2", routing_key=queue, properties=bad)
        await channel.publish(b"3", routing_key=queue)
        bodies = []
        while (delivery := await channel.get(queue, no_ack=True)) is not None:
            assert delivery.properties.message_id
            bodies.append(delivery.body)
        assert bodies == [b"1", b"3"]


async def test_a_waiter_that_cannot_send_wakes_the_next(broker_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_window, "WINDOW_MESSAGES", 1)
    async with rabbitry.connect(broker_url) as connection:
        channel = await connection.channel()
        queue = (await channel.declare_queue(exclusive=True)).name
        first = await channel.send(b"1", routing_key=queue)
        bad = asyncio.create_task(channel.send(b"2", routing_key="k" * 300))
        last = asyncio.create_task(channel.publish(b"3", routing_key=queue))
        async with asyncio.timeout(90):
            await first
            with pytest.raises(rabbitry.UsageError):
                await bad
            await last


async def test_a_close_cancelled_during_recovery_has_closed(no_leaks: None, url: BrokerURL, proxy: FaultProxy) -> None:
    async with rabbitry.connect(url) as connection:
        channel = await connection.channel()
        proxy.refuse()
        await proxy.cut()
        await eventually(lambda: not connection.is_open, "the loss")
        waiting = asyncio.create_task(channel.declare_queue(exclusive=True))
        closing = asyncio.create_task(connection.close())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.gather(closing, return_exceptions=True)
        async with asyncio.timeout(90):
            await connection.wait_closed()
            with pytest.raises(rabbitry.ConnectionClosed):
                await waiting


def test_many_threads_take_from_a_consumer_that_was_held(embedded_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocking.consuming, "_INBOX_MESSAGES", 20)
    with rabbitry.connect_blocking(embedded_url) as connection:
        channel = connection.channel(prefetch=0)
        queue = channel.declare_queue(exclusive=True).name
        for number in range(3000):
            channel.send(b"%d" % number, routing_key=queue)
        channel.wait_for_confirms()
        seen: list[bytes] = []

        def take() -> None:
            for delivery in deliveries:
                seen.append(delivery.body)

        with channel.consume(queue, no_ack=True) as deliveries:
            threads = [threading.Thread(target=take) for _ in range(4)]
            for thread in threads:
                thread.start()
            eventually_blocking(lambda: len(seen) == 3000, "all messages")
        for thread in threads:
            thread.join(90)
        assert len(set(seen)) == 3000


def test_stopping_the_io_thread_wakes_all_waiters() -> None:
    io = IOThread()
    ends: list[BaseException] = []
    started = threading.Event()

    async def wait() -> None:
        started.set()
        await asyncio.sleep(600)

    def ask() -> None:
        try:
            io.run(wait())
        except rabbitry.ConnectionClosed as error:
            ends.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    assert started.wait(90)
    io.stop()
    thread.join(90)
    assert len(ends) == 1


def test_unsent_messages_are_cancelled_when_the_connection_closes(embedded_url: str) -> None:
    connection = rabbitry.connect_blocking(embedded_url)
    channel = connection.channel()
    confirms = [channel.send(b"x", routing_key="nowhere", mandatory=False) for _ in range(2000)]
    connection.close()
    for confirm in confirms:
        with suppress(rabbitry.ConnectionClosed, rabbitry.ChannelClosed, CancelledError):
            confirm.result(90)
    with pytest.raises(rabbitry.ConnectionClosed):
        channel.send(b"x", routing_key="nowhere")


def test_a_child_forked_during_a_watchdog_check_can_connect(embedded_url: str) -> None:
    with loop_watchdog._lock:
        child = os.fork()
        if child == 0:
            code = 9
            try:

                async def own() -> None:
                    async with asyncio.timeout(90), rabbitry.connect(embedded_url) as connection:
                        await (await connection.channel()).declare_queue(exclusive=True)

                own_thread = threading.Thread(target=lambda: asyncio.run(own()), daemon=True)
                own_thread.start()
                own_thread.join(90)
                code = 9 if own_thread.is_alive() else 7
            finally:
                os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


@pytest.mark.parametrize("milliseconds", range(20, 180, 40))
async def test_a_consumer_restarted_during_a_loss_is_restarted_once(
    no_leaks: None,
    broker_url: str,
    url: BrokerURL,
    proxy: FaultProxy,
    milliseconds: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The loss happens at each step of declaring, checking and consuming again."""
    monkeypatch.setattr(backoff, "AGAIN", Backoff(0.4, 0.02))
    proxy.delay(0.005)
    async with rabbitry.connect(broker_url) as other, rabbitry.connect(url) as connection:
        looking = await other.channel()
        channel = await connection.channel()
        queue = (await channel.declare_queue("comes-back", durable=True)).name
        async with channel.consume(queue, restore=True) as deliveries:
            await looking.delete_queue(queue)
            await asyncio.sleep(milliseconds / 1000)
            await proxy.cut()
            async with asyncio.timeout(90):
                while True:
                    with suppress(rabbitry.PublishReturned):
                        await channel.publish(b"x", routing_key=queue)
                        break
                (await anext(deliveries)).ack()
            await _eventually_consumed_by(looking, queue, 1)
        await looking.delete_queue(queue)


@pytest.mark.parametrize("milliseconds", [0, 250])
async def test_the_first_publish_of_a_channel_can_come_while_it_is_restored(
    no_leaks: None, url: BrokerURL, proxy: FaultProxy, milliseconds: int
) -> None:
    async with rabbitry.connect(url) as connection:
        channel = await connection.channel()
        queue = (await channel.declare_queue(exclusive=True)).name
        proxy.delay(0.1)
        lost = connection._session.link
        await proxy.cut()
        await eventually(lambda: connection._session.link is not lost, "the new link")  # channel.open is on its way
        await asyncio.sleep(milliseconds / 1000)  # or basic.qos is
        publishing = asyncio.create_task(channel.publish(b"x", routing_key=queue))
        await asyncio.sleep(0.02)
        proxy.delay(0)
        async with asyncio.timeout(90):
            await publishing
        assert await channel.purge_queue(queue) == 1
