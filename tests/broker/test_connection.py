"""Clients that break the protocol, hang, or read nothing: the correct close code, and the broker stays up."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import rabbitry
from rabbitry.amqp.protocol import hot
from rabbitry.amqp.protocol.connection import Connection, Role
from rabbitry.amqp.protocol.constants import PROTOCOL_HEADER
from rabbitry.amqp.protocol.encoding import decode_method, encode_method
from rabbitry.amqp.protocol.events import METHOD
from rabbitry.amqp.protocol.methods import (
    BasicConsume,
    BasicGet,
    BasicNack,
    BasicQos,
    ChannelClose,
    ChannelCloseOk,
    ChannelOpen,
    ChannelOpenOk,
    ConnectionClose,
    ConnectionCloseOk,
    ConnectionOpen,
    ConnectionStartOk,
    ConnectionTuneOk,
    Method,
    QueueBind,
    QueueDeclare,
    QueueDeclareOk,
)
from rabbitry.broker import Broker, BrokerConfig
from tests.support.waiting import eventually


@pytest.fixture
async def broker() -> AsyncIterator[Broker]:
    async with Broker(BrokerConfig(port=0)) as broker:
        yield broker


def _frame(kind: int, channel: int, payload: bytes, end: bytes = b"\xce") -> bytes:
    return bytes((kind,)) + channel.to_bytes(2, "big") + len(payload).to_bytes(4, "big") + payload + end


class _Raw:
    """A client that sends methods by its own core, or plain bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.core = Connection(Role.CLIENT, frame_max=131072, channel_max=2047, max_body_size=1 << 27)

    @classmethod
    async def connect(cls, broker: Broker) -> "_Raw":
        return cls(*await asyncio.open_connection("127.0.0.1", broker.port))

    async def log_in(self) -> None:
        self.writer.write(self.core.send_header())
        await self.receive()
        self.send(0, ConnectionStartOk(response=b"\0guest\0guest"))
        await self.receive()
        self.send(0, ConnectionTuneOk(2047, 131072, 0))
        self.core.tuned(131072, 2047)
        self.send(0, ConnectionOpen("/"))
        await self.receive()
        self.send(1, ChannelOpen())
        await self.receive()

    def send(self, channel: int, method: Method) -> None:
        self.writer.write(self.core.send_method(channel, method))

    async def receive(self) -> list[Method]:
        """The methods of the next chunk; none at the end."""
        async with asyncio.timeout(90):
            data = await self.reader.read(1 << 16)
        methods: list[Method] = []
        while events := self.core.receive(data):
            methods += [event[2] for event in events if event[0] == METHOD]
            data = b""
        return methods

    async def receive_raw(self, count: int) -> list[type[Method]]:
        """The kinds of the next methods, whatever our own core makes of them; contents are not expected."""
        kinds: list[type[Method]] = []
        async with asyncio.timeout(90):
            for _ in range(count):
                head = await self.reader.readexactly(7)
                payload = (await self.reader.readexactly(int.from_bytes(head[3:], "big") + 1))[:-1]
                kinds.append(type(decode_method(payload)))
        return kinds

    async def until_closed(self) -> int:
        """Read to the connection.close, and return its code; 0 if the socket just closes."""
        while methods := await self.receive():
            for method in methods:
                if isinstance(method, ConnectionClose):
                    return method.reply_code
        return 0

    async def __aenter__(self) -> "_Raw":
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


_QOS = b"\x00\x3c\x00\x0a" + b"\x00" * 7
_PUBLISH = b"\x00\x3c\x00\x28" + b"\x00\x00\x00\x01q\x00"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (_frame(1, 1, _QOS, b"\x00"), 501),
        (_frame(5, 1, _QOS), 501),
        (b"\x01\x00\x01\x7f\xff\xff\xff", 501),
        (_frame(1, 1, _QOS + b"x"), 501),
        (_frame(1, 1, b"\x00\x3c\x00\x3c" + b"\x00" * 11), 503),
        (_frame(1, 2, _QOS), 504),
        (_frame(1, 1, _PUBLISH) + _frame(1, 1, _QOS), 505),
        (_frame(3, 1, b"abc"), 505),
        (_frame(1, 1, b"\x00\x3c\x00\x0a\x00\x00\x00\x01\x00\x00\x00"), 540),
    ],
)
async def test_a_violation_closes_the_connection_and_the_broker_serves_on(
    broker: Broker, data: bytes, code: int, no_leaks: None
) -> None:
    async with await _Raw.connect(broker) as client:
        await client.log_in()
        client.writer.write(data + b"\x00" * 8)
        assert await client.until_closed() == code
    async with rabbitry.connect(broker.url) as connection:
        await connection.channel()
    await eventually(lambda: not broker.connections, "no connection is left")


@pytest.mark.parametrize("header", [b"GET / HTTP/1.1\r\n\r\n", b"AMQP\x00\x00\x09\x02"])
async def test_another_protocol_gets_the_brokers_protocol_header(broker: Broker, header: bytes) -> None:
    async with await _Raw.connect(broker) as client:
        client.writer.write(header)
        assert await client.reader.read() == PROTOCOL_HEADER


async def test_refusals_are_logged_as_valid_text(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "rabbitry.broker")
    async with rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue()
        with pytest.raises(rabbitry.ChannelClosed):  # what is no UTF-8 travels as lone surrogates
            await channel.bind_queue(queue.name, "amq.headers", arguments={"x-match": "\udcff"})
    logged = [record.getMessage() for record in caplog.records if "x-match" in record.getMessage()]
    assert logged
    assert all(line.encode() for line in logged)


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=4), st.booleans())
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
async def test_garbage_never_stops_the_broker(broker: Broker, chunks: list[bytes], logged_in: bool) -> None:
    async with await _Raw.connect(broker) as client:
        if logged_in:
            await client.log_in()
        for chunk in chunks:
            client.writer.write(chunk)
            await asyncio.sleep(0)
    await eventually(lambda: not broker.connections, "no connection is left")
    async with rabbitry.connect(broker.url) as connection:
        assert connection.is_open


async def test_a_client_that_reads_nothing_holds_a_bounded_part_of_the_queue(broker: Broker) -> None:
    body, count = b"x" * 100_000, 300
    async with await _Raw.connect(broker) as slow, rabbitry.connect(broker.url) as publisher:
        await slow.log_in()
        slow.send(1, QueueDeclare("q"))
        slow.send(1, BasicQos(0, 0))
        slow.send(1, BasicConsume("q", "slow", no_ack=True))
        queues = broker.vhosts["/"].queues
        await eventually(lambda: "q" in queues and queues["q"].turns, "the consumer")
        channel = await publisher.channel()
        for _ in range(count):
            await channel.send(body, routing_key="q", mandatory=False)
        await channel.wait_for_confirms()
        queue = queues["q"]
        assert len(queue) > count // 2
        received = 0
        while received < count * len(body):
            received += len(await slow.reader.read(1 << 20))
        await eventually(lambda: len(queue) == 0, "everything was delivered")


async def test_a_lost_clients_deliveries_are_requeued(broker: Broker) -> None:
    async with rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        await channel.declare_queue("q")
        await channel.publish(b"held", routing_key="q")
        async with await _Raw.connect(broker) as client:
            await client.log_in()
            client.send(1, QueueDeclare("exclusive", exclusive=True))
            client.send(1, BasicConsume("q", "t"))
            await eventually(lambda: broker.vhosts["/"].queues["q"].unsettled == 1, "the delivery")
        await eventually(lambda: "exclusive" not in broker.vhosts["/"].queues, "its queue is gone")
        await eventually(lambda: broker.vhosts["/"].queues["q"].ready, "the message is back")
        delivery = await channel.get("q")
        assert delivery is not None
        assert delivery.redelivered


async def test_closing_the_broker_sends_the_reason_to_clients() -> None:
    async with Broker(BrokerConfig(port=0)) as broker:
        connection = await rabbitry.connect(broker.url, recover=False)
    await connection.wait_closed()
    assert connection.close_reason is not None
    assert connection.close_reason.reply_code == 320


async def test_a_silent_client_is_disconnected() -> None:
    async with Broker(BrokerConfig(port=0, heartbeat=1)) as broker, await _Raw.connect(broker) as client:
        client.writer.write(client.core.send_header())
        await client.receive()
        client.send(0, ConnectionStartOk(response=b"\0guest\0guest"))
        await client.receive()
        client.send(0, ConnectionTuneOk(2047, 131072, 1))
        client.core.tuned(131072, 2047)
        client.send(0, ConnectionOpen("/"))
        heartbeats = b""
        with contextlib.suppress(ConnectionResetError):
            while chunk := await client.reader.read(1 << 16):
                heartbeats += chunk
        assert b"\x08\x00\x00\x00\x00\x00\x00\xce" in heartbeats
    await eventually(lambda: not broker.connections, "it is gone")


async def test_three_consumers_with_equal_prefetch_get_equal_shares(broker: Broker) -> None:
    async with rabbitry.connect(broker.url) as connection:
        channels = [await connection.channel(prefetch=10) for _ in range(3)]
        await channels[0].declare_queue("q")
        shares = [0, 0, 0]

        async def consume(number: int) -> None:
            async with channels[number].consume("q") as deliveries:
                async for delivery in deliveries:
                    shares[number] += 1
                    delivery.ack()

        tasks = [asyncio.create_task(consume(number)) for number in range(3)]
        await eventually(lambda: len(broker.vhosts["/"].queues["q"].turns) == 3, "three consumers")
        for _ in range(300):
            await channels[0].send(b"x", routing_key="q")
        await eventually(lambda: sum(shares) == 300, "all messages")
        assert max(shares) - min(shares) <= 10
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_requests_closed_in_the_same_chunk_are_done_but_not_answered(broker: Broker) -> None:
    async with await _Raw.connect(broker) as client:
        await client.log_in()
        wanted: list[Method] = [
            ChannelOpen(),
            QueueDeclare(queue="made"),
            BasicConsume(queue="made"),
            BasicQos(prefetch_count=1),
        ]
        client.writer.write(b"".join(_method(2, method) for method in (*wanted, ChannelClose(200, "", 0, 0))))
        client.core.send_method(2, ChannelOpen())
        client.core.send_method(2, ChannelClose(200, "", 0, 0))
        answers: list[Method] = []
        while ChannelCloseOk() not in answers:
            answers += await client.receive()
        assert answers == [ChannelCloseOk()]
        client.send(1, QueueDeclare(queue="made", passive=True))
        (found,) = await client.receive()
        assert isinstance(found, QueueDeclareOk)
        assert (found.queue, found.consumer_count) == ("made", 0)


async def test_a_crossing_close_and_the_numbers_next_channel_may_come_in_one_chunk(broker: Broker) -> None:
    async with await _Raw.connect(broker) as client:
        await client.log_in()
        client.send(1, QueueDeclare(queue="missing", passive=True))
        (refusal,) = await client.receive()
        assert isinstance(refusal, ChannelClose)
        again: list[Method] = [ChannelClose(200, "", 0, 0), ChannelCloseOk(), ChannelOpen(), QueueDeclare(queue="q")]
        client.writer.write(b"".join(_method(1, method) for method in again))
        assert await client.receive_raw(3) == [ChannelCloseOk, ChannelOpenOk, QueueDeclareOk]


async def test_an_operators_close_reaches_a_client_that_waits_for_a_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting: list[Callable[[], None]] = []
    async with Broker(BrokerConfig(port=0, data=tmp_path)) as broker, await _Raw.connect(broker) as client:
        await client.log_in()
        (connected,) = broker.connections
        monkeypatch.setattr(broker.journal, "after_commit", waiting.append)
        client.send(1, QueueDeclare(queue="durable", durable=True))
        await eventually(lambda: waiting, "a client that waits for a commit")
        monkeypatch.undo()
        connected.hang_up(320, "CONNECTION_FORCED - an operator closed it")
        client.writer.write(_method(0, ConnectionClose(200, "")) + _method(0, ConnectionCloseOk()))
        assert await client.receive_raw(2) == [ConnectionClose, ConnectionCloseOk]
        client.writer.close()
        await connected.closed
        waiting.pop()()  # the commit, late


def _method(channel: int, method: Method) -> bytes:
    return _frame(1, channel, encode_method(method))


async def test_a_client_that_does_not_read_answers_is_not_read(broker: Broker) -> None:
    body, wanted = bytes(1 << 20), 64
    async with await _Raw.connect(broker) as client:
        await client.log_in()
        async with rabbitry.connect(broker.url) as connection, await connection.channel() as channel:
            await channel.declare_queue("q")
            await channel.publish(body, routing_key="q")
        get, back = _method(1, BasicGet("q")), _method(1, BasicNack(0, True, True))
        client.writer.write((get + back) * wanted)
        (connected,) = await eventually(
            lambda: [known for known in broker.connections if known.driver.unsent > 32 << 20], "a flooded client"
        )
        missing = wanted * len(body)
        while missing > 0:
            async with asyncio.timeout(90):
                missing -= len(await client.reader.read(1 << 20))
            assert connected.driver.unsent < (32 << 20) + 2 * len(body)


async def test_publishers_to_a_thousand_queues_leave_turns_for_others(broker: Broker) -> None:
    payload = hot.publish_payload(b"\x0aamq.fanout", b"\0", mandatory=False)
    publish = hot.encode_method_frame(1, payload) + hot.encode_content(1, hot.encode_header(1, 0, b""), b"x", 4096)
    async with contextlib.AsyncExitStack() as stack:
        asking, *publishers = [await stack.enter_async_context(await _Raw.connect(broker)) for _ in range(61)]
        for client in (asking, *publishers):
            await client.log_in()
        for number in range(1000):
            asking.send(1, QueueDeclare(queue=f"q{number}"))
            asking.send(1, QueueBind(queue=f"q{number}", exchange="amq.fanout"))
        answers = 0
        while answers < 2000:
            answers += len(await asking.receive())
        queue = broker.vhosts["/"].queues["q0"]
        for client in publishers:
            client.writer.write(6 * publish)
        await eventually(lambda: len(queue) > 0, "the first of them")
        before = len(queue)
        asking.send(1, QueueDeclare(queue="q0", passive=True))
        await asking.receive()
        assert len(queue) - before < 3 * len(publishers)
        await eventually(lambda: len(queue) == 360, "all of them")
