"""Networks that break in every way a network can, under publishing, consuming and waiting requests, on both brokers."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

import rabbitry
from rabbitry.amqp.client import BrokerURL, RecoveryEvent, _session, parse_url
from rabbitry.exceptions import (
    ConnectFailed,
    ConnectionClosed,
    NotFound,
    PreconditionFailed,
    RequestTimeout,
    ResourceLocked,
)
from rabbitry.runtime import backoff
from rabbitry.runtime.backoff import Backoff
from tests.support.load import running_load
from tests.support.proxy import FaultProxy, Way
from tests.support.waiting import eventually, eventually_blocking

_TIMEOUT = 4.0
"""Seconds to connect: soon over, and enough on a busy machine."""
_Switch = Callable[[FaultProxy], None]
_STALLS: dict[str, tuple[_Switch, _Switch]] = {
    "half open to the broker": (lambda p: p.pause(Way.TO_SERVER), lambda p: p.resume()),
    "half open to the client": (lambda p: p.pause(Way.TO_CLIENT), lambda p: p.resume()),
    "half open both ways": (lambda p: p.pause(), lambda p: p.resume()),
    "black hole to the broker": (lambda p: p.swallow(Way.TO_SERVER), lambda p: p.deliver()),
    "black hole to the client": (lambda p: p.swallow(Way.TO_CLIENT), lambda p: p.deliver()),
    "black hole both ways": (lambda p: p.swallow(), lambda p: p.deliver()),
}
"""Faults that only a heartbeat detects, and the functions that end them."""
_DRAGS: dict[str, _Switch] = {
    "delay": lambda p: p.delay(0.03),
    "one byte at a time": lambda p: p.chunk(1),
}
"""Faults that break nothing."""
_BREAKS: dict[str, Callable[[FaultProxy], Awaitable[None]]] = {
    "cut": FaultProxy.cut,
    "reset": FaultProxy.reset,
    "vanish": FaultProxy.vanish,
}


@pytest.fixture
def quick_url(url: BrokerURL) -> BrokerURL:
    """The broker behind the proxy, with a heartbeat and a timeout that find a silent one soon."""
    return url._replace(heartbeat=1, connection_timeout=_TIMEOUT)


# -- publishing and consuming --------------------------------------------------------------------------


async def test_a_silent_network_under_load_loses_nothing(no_leaks: None, broker_url: str) -> None:
    """All silent faults at once, each behind a proxy and on a queue of its own."""

    async def suffer(fault: str) -> None:
        begin, end = _STALLS[fault]
        async with FaultProxy(parse_url(broker_url).hosts[0][1]) as proxy:
            url = parse_url(broker_url)._replace(hosts=(("127.0.0.1", proxy.port),), heartbeat=1)
            url = url._replace(connection_timeout=_TIMEOUT)
            async with running_load(url, queue=fault, batch=5) as load:
                await load.arrives(50)
                begin(proxy)
                await eventually(lambda: load.account.losses.total() >= 2, f"both losses, {fault}")
                end(proxy)
                await load.arrives(50)
                await load.settle()
        load.account.check()
        assert not load.account.unconfirmed, fault

    async with asyncio.TaskGroup() as group:
        for fault in _STALLS:
            group.create_task(suffer(fault), name=fault)


@pytest.mark.parametrize("fault", _DRAGS)
async def test_a_slow_network_breaks_nothing(no_leaks: None, url: BrokerURL, proxy: FaultProxy, fault: str) -> None:
    _DRAGS[fault](proxy)
    async with running_load(url, batch=2) as load:
        await load.arrives(100)
        await load.settle()
    load.account.check()
    assert not load.account.unconfirmed
    assert not load.account.losses
    assert load.account.redelivered == load.account.sent_again == 0


@pytest.mark.parametrize("fault", _BREAKS)
async def test_breaks_in_the_middle_of_frames_lose_nothing(
    no_leaks: None, quick_url: BrokerURL, proxy: FaultProxy, fault: str
) -> None:
    # With one of 1 s, a machine that is busy for 2 s loses the connection more often than the faults do.
    async with running_load(quick_url._replace(heartbeat=3)) as load:
        for chunk in (1, 7):
            proxy.chunk(chunk)
            await load.arrives(50)
            await _BREAKS[fault](proxy)
            proxy.chunk()
        await load.arrives(50)
        await load.settle()
    load.account.check()
    assert not load.account.unconfirmed
    assert load.account.losses["publisher"] >= 2


# -- connecting ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", _STALLS)
async def test_connecting_to_a_silent_host_times_out(
    no_leaks: None, url: BrokerURL, proxy: FaultProxy, fault: str
) -> None:
    begin, end = _STALLS[fault]
    begin(proxy)
    with pytest.raises(ConnectFailed, match=r"no answer from 127\.0\.0\.1:\d+ within 0\.3 s"):
        await rabbitry.connect(url, timeout=0.3)
    end(proxy)
    async with rabbitry.connect(url) as connection:
        assert connection.is_open


@pytest.mark.parametrize("fault", ["cut", "reset"])
async def test_a_loss_in_every_step_of_recovery_is_recovered_from(
    no_leaks: None, url: BrokerURL, proxy: FaultProxy, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each attempt is broken a little later than the last, until one succeeds."""
    monkeypatch.setattr(backoff, "AGAIN", Backoff(0.4, 0.3))
    events: list[RecoveryEvent] = []
    async with rabbitry.connect(url, on_recovery=events.append) as connection:
        channel = await connection.channel()
        await channel.declare_exchange("e", "fanout")
        queue = (await channel.declare_queue(exclusive=True)).name
        await channel.bind_queue(queue, "e")
        async with channel.consume(queue) as deliveries:
            for seconds in (0.0, 0.02, 0.05, 0.09, 0.14, 0.2):
                proxy.delay(0.01)
                before = proxy.accepted
                await _BREAKS[fault](proxy)
                await eventually(lambda before=before: proxy.accepted > before, "an attempt")  # type: ignore[misc] # a lambda's default
                await asyncio.sleep(seconds)
                await _BREAKS[fault](proxy)
            proxy.delay(0)
            async with asyncio.timeout(90):
                await channel.publish(b"last", exchange="e")
                while (await anext(deliveries)).body != b"last":
                    pass
        await channel.delete_exchange("e")
    assert events[-1].kind == "recovered"


# -- requests ------------------------------------------------------------------------------------------


async def test_requests_lost_in_a_black_hole_are_repeated(
    no_leaks: None, quick_url: BrokerURL, proxy: FaultProxy
) -> None:
    async with rabbitry.connect(quick_url) as connection:
        channel = await connection.channel()
        await channel.declare_queue("q", durable=True)
        proxy.swallow()
        asked = [
            asyncio.create_task(channel.declare_queue("q", durable=True)),
            asyncio.create_task(channel.bind_queue("q", "amq.topic", "k")),
            asyncio.create_task(channel.qos(5)),
        ]
        await eventually(lambda: not connection.is_open, "the loss")
        proxy.deliver()
        async with asyncio.timeout(90):
            await asyncio.gather(*asked)
            await channel.publish(b"x", exchange="amq.topic", routing_key="k")
        assert await channel.delete_queue("q") == 1


async def test_a_request_times_out_and_the_channel_stays_open(
    no_leaks: None, url: BrokerURL, proxy: FaultProxy
) -> None:
    async with rabbitry.connect(url) as connection:
        channel = await connection.channel()
        proxy.pause(Way.TO_CLIENT)
        with pytest.raises(RequestTimeout, match=r"QueueDeclare within 0\.1 s"):
            await channel.declare_queue("q", durable=True, timeout=0.1)
        proxy.resume()
        assert await channel.delete_queue("q", timeout=90) == 0  # answered behind the answer that nobody waited for
        assert connection.is_open


async def test_a_channel_whose_connection_is_lost_while_it_closes_is_closed(
    no_leaks: None, url: BrokerURL, proxy: FaultProxy
) -> None:
    async with rabbitry.connect(url) as connection:
        channel = await connection.channel()
        proxy.pause(Way.TO_CLIENT)
        closing = asyncio.create_task(channel.close())
        await asyncio.sleep(0)
        await proxy.cut()
        proxy.resume()
        await closing
        assert not channel.is_open
        await channel.open()
        await channel.qos(10)


async def test_a_get_lost_in_a_black_hole_is_redelivered(
    no_leaks: None, quick_url: BrokerURL, proxy: FaultProxy
) -> None:
    async with rabbitry.connect(quick_url) as connection:
        channel = await connection.channel()
        await channel.declare_queue("q", durable=True)
        await channel.publish(b"kept", routing_key="q")
        proxy.swallow(Way.TO_CLIENT)
        with pytest.raises(ConnectionClosed, match="connection lost"):
            await channel.get("q")
        proxy.deliver()
        again = await channel.get("q")
        while again is None:  # until the broker has noticed
            again = await channel.get("q")
        assert (again.body, again.redelivered) == (b"kept", True)
        again.ack()
        assert await channel.delete_queue("q") == 0


async def test_a_406_in_the_middle_of_a_window(no_leaks: None, url: BrokerURL, proxy: FaultProxy) -> None:
    async with rabbitry.connect(url) as connection:
        channel = await connection.channel()
        await channel.declare_queue("q", durable=True)
        proxy.chunk(11)
        futures = [await channel.send(b"x", routing_key="q") for _ in range(50)]
        refused = asyncio.create_task(channel.declare_queue("q", durable=False))
        await asyncio.sleep(0)
        futures += [await channel.send(b"x", routing_key="q") for _ in range(50)]
        results = await asyncio.gather(*futures, return_exceptions=True)
        with pytest.raises(PreconditionFailed, match="inequivalent arg 'durable'"):
            await refused
        assert all(result is None or isinstance(result, PreconditionFailed) for result in results)
        assert all(isinstance(result, PreconditionFailed) for result in results[50:])
        assert connection.is_open
        await channel.open()
        await channel.publish(b"again", routing_key="q")
        confirmed = results.count(None) + 1
        assert confirmed <= await channel.delete_queue("q") <= 51


async def test_a_404_over_a_network_that_breaks_behind_it(no_leaks: None, url: BrokerURL, proxy: FaultProxy) -> None:
    async with rabbitry.connect(url) as connection:
        failing, other = await connection.channel(), await connection.channel()
        await other.declare_queue("q", durable=True)
        futures = [await failing.send(b"x", routing_key="q") for _ in range(20)]
        futures += [await failing.send(b"x", exchange="missing") for _ in range(20)]
        results = await asyncio.gather(*futures, return_exceptions=True)
        assert all(isinstance(result, NotFound) for result in results[20:])
        await proxy.reset()
        await other.publish(b"x", routing_key="q")
        assert not failing.is_open  # recovery brings back what was open
        await failing.open()
        await failing.publish(b"x", routing_key="q")
        await other.delete_queue("q")


async def test_equal_messages_returned_among_confirmed_ones(no_leaks: None, url: BrokerURL, proxy: FaultProxy) -> None:
    equal = rabbitry.Properties(message_id="equal")
    async with rabbitry.connect(url) as connection:
        channel = await connection.channel()
        queue = (await channel.declare_queue(exclusive=True)).name
        await channel.bind_queue(queue, "amq.direct", "k")
        proxy.chunk(13)

        async def send(count: int) -> list[asyncio.Future[None]]:
            keywords = {"exchange": "amq.direct", "routing_key": "k"}
            return [await channel.send(b"x", properties=equal, **keywords) for _ in range(count)]  # type: ignore[arg-type] # texts

        futures = await send(40)
        unbinding = asyncio.create_task(channel.unbind_queue(queue, "amq.direct", "k"))
        await asyncio.sleep(0)
        futures += await send(30)
        binding = asyncio.create_task(channel.bind_queue(queue, "amq.direct", "k"))
        await asyncio.sleep(0)
        futures += await send(20)
        results = await asyncio.gather(*futures, return_exceptions=True)
        await asyncio.gather(unbinding, binding)
        returned = [result for result in results if result is not None]
        assert all(isinstance(result, rabbitry.PublishReturned) for result in returned)
        assert len(returned) == 30
        assert await channel.purge_queue(queue) == 60


# -- queues of a connection that the broker believes alive ---------------------------------------------


async def test_an_exclusive_queue_that_the_dead_connection_holds_is_tried_again(
    no_leaks: None, quick_url: BrokerURL, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client's machine lost its power, as the broker sees it: 405 until a heartbeat is missed."""
    monkeypatch.setattr(_session, "LOCKED_PATIENCE", 0.0)  # the heartbeat says how long
    monkeypatch.setattr(_session, "LOCKED_HEARTBEATS", 20)  # a busy broker may notice late
    async with rabbitry.connect(quick_url) as connection:
        channel = await connection.channel()
        await channel.declare_queue("mine", exclusive=True)
        async with channel.consume("mine", exclusive=True) as deliveries:
            await proxy.vanish()
            async with asyncio.timeout(90):
                await channel.publish(b"x", routing_key="mine")
                delivery = await anext(deliveries)
                delivery.ack()
    assert proxy.accepted >= 2


async def test_an_exclusive_queue_that_stays_locked_ends_its_consumer_alone(
    no_leaks: None, url: BrokerURL, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_session, "LOCKED_PATIENCE", 0.2)
    monkeypatch.setattr(_session, "LOCKED_PAUSE", 0.05)
    async with rabbitry.connect(url._replace(heartbeat=0)) as connection:  # the broker will never notice
        channel, other = await connection.channel(), await connection.channel()
        await channel.declare_queue("mine", exclusive=True)
        await other.declare_queue("q", durable=True)
        async with channel.consume("mine") as deliveries:
            await proxy.vanish()
            with pytest.raises(ResourceLocked):
                await anext(deliveries)
        await other.publish(b"x", routing_key="q")
        await other.delete_queue("q")
    assert "still locked after" in caplog.text


# -- the blocking facade -------------------------------------------------------------------------------


async def test_a_script_recovers_from_a_silent_network(quick_url: BrokerURL, proxy: FaultProxy) -> None:
    loop = asyncio.get_running_loop()
    seen: list[bytes] = []

    def script() -> None:
        with rabbitry.connect_blocking(quick_url) as connection:
            channel = connection.channel()
            channel.declare_queue("q", durable=True)
            with channel.consume("q") as deliveries:
                channel.publish(b"before", routing_key="q")
                loop.call_soon_threadsafe(proxy.swallow, Way.TO_CLIENT)
                confirms = [channel.send(b"%d" % n, routing_key="q") for n in range(50)]
                eventually_blocking(lambda: not connection.is_open, "the loss")
                loop.call_soon_threadsafe(proxy.deliver)
                for confirm in confirms:
                    confirm.result(90)
                while len(set(seen)) < 51:
                    # deliveries buffered in the program when the connection was lost could not be acked: they are
                    # skipped
                    delivery = deliveries.next(timeout=90)
                    seen.append(delivery.body)
                    delivery.ack()
            channel.delete_queue("q")

    await asyncio.to_thread(script)
    assert set(seen) == {b"before", *(b"%d" % n for n in range(50))}
    assert seen.count(b"before") == 1
