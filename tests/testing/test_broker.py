"""The broker of a test's own: alone, empty, quick, and gone without a trace."""

import asyncio
import contextlib
import socket
import threading

import httpx
import pika
import pika.exceptions
import pytest

import rabbitry
from rabbitry.amqp.protocol.events import Event
from rabbitry.broker._connection import ClientConnection
from rabbitry.testing import RunningBroker


def _declare_passively(url: str, queue: str) -> None:
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        connection.channel().queue_declare(queue, passive=True)


def _is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_two_brokers_at_a_time_share_nothing() -> None:
    with RunningBroker() as one, RunningBroker() as other:
        assert one.port != other.port
        assert one.url == f"amqp://guest:guest@{one.host}:{one.port}/"
        with pika.BlockingConnection(pika.URLParameters(one.url)) as connection:
            connection.channel().queue_declare("here")
        _declare_passively(one.url, "here")
        with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="404"):
            _declare_passively(other.url, "here")


async def test_a_broker_leaves_nothing_behind(no_leaks: None) -> None:
    with RunningBroker() as broker:
        assert _is_open(broker.port)
        async with rabbitry.connect(broker.url) as connection:
            await connection.channel()
    assert not _is_open(broker.port)


async def test_the_loop_of_the_test_is_not_touched() -> None:
    loop = asyncio.get_running_loop()
    tasks = asyncio.all_tasks()
    with RunningBroker():
        assert asyncio.get_running_loop() is loop
        assert asyncio.all_tasks() <= tasks  # one of the test's own may end meanwhile


def test_a_test_without_a_loop_stays_without_one() -> None:
    with RunningBroker(), pytest.raises(RuntimeError, match="no running event loop"):
        asyncio.get_running_loop()


def test_an_abandoned_client_does_not_delay_the_end() -> None:
    with contextlib.ExitStack() as after:
        with RunningBroker() as broker:
            # pika reads nothing while nobody calls it, so it never answers the broker's close.
            connection = pika.BlockingConnection(pika.URLParameters(broker.url))
            after.callback(lambda: connection.close() if connection.is_open else None)
        assert not _is_open(broker.port)
        with pytest.raises(pika.exceptions.AMQPConnectionError):
            connection.channel()


def test_an_error_in_the_brokers_loop_fails_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(connection: ClientConnection, events: list[Event]) -> None:
        raise LookupError("a fault of the broker")

    monkeypatch.setattr(ClientConnection, "on_events", fails)
    broker = RunningBroker()
    broker.__enter__()
    with socket.create_connection((broker.host, broker.port)) as client:
        client.sendall(b"AMQP\x00\x00\x09\x01")
        assert client.recv(1) == b""
    with pytest.raises(BaseExceptionGroup) as raised:
        broker.__exit__(None, None, None)
    assert raised.group_contains(LookupError, match="a fault of the broker")


def test_a_hundred_one_after_the_other_leave_no_thread() -> None:
    before = set(threading.enumerate())
    for _ in range(100):
        with RunningBroker():
            pass
    assert [thread for thread in set(threading.enumerate()) - before if thread.name == "rabbitry-broker"] == []


def test_the_management_api_is_available_on_request() -> None:
    with RunningBroker() as broker:
        url = broker.management_url
        assert broker.management_url == url
        found = httpx.get(f"{url}api/overview", auth=("guest", "guest"), timeout=90).json()
        assert found["product_name"] == "RabbitMQ"
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)


def test_the_memory_of_the_tests_raises_no_alarm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rabbitry.broker._alarms.memory_in_use", lambda: 1 << 60)
    monkeypatch.setattr("rabbitry.broker._alarms.total_memory", lambda: 1)
    with RunningBroker() as broker, rabbitry.connect_blocking(broker.url) as connection:
        channel = connection.channel()
        channel.declare_queue("tasks")
        channel.publish(b"x", routing_key="tasks", timeout=90)
