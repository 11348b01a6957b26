"""The feed of samples for the page."""

import asyncio

import pytest

import rabbitry
from rabbitry.amqp.client import Channel, Delivery, parse_url
from rabbitry.amqp.client._settlements import Settlements
from rabbitry.apps.monitor import consumer
from rabbitry.apps.monitor.consumer import Connected, Lost, Received, SampleFeed, _Events
from rabbitry.exceptions import ConnectFailed, LoginRefused, NotFound, PreconditionFailed, ResourceLocked
from tests.apps.monitor.wire import through
from tests.support.proxy import FaultProxy
from tests.support.waiting import eventually_awaited


async def test_the_feed_yields_messages_unchanged(broker_url: str, no_leaks: None) -> None:
    async with rabbitry.connect(broker_url) as connection, SampleFeed(broker_url) as feed:
        assert await anext(feed) == Connected()
        channel = await connection.channel()
        for body in (b'{"cpu": 0.5}', b"\xff", b""):
            await channel.publish(body, exchange="system_info", routing_key="pi-1")
            assert await anext(feed) == Received(body, "pi-1")


async def test_its_queue_is_the_contract_s_and_gone_at_the_end(broker_url: str, no_leaks: None) -> None:
    async with rabbitry.connect(broker_url) as connection:
        channel = await connection.channel()
        async with SampleFeed(broker_url) as feed:
            assert await anext(feed) == Connected()
            with pytest.raises(rabbitry.exceptions.ResourceLocked):
                await channel.declare_queue("Consumer", passive=True)
        await channel.open()
        with pytest.raises(NotFound):
            await channel.declare_queue("Consumer", passive=True)


async def test_of_what_a_slow_reader_leaves_on_the_broker_the_oldest_goes(
    broker_url: str, no_leaks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer, "PREFETCH", 20)
    monkeypatch.setattr(consumer, "LONGEST", 10)
    async with rabbitry.connect(broker_url) as connection, SampleFeed(broker_url) as feed:
        assert await anext(feed) == Connected()
        channel = await connection.channel()
        for number in range(100):
            await channel.publish(f"{number}".encode(), exchange="system_info")
        found: list[int] = []
        while 99 not in found:
            event = await anext(feed)
            assert isinstance(event, Received)
            found.append(int(event.body))
    assert found[-10:] == [*range(90, 100)]
    assert len(found) <= 30


async def test_a_second_one_gets_a_queue_of_the_broker_s_naming(
    broker_url: str, no_leaks: None, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        rabbitry.connect(broker_url) as connection,
        SampleFeed(broker_url) as first,
        SampleFeed(broker_url) as second,
    ):
        assert await anext(first) == Connected()
        assert await anext(second) == Connected()
        channel = await connection.channel()
        await channel.publish(b"{}", exchange="system_info")
        assert await anext(first) == await anext(second) == Received(b"{}", "")
    assert len([text for text in caplog.messages if "'Consumer'" in text]) == 1


async def test_the_feed_reports_losses_and_recoveries(broker_url: str, no_leaks: None) -> None:
    async with rabbitry.connect(broker_url) as connection, FaultProxy(parse_url(broker_url).hosts[0][1]) as proxy:
        async with SampleFeed(through(proxy, broker_url)) as feed:
            assert await anext(feed) == Connected()
            await proxy.reset()
            lost = await anext(feed)
            assert isinstance(lost, Lost)
            assert lost.reason
            assert await anext(feed) == Connected()
            channel = await connection.channel()
            await channel.publish(b"{}", exchange="system_info")
            assert await anext(feed) == Received(b"{}", "")


async def test_a_queue_that_another_program_took_meanwhile_is_replaced(broker_url: str, no_leaks: None) -> None:
    async with rabbitry.connect(broker_url) as connection, FaultProxy(parse_url(broker_url).hosts[0][1]) as proxy:
        channel = await connection.channel()
        async with SampleFeed(through(proxy, broker_url)) as feed:
            assert await anext(feed) == Connected()
            proxy.refuse()
            await proxy.reset()
            assert isinstance(await anext(feed), Lost)
            await eventually_awaited(lambda: _takes(channel, "Consumer"), "the broker notices the loss")
            proxy.accept()
            event: object = Lost("not yet")
            while event != Received(b"{}", ""):
                if event == Connected():
                    await channel.publish(b"{}", exchange="system_info", mandatory=False)
                event = await anext(feed)


async def _takes(channel: Channel, queue: str) -> bool:
    try:
        await channel.declare_queue(queue, exclusive=True)
    except ResourceLocked:
        await channel.open()
        return False
    return True


async def test_events_of_repeated_losses_are_bounded() -> None:
    events = _Events()
    settlements = Settlements(asyncio.get_running_loop(), 1, lambda data: None, lambda method: None)

    def connect(body: bytes) -> None:
        events.put(Connected())
        events.put(Delivery(settlements, b"\0\0", 0, 1, redelivered=False, consumer_tag="", header=b"", body=body))

    connect(b"first")
    for number in range(3):
        events.put(Lost(f"{number}"))
        events.put(Lost(f"attempt {number}"))
        connect(b"%d" % number)
    wanted = [Connected(), Received(b"first", ""), Lost("attempt 2"), Connected(), Received(b"2", "")]
    assert [await events.get() for _ in wanted] == wanted


async def test_flags_that_differ_are_used_as_they_are_unless_strict(broker_url: str, no_leaks: None) -> None:
    async with rabbitry.connect(broker_url) as connection:
        channel = await connection.channel()
        await channel.declare_exchange("system_info", "direct")
        async with SampleFeed(broker_url) as feed:
            assert await anext(feed) == Connected()
        async with SampleFeed(broker_url, strict=True) as feed:
            with pytest.raises(PreconditionFailed):
                await anext(feed)


async def test_a_refused_login_ends_it(broker_url: str, no_leaks: None) -> None:
    async with SampleFeed(parse_url(broker_url)._replace(password="wrong")) as feed:
        with pytest.raises(LoginRefused):
            await anext(feed)


@pytest.mark.parametrize(
    "error", [UnicodeDecodeError("utf-8", b"\xff", 0, 1, "hostile"), OSError(24, "too many files")]
)
async def test_an_error_of_any_kind_reaches_the_reader(
    error: Exception, no_leaks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr("rabbitry.apps._connected.connect", fail)
    async with asyncio.timeout(90), SampleFeed("amqp://127.0.0.1:1") as feed:
        with pytest.raises(type(error)):
            await anext(feed)


async def test_attempts_end(no_leaks: None) -> None:
    async with SampleFeed("amqp://127.0.0.1:1", connect_attempts=1) as feed:
        with pytest.raises(ConnectFailed):
            await anext(feed)


async def test_leaving_it_while_messages_wait_leaves_nothing(broker_url: str, no_leaks: None) -> None:
    async with rabbitry.connect(broker_url) as connection, SampleFeed(broker_url) as feed:
        assert await anext(feed) == Connected()
        channel = await connection.channel()
        for _ in range(1000):
            await channel.send(b"{}", exchange="system_info")
        await channel.wait_for_confirms()
        assert await anext(feed) == Received(b"{}", "")
