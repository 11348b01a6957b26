"""Memory is bounded by count and by bytes, and a bound never makes anyone wait forever: on both brokers."""

import asyncio
import threading

import pytest

import rabbitry
from rabbitry.amqp.client import Channel, Connection, RecoveryEvent, _link, _subscription, blocking
from tests.support.waiting import eventually, eventually_blocking

_SIZE = 100_000
_COUNT = 100
_BOUND = 1_000_000
_LOOK = 100_000
_AHEAD = _BOUND + _SIZE + _LOOK + (1 << 18)
"""Bytes that may be read ahead: one message and one check too late, and one read of the socket."""


@pytest.fixture(autouse=True)
def small_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_subscription, "_BUFFER_BYTES", _BOUND)
    monkeypatch.setattr(_link, "LOOK_EVERY", _LOOK)
    monkeypatch.setattr(blocking.consuming, "_INBOX_BYTES", _BOUND)
    monkeypatch.setattr(blocking._outbox, "_UNSENT_BYTES", _BOUND)


def _body(number: int) -> bytes:
    return b"%d " % number + b"x" * _SIZE


async def _full_queue(url: str, name: str = "full") -> str:
    async with rabbitry.connect(url) as connection:
        channel = await connection.channel()
        await channel.declare_queue(name, durable=True)
        for number in range(_COUNT):
            await channel.send(_body(number), routing_key=name)
        await channel.wait_for_confirms()
    return name


def _is_paused(connection: Connection) -> bool:
    assert connection._session.link is not None
    return not connection._session.link.driver.is_reading


def _read(connection: Connection) -> int:
    assert connection._session.link is not None
    return connection._session.link.driver.bytes_received


@pytest.mark.parametrize("prefetch", [0, 1000])
async def test_a_slow_consumer_reads_a_bounded_number_of_bytes_ahead(
    no_leaks: None, broker_url: str, prefetch: int
) -> None:
    queue = await _full_queue(broker_url)
    async with rabbitry.connect(broker_url) as connection:
        channel = await connection.channel(prefetch=prefetch)
        async with channel.consume(queue) as deliveries:
            await eventually(lambda: _is_paused(connection), "a full buffer")
            assert _read(connection) < _AHEAD
            for number in range(_COUNT):
                delivery = await anext(deliveries)
                assert delivery.body == _body(number)
                delivery.ack()
                assert _read(connection) < _AHEAD + (number + 1) * (_SIZE + 200)
        assert (await channel.declare_queue(queue, passive=True)).message_count == 0


async def test_a_full_buffer_does_not_miss_heartbeats(broker_url: str) -> None:
    queue = await _full_queue(broker_url)
    events: list[RecoveryEvent] = []
    async with rabbitry.connect(f"{broker_url}?heartbeat=2", on_recovery=events.append) as connection:
        channel = await connection.channel(prefetch=0)
        async with channel.consume(queue) as deliveries:
            await eventually(lambda: _is_paused(connection), "a full buffer")
            await asyncio.sleep(6)  # both sides close after two heartbeats
            for number in range(_COUNT):
                delivery = await anext(deliveries)
                assert delivery.body == _body(number)
                delivery.ack()
    assert not events


async def _is_answered(channel: Channel, queue: str, what: str) -> None:
    async with asyncio.timeout(90):
        if what == "publish":
            await channel.publish(b"answer", routing_key="answers")
        elif what == "declare":
            await channel.declare_queue(queue, passive=True)
        else:
            await channel.close()


@pytest.mark.parametrize("what", ["publish", "declare", "close"])
async def test_requests_are_answered_while_a_buffer_is_full(no_leaks: None, broker_url: str, what: str) -> None:
    queue = await _full_queue(broker_url)
    async with rabbitry.connect(broker_url) as connection:
        channel = await connection.channel(prefetch=0)
        other = await connection.channel()
        await other.declare_queue("answers", durable=True)
        async with channel.consume(queue):
            await eventually(lambda: _is_paused(connection), "a full buffer")
            await _is_answered(other, queue, what)


async def test_a_consumer_can_publish_for_each_message_with_a_full_buffer(no_leaks: None, broker_url: str) -> None:
    queue = await _full_queue(broker_url)
    async with rabbitry.connect(broker_url, publish_timeout=60) as connection:
        channel = await connection.channel(prefetch=0)
        await channel.declare_queue("answers", durable=True)
        async with channel.consume(queue) as deliveries:
            await eventually(lambda: _is_paused(connection), "a full buffer")
            for _ in range(_COUNT):
                delivery = await anext(deliveries)
                await channel.publish(delivery.body[:10], routing_key="answers")
                delivery.ack()
        assert (await channel.declare_queue("answers", passive=True)).message_count == _COUNT


async def test_closing_a_channel_with_a_full_buffer_releases_the_others(no_leaks: None, broker_url: str) -> None:
    queue = await _full_queue(broker_url)
    async with rabbitry.connect(broker_url) as connection:
        channel = await connection.channel(prefetch=0)
        other = await connection.channel(prefetch=1)
        async with channel.consume(queue):
            await eventually(lambda: _is_paused(connection), "a full buffer")
            async with asyncio.timeout(90):
                await channel.close()
                assert not _is_paused(connection)
                async with other.consume(queue) as deliveries:
                    assert (await anext(deliveries)).redelivered


async def test_a_connection_closes_at_once_with_a_full_buffer(no_leaks: None, broker_url: str) -> None:
    queue = await _full_queue(broker_url)
    connection = await rabbitry.connect(broker_url)
    channel = await connection.channel(prefetch=0)
    consumer = channel.consume(queue)
    await consumer.start()
    await eventually(lambda: _is_paused(connection), "a full buffer")
    link = connection._session.link
    assert link is not None
    await connection.close(timeout=60)  # it would abort then
    assert "closed by this program" in str(connection.close_reason)
    assert link.driver.bytes_received > _BOUND


def test_the_blocking_consumer_reads_a_bounded_number_of_bytes_ahead(broker_url: str) -> None:
    queue = asyncio.run(_full_queue(broker_url))
    with rabbitry.connect_blocking(broker_url) as connection:
        channel = connection.channel(prefetch=0)
        inner = connection._connection
        with channel.consume(queue) as deliveries:
            eventually_blocking(lambda: _is_paused(inner), "a full buffer")
            assert _read(inner) < 2 * _AHEAD  # here, and in the client under it
            for number in range(_COUNT):
                delivery = next(deliveries)
                assert delivery.body == _body(number)
                delivery.ack()


def test_unsent_messages_are_bounded_in_bytes(embedded_url: str) -> None:
    with rabbitry.connect_blocking(embedded_url) as connection:
        channel = connection.channel()
        queue = channel.declare_queue("q", durable=True).name
        goes_on = threading.Event()

        def stand_still() -> None:
            goes_on.wait(90)

        channel._io.post(stand_still)  # the thread that sends
        sent: list[int] = []

        def send() -> None:
            for number in range(_COUNT):
                channel.send(_body(number), routing_key=queue)
                sent.append(number)

        sending = threading.Thread(target=send)
        sending.start()
        eventually_blocking(lambda: len(sent) == _BOUND // (_SIZE + 2), "no more room")
        assert sending.is_alive()
        goes_on.set()
        sending.join(90)
        channel.wait_for_confirms()
        assert channel.declare_queue(queue, passive=True).message_count == _COUNT
