"""Leaving a block with failures that nobody retrieved: all are raised or logged, and none printed one by one."""

import asyncio
import concurrent.futures
import gc
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import pytest

import rabbitry
from rabbitry.amqp.client import Connection, _receipts, connect, parse_url
from rabbitry.amqp.client._receipts import Failures, Receipt
from rabbitry.amqp.client.blocking import BlockingChannel, BlockingConnection
from rabbitry.exceptions import ConnectionClosed, PublishReturned, PublishTimeout, UsageError
from rabbitry.runtime.io_thread import IOThread
from tests.support import logs
from tests.support.proxy import FaultProxy, Way
from tests.support.scripted import ScriptedBroker
from tests.support.waiting import eventually, eventually_blocking

_MANY = 2000
_T = TypeVar("_T")


@pytest.fixture(autouse=True)
def collected(request: pytest.FixtureRequest) -> None:
    """Collect the garbage of other tests, so that its log records do not appear in this test's log."""
    if "caplog" in request.fixturenames:
        gc.collect()
        request.getfixturevalue("caplog").clear()


def _of_asyncio(caplog: pytest.LogCaptureFixture) -> list[str]:
    gc.collect()
    return [record.getMessage() for record in caplog.records if record.name == "asyncio" and record.levelno > 30]


async def _count(url: str, queue: str) -> int:
    async with rabbitry.connect(url) as connection, await connection.channel() as channel:
        count = (await channel.declare_queue(queue, passive=True)).message_count
        await channel.delete_queue(queue)
        return count


# -- without an error ----------------------------------------------------------------------------------


async def test_leaving_a_connection_waits_for_all_confirms(broker_url: str, no_leaks: None) -> None:
    async with rabbitry.connect(broker_url) as connection:
        channel = await connection.channel()
        await channel.declare_queue("all", durable=True)
        for _ in range(_MANY):
            await channel.send(b"x" * 100, routing_key="all")
    assert await _count(broker_url, "all") == _MANY


async def test_leaving_a_channel_waits_for_all_confirms(broker_url: str) -> None:
    async with rabbitry.connect(broker_url) as connection:
        async with await connection.channel() as channel:
            await channel.declare_queue("all", durable=True)
            for _ in range(_MANY):
                await channel.send(b"x" * 100, routing_key="all")
        assert not channel.is_open
        assert await _count(broker_url, "all") == _MANY


@pytest.mark.parametrize("block", ["connection", "channel"])
async def test_leaving_raises_failures_as_one_group(
    broker_url: str, block: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with rabbitry.connect(broker_url) as connection:
        with pytest.raises(ExceptionGroup, match="3 messages were not confirmed") as caught:  # noqa: PT012 - leaving the block raises
            async with connection if block == "connection" else await connection.channel() as entered:
                channel = await entered.channel() if isinstance(entered, Connection) else entered
                queue = (await channel.declare_queue(exclusive=True)).name
                for key in (queue, "nowhere", "nowhere", queue, "nowhere else"):
                    await channel.send(b"x", routing_key=key)
        assert [type(error) for error in caught.value.exceptions] == [PublishReturned] * 3
    assert not _of_asyncio(caplog)


async def test_failures_beyond_the_limit_are_counted(broker_url: str) -> None:
    async with rabbitry.connect(broker_url) as connection:
        with pytest.raises(ExceptionGroup, match="3000 messages were not confirmed; 1024 of their errors were kept"):  # noqa: PT012 - leaving the block raises
            async with await connection.channel() as channel:
                for _ in range(3000):
                    await channel.send(b"x", routing_key="nowhere")
        channel = await connection.channel()
        lost = [await channel.send(b"x", routing_key="nowhere") for _ in range(10)]
        seen = [await channel.send(b"x", routing_key="nowhere") for _ in range(1024)]
        await asyncio.gather(*seen, return_exceptions=True)
        assert all(future.done() for future in lost)
        with pytest.raises(ExceptionGroup, match="10 messages were not confirmed; 1 of their errors was kept"):
            await connection.__aexit__(None, None, None)


async def test_retrieved_failures_are_not_raised_again(broker_url: str) -> None:
    async with rabbitry.connect(broker_url) as connection:
        async with await connection.channel() as channel:
            awaited, gathered, asked = [await channel.send(b"x", routing_key="nowhere") for _ in range(3)]
            with pytest.raises(PublishReturned):
                await awaited
            await asyncio.gather(gathered, return_exceptions=True)
            asked.exception()
            with pytest.raises(PublishReturned):
                await channel.publish(b"x", routing_key="nowhere")
            await channel.send(b"x", routing_key="nowhere")
            with pytest.raises(ExceptionGroup) as caught:
                await channel.wait_for_confirms()
            assert len(caught.value.exceptions) == 4  # here all that failed, as documented
        await channel.open()
        await channel.send(b"x", routing_key="nowhere")
        await eventually(lambda: not channel._core.awaits_answer, "the return, and its confirm")
        await channel.close()
        with pytest.raises(ExceptionGroup) as caught:
            await connection.__aexit__(None, None, None)
        assert len(caught.value.exceptions) == 1


async def test_leaving_waits_no_longer_than_the_messages_own_deadlines() -> None:
    async with ScriptedBroker() as broker:
        with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012 - leaving the block raises
            async with rabbitry.connect(broker.url, publish_timeout=0.2) as connection:
                channel = await connection.channel()
                await channel.send(b"never confirmed", routing_key="q")
        assert [type(error) for error in caught.value.exceptions] == [PublishTimeout]


async def test_a_connection_lost_in_the_block_fails_its_messages_as_a_group() -> None:
    async with ScriptedBroker() as broker:
        with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012 - leaving the block raises
            async with rabbitry.connect(broker.url, recover=False) as connection:
                channel = await connection.channel()
                for _ in range(3):
                    await channel.send(b"x", routing_key="q")
                broker.links[0].driver.abort()
                await connection.wait_closed()
        assert [type(error) for error in caught.value.exceptions] == [ConnectionClosed] * 3


# -- with an error, or not at all ----------------------------------------------------------------------


@pytest.mark.parametrize("way", [None, Way.TO_CLIENT])
async def test_leaving_with_an_error_is_quick_and_logs_one_count(
    broker_url: str, no_leaks: None, caplog: pytest.LogCaptureFixture, way: Way | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rabbitry.amqp.client._channel.LEAVE_TIMEOUT", 0.2)
    monkeypatch.setattr(Connection.close, "__kwdefaults__", {"timeout": 0.2})
    async with FaultProxy(parse_url(broker_url).hosts[0][1]) as proxy:
        url = broker_url.replace(f":{parse_url(broker_url).hosts[0][1]}/", f":{proxy.port}/")
        with pytest.raises(KeyError, match="the program's own"):  # noqa: PT012 - leaving the block raises
            async with rabbitry.connect(url) as connection, await connection.channel() as channel:
                queue = (await channel.declare_queue(exclusive=True)).name
                if way is not None:
                    proxy.pause(way)
                for _ in range(_MANY):
                    await channel.send(b"x", routing_key=queue)
                raise KeyError("the program's own")
        if way is not None:
            told = [record.getMessage() for record in caplog.records if "not confirmed" in record.getMessage()]
            assert len(told) == 1
            assert f"{_MANY} messages were not confirmed" in told[0]
    del channel
    assert not _of_asyncio(caplog)


async def test_nested_blocks_raise_their_error_with_a_silent_broker(
    embedded_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("_channel", "consuming"):
        monkeypatch.setattr(f"rabbitry.amqp.client.{module}.LEAVE_TIMEOUT", 0.1)
    monkeypatch.setattr(Connection.close, "__kwdefaults__", {"timeout": 0.1})
    async with FaultProxy(parse_url(embedded_url).hosts[0][1]) as proxy:
        with pytest.raises(KeyError, match="the program's own"):  # noqa: PT012 - leaving the block raises
            async with rabbitry.connect(f"amqp://127.0.0.1:{proxy.port}/") as connection:
                async with await connection.channel() as channel:
                    queue = (await channel.declare_queue(exclusive=True)).name
                    async with channel.consume(queue):
                        proxy.swallow()
                        raise KeyError("the program's own")


def test_a_script_may_close_the_connection_within_its_blocks(embedded_url: str) -> None:
    with rabbitry.connect_blocking(embedded_url) as connection, connection.channel() as channel:
        queue = channel.declare_queue(exclusive=True).name
        with channel.consume(queue):
            connection.close()


async def test_a_cancelled_task_leaves_the_block_quickly(caplog: pytest.LogCaptureFixture) -> None:
    async with ScriptedBroker() as broker:
        began = asyncio.Event()

        async def send_for_ever() -> None:
            async with rabbitry.connect(broker.url) as connection:
                channel = await connection.channel()
                while True:
                    await channel.send(b"x", routing_key="q")
                    began.set()

        task = asyncio.create_task(send_for_ever())
        await began.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 90)
        assert not _of_asyncio(caplog)


async def test_cancelling_the_wait_of_a_block_that_is_left_closes_it(no_leaks: None) -> None:
    async with ScriptedBroker() as broker:
        sent = asyncio.Event()

        async def send() -> None:
            async with rabbitry.connect(broker.url) as connection:
                await (await connection.channel()).send(b"never confirmed", routing_key="q")
                sent.set()

        task = asyncio.create_task(send())
        await sent.wait()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await eventually(lambda: broker.links[0].lost, "the end of the connection")


async def test_unretrieved_failures_are_logged_while_the_program_runs(
    embedded_url: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_receipts, "_PATIENCE", 1.0)
    connection = await rabbitry.connect(embedded_url)
    channel = await connection.channel()
    seen = await channel.send(b"x", routing_key="nowhere")
    with pytest.raises(PublishReturned):
        await seen
    for _ in range(50):
        await channel.send(b"x", routing_key="nowhere")
    await eventually(lambda: "not confirmed" in caplog.text, "the line")
    await connection.close()
    (line,) = [record.getMessage() for record in caplog.records if "not confirmed" in record.getMessage()]
    assert "50 messages were not confirmed; the first: returned: 312 NO_ROUTE" in line
    assert not _of_asyncio(caplog)


class _Owner:
    """Stands for a channel."""


async def test_a_failure_is_logged_only_after_its_patience(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a steady stream of failures, each retrieved one iteration later, the log line once named the last one."""
    loop = asyncio.get_running_loop()
    failures = Failures(loop, "a connection")
    receipt = Receipt(loop=loop)
    receipt._fail(PublishTimeout("late"))
    failures.add(_Owner(), receipt)
    failures._look()  # the timer of an earlier one
    assert not logs.records(caplog)
    monkeypatch.setattr(_receipts, "_PATIENCE", 0.0)
    failures._look()
    assert "a message was not confirmed; the first: late" in caplog.text


async def test_retrieved_failures_are_not_counted_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    loop = asyncio.get_running_loop()
    failures, channel = Failures(loop, "a connection"), _Owner()
    for _ in range(5000):
        receipt = Receipt(loop=loop)
        receipt._fail(PublishTimeout("late"))
        failures.add(channel, receipt)
        receipt.exception()
    unseen = Receipt(loop=loop)
    unseen._fail(PublishTimeout("nobody looked"))
    failures.add(channel, unseen)
    failures.tell()
    assert "a message was not confirmed; the first: nobody looked" in caplog.text


async def test_kept_failures_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    loop = asyncio.get_running_loop()
    failures = Failures(loop, "a connection")
    channel, another = _Owner(), _Owner()
    for _ in range(5000):
        receipt = Receipt(loop=loop)
        receipt._fail(PublishTimeout("late"))
        failures.add(channel, receipt)
    failures.tell()
    assert "5000 messages were not confirmed" in caplog.text
    assert failures.take(another) is None
    group = failures.take(channel)
    assert group is not None
    assert len(group.exceptions) == 1024
    assert failures.take(channel) is None


async def test_cancelled_waiters_print_nothing(embedded_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """A request and a publish whose task is cancelled in the loop iteration that brings their failure."""
    async with ScriptedBroker() as broker:
        connection = await rabbitry.connect(broker.url, recover=False)
        channel = await connection.channel()
        broker.links[0].agrees = False

        async def start() -> None:
            await channel.consume("q").start()

        works: list[Callable[[], Awaitable[object]]] = [start, lambda: channel.publish(b"x", routing_key="q")]
        tasks = [asyncio.ensure_future(work()) for work in works]

        def give_up(_: asyncio.Future[None]) -> None:
            for task in tasks:
                task.cancel()

        await eventually(lambda: broker.links[0].published and broker.links[0].consumed, "both on their way")
        closed = asyncio.ensure_future(connection.wait_closed())
        closed.add_done_callback(give_up)
        connection._session.end(ConnectionClosed(0, "gone"))
        await asyncio.wait(tasks)
        await connection.close()
        tasks.clear()
    assert not _of_asyncio(caplog)


# -- scripts -------------------------------------------------------------------------------------------


def test_leaving_a_blocking_block_waits_for_all_confirms(broker_url: str) -> None:
    with rabbitry.connect_blocking(broker_url) as connection:
        channel = connection.channel()
        channel.declare_queue("all", durable=True)
        for _ in range(20_000):
            channel.send(b"x" * 100, routing_key="all")
        del channel
    with rabbitry.connect_blocking(broker_url) as connection, connection.channel() as channel:
        assert channel.declare_queue("all", passive=True).message_count == 20_000
        channel.delete_queue("all")


@pytest.mark.parametrize("block", ["connection", "channel"])
def test_leaving_a_blocking_block_raises_unretrieved_failures(broker_url: str, block: str) -> None:
    with rabbitry.connect_blocking(broker_url) as connection:
        with pytest.raises(ExceptionGroup, match="2 messages were not confirmed") as caught:  # noqa: PT012 - leaving the block raises
            with connection if block == "connection" else connection.channel() as entered:
                channel = entered.channel() if hasattr(entered, "channel") else entered
                for _ in range(2):
                    channel.send(b"x", routing_key="nowhere")
                with pytest.raises(PublishReturned):
                    channel.send(b"x", routing_key="nowhere").result()
                with pytest.raises(UsageError):
                    channel.send(b"x", routing_key="k" * 300).result()
        assert [type(error) for error in caught.value.exceptions] == [PublishReturned] * 2


def test_waiting_for_confirms_in_scripts_raises_send_failures(embedded_url: str) -> None:
    with rabbitry.connect_blocking(embedded_url) as connection, connection.channel() as channel:
        channel.send(b"x", routing_key="k" * 300)
        channel.send(b"x", routing_key="nowhere")
        with pytest.raises(ExceptionGroup) as caught:
            channel.wait_for_confirms()
        assert [type(error) for error in caught.value.exceptions] == [UsageError, PublishReturned]


class _InterruptedThread(IOThread):
    """An I/O thread that calls a function of the test `turns` iterations after the next `run` began."""

    interrupt: Callable[[], None] | None = None
    turns = 0

    def run(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        interrupt, self.interrupt = self.interrupt, None
        return super().run(coroutine if interrupt is None else self._interrupted(coroutine, interrupt))

    async def _interrupted(self, coroutine: Coroutine[Any, Any, _T], interrupt: Callable[[], None]) -> _T:
        task = asyncio.ensure_future(coroutine)
        for _ in range(self.turns):
            await asyncio.sleep(0)
        interrupt()
        return await task


def _wait_for_confirms(connection: BlockingConnection, channel: BlockingChannel) -> None:
    channel.wait_for_confirms()


def _leave_channel(connection: BlockingConnection, channel: BlockingChannel) -> None:
    with channel:
        pass


def _leave_connection(connection: BlockingConnection, channel: BlockingChannel) -> None:
    with connection:
        pass


@pytest.mark.parametrize("turns", range(8))
@pytest.mark.parametrize("wait", [_wait_for_confirms, _leave_channel, _leave_connection])
async def test_scripts_get_a_failure_of_any_loop_iteration(
    wait: Callable[[BlockingConnection, BlockingChannel], None], turns: int
) -> None:
    async def connected(url: str) -> Connection:
        return await connect(url, recover=False)

    def script(url: str) -> None:
        io = _InterruptedThread()
        inner = io.run(connected(url))
        connection = BlockingConnection(inner, io)
        try:
            channel = connection.channel()
            channel.send(b"x", routing_key="q")
            eventually_blocking(lambda: broker.links[0].published, "the message at the broker")
            io.turns, io.interrupt = turns, lambda: inner._session.end(ConnectionClosed(0, "gone"))
            with pytest.raises(ExceptionGroup, match="a message was not confirmed") as caught:
                wait(connection, channel)
        finally:
            connection.close()
        assert [str(error) for error in caught.value.exceptions] == ["gone"]

    async with ScriptedBroker() as broker:
        await asyncio.to_thread(script, broker.url)


def test_leaving_a_blocking_block_with_an_error_logs_one_count(
    embedded_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    futures: list[concurrent.futures.Future[None]] = []
    with pytest.raises(KeyError):  # noqa: PT012 - leaving the block raises
        with rabbitry.connect_blocking(embedded_url) as connection:
            channel = connection.channel()
            queue = channel.declare_queue(exclusive=True).name
            for _ in range(_MANY):
                futures.append(channel.send(b"x", routing_key=queue))
            raise KeyError("the program's own")
    assert all(future.done() for future in futures)
    failed = sum(future.cancelled() or future.exception() is not None for future in futures)
    lines = [record.getMessage() for record in caplog.records if "not confirmed" in record.getMessage()]
    assert len(lines) == (failed > 0)
    assert not failed or f"{failed} message" in lines[0] or "a message" in lines[0]
    assert not _of_asyncio(caplog)


def test_cancelling_a_receipt_stops_nothing(embedded_url: str, caplog: pytest.LogCaptureFixture) -> None:
    with rabbitry.connect_blocking(embedded_url) as connection, connection.channel() as channel:
        queue = channel.declare_queue(exclusive=True).name
        futures = [channel.send(b"x", routing_key=queue) for _ in range(2000)]
        cancelled = sum(future.cancel() for future in futures)
        channel.wait_for_confirms()
        assert all(future.done() for future in futures)
        assert channel.declare_queue(queue, passive=True).message_count == 2000 - cancelled
    assert not _of_asyncio(caplog)


def test_a_dropped_connection_is_closed_with_a_warning(embedded_url: str) -> None:
    before = set(threading.enumerate())

    def threads() -> int:
        return sum(thread.name == "rabbitry-io" for thread in set(threading.enumerate()) - before)

    with rabbitry.connect_blocking(embedded_url) as watching:
        connection = rabbitry.connect_blocking(embedded_url)
        channel = connection.channel()
        queue = channel.declare_queue("exclusive", exclusive=True).name
        del connection
        channel.publish(b"its channel keeps it", routing_key=queue)
        with pytest.warns(ResourceWarning, match="was dropped without close"):  # noqa: PT031 - dropping it warns
            del channel
            gc.collect()
        eventually_blocking(lambda: threads() == 1, "the end of its thread")
        looking = watching.channel()
        looking.declare_queue("exclusive", exclusive=True)  # which another connection had


# -- another event loop --------------------------------------------------------------------------------


async def test_another_event_loop_is_refused_and_sends_nothing(broker_url: str) -> None:
    async with rabbitry.connect(broker_url) as connection:
        channel = await connection.channel()
        queue = (await channel.declare_queue(exclusive=True)).name
        await channel.publish(b"mine", routing_key=queue)
        delivery = await channel.get(queue)
        assert delivery is not None

        async def settle() -> None:
            delivery.ack()

        async with channel.consume(queue) as consumer:
            uses: list[Callable[[], Awaitable[object]]] = [
                lambda: channel.publish(b"x", routing_key=queue),
                lambda: channel.send(b"x", routing_key=queue),
                lambda: channel.declare_queue("other"),
                lambda: channel.get(queue),
                lambda: channel.qos(5),
                lambda: channel.consume(queue).start(),
                lambda: channel.wait_for_confirms(),
                lambda: channel.close(),
                lambda: connection.channel(),
                lambda: connection.close(),
                lambda: connection.wait_closed(),
                lambda: consumer.cancel(),
                lambda: anext(consumer),
                settle,
            ]

            def elsewhere() -> None:
                for use in uses:

                    async def run(use: Callable[[], Awaitable[object]] = use) -> None:
                        await use()

                    with pytest.raises(UsageError, match="another event loop"):
                        asyncio.run(run())
                with pytest.raises(UsageError, match="asyncio only"):
                    delivery.ack()

            await asyncio.to_thread(elsewhere)
        delivery.ack()
        assert connection.is_open
        assert (await channel.declare_queue(queue, passive=True)).message_count == 0


async def test_a_cancellation_at_the_end_of_a_close_is_not_lost(broker_url: str) -> None:
    connection = await rabbitry.connect(broker_url)
    closing = asyncio.ensure_future(connection.close())
    assert connection._session.link is not None
    connection._session.link._lost.add_done_callback(lambda _: closing.cancel())
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert connection.close_reason is not None
