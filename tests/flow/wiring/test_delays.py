"""Delays of any length: the way of a message through the queues, its order, and what survives."""

import asyncio
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import rabbitry
from rabbitry.amqp.client import Properties
from rabbitry.flow.message import Publication
from rabbitry.flow.wiring.declarer import Declarer
from rabbitry.flow.wiring.delays import DUE, EXCHANGES, LAST, LONGEST, bind, declare, delayed, level_name
from tests.flow._running import counts, dead_of, eventually_dead, eventually_holds
from tests.support.embedded import BrokerProcess
from tests.support.rabbitmq import RabbitMQ
from tests.support.waiting import eventually


def _message(headers: dict[str, Any] | None = None) -> Publication:
    return Publication("shop", "order", b"x", Properties(message_id="m", headers=headers, expiration="5"))


def _app(name: str) -> rabbitry.App:
    """Return an app whose messages wait in the queue `NAME.out`."""
    app = rabbitry.App(name)

    @app.stage("out", queue=f"{name}.out")
    async def take(text: str) -> None: ...

    return app


def _walked(publication: Publication) -> list[int]:
    """Return the seconds that a message waits in each queue, by the bindings that `declare` makes."""
    assert isinstance(publication.properties, Properties)
    headers = publication.properties.headers or {}
    copies = headers["CC"]
    assert isinstance(copies, list)
    digits = str(copies[0]).removeprefix("rabbitry.due.").split(".")
    assert len(digits) == 27
    if publication.exchange == LAST:
        assert set(digits) == {"0"}
        return [1]
    first = re.fullmatch(r"rabbitry\.delay\.(\d+)s", publication.exchange)
    assert first is not None
    levels = range(int(first[1]).bit_length() - 1, -1, -1)
    assert "1" not in digits[: 27 - len(levels)], "no digit is passed over"
    return [1 << level for level in levels if digits[26 - level] == "1"] + [1]


@pytest.mark.parametrize(
    ("delay", "seconds"),
    [(0.01, 1), (1, 1), (1.2, 2), (2, 2), (3, 3), (60, 60), (86_400, 86_400), (7_776_000, 7_776_000),
     (LONGEST - 0.5, LONGEST), (LONGEST, LONGEST)],
)  # fmt: skip
def test_a_message_waits_for_its_delay_rounded_up_to_seconds(delay: float, seconds: int) -> None:
    publication = delayed(["shop.price"], _message(), delay)
    assert sum(_walked(publication)) == seconds
    assert publication.exchange in EXCHANGES
    assert publication.routing_key == "shop.price"


def test_what_it_carries() -> None:
    publication = delayed(["shop.price", "shop.count"], _message({"x-mine": 1, "x-death": []}), 3)
    properties = publication.properties
    assert isinstance(properties, Properties)
    assert properties.expiration is None, "it would move the message on too early"
    assert properties.headers is not None
    assert properties.headers["x-mine"] == 1
    assert "x-death" not in properties.headers, "brokers would find a cycle"
    assert properties.headers["x-rabbitry-exchange"] == "shop"
    assert properties.headers["x-rabbitry-routing-key"] == "order"
    copies = properties.headers["CC"]
    assert isinstance(copies, list)
    assert len(copies) == 1, "each queue has a message of its own"
    assert (publication.routing_key, publication.also) == ("shop.price", ("shop.count",))


@pytest.mark.parametrize("name", ["CC", "BCC"])
def test_copies_and_delays_are_refused_together(name: str) -> None:
    with pytest.raises(rabbitry.UsageError, match=f"can't have a {name} header"):
        delayed(["q"], _message({name: ["other"]}), 1)
    with pytest.raises(rabbitry.UsageError, match="is too long"):
        delayed(["q"], _message(), LONGEST + 1)


async def test_delayed_messages_come_in_time_and_in_order(broker_url: str) -> None:
    app = rabbitry.App("later")
    came: list[tuple[str, rabbitry.Message]] = []

    @app.stage("in")
    async def handle(text: str, message: rabbitry.Message) -> None:
        came.append((text, message))

    @app.stage("in", name="second")
    async def also(text: str) -> None: ...

    app.output("out", queue="later.out")
    async with app.publisher(broker_url) as publisher:
        await publisher.publish("declares the queues", key="out", after=1)
        began = time.monotonic()
        first = await publisher.publish("five", key="in", after=5)
        for number in range(20):
            await publisher.send(f"three {number}", key="in", after=timedelta(seconds=3))
        await publisher.send("two", key="in", at=datetime.now(UTC) + timedelta(seconds=1.5))
        await publisher.send("now", key="in", at=datetime.now(UTC) - timedelta(days=1))
        await publisher.publish("ninety days", key="in", after=timedelta(days=90))
    # All of it waits on the broker, and no worker or publisher is there: only the last message had no delay.
    await eventually_holds(broker_url, "later.handle", 23)
    assert (await counts(broker_url, ["later.second"]))["later.second"] == 23
    assert (await counts(broker_url, ["later.out"]))["later.out"] == 1
    assert (await counts(broker_url, [level_name(22)])) == {level_name(22): 2}, "one for each queue"
    assert time.monotonic() - began >= 5
    async with app.worker(broker_url, connect_attempts=1):
        await eventually(lambda: len(came) == 23, "all")
    texts = [text for text, _ in came]
    threes = [f"three {number}" for number in range(20)]
    assert [text for text in texts if text.startswith("three")] == threes
    assert set(texts) == {"now", "two", "five", *threes}
    message = dict(came)["five"]
    assert (message.id, message.exchange, message.routing_key, message.attempt) == (first, "later", "in", 1)


def test_the_blocking_publisher_delays_too(embedded_url: str) -> None:
    app = _app("script")
    with app.publisher_blocking(embedded_url) as publisher:
        publisher.publish("x", key="out", after=1)
        publisher.send("y", key="out", at=datetime.now(UTC) + timedelta(seconds=1)).result(60)
        with pytest.raises(rabbitry.UsageError, match="give one of them"):
            publisher.publish("z", key="out", after=1, at=datetime.now(UTC))
    with rabbitry.connect_blocking(embedded_url) as connection, connection.channel() as channel:
        with channel.consume("script.out") as deliveries:
            for body in (b"x", b"y"):
                delivery = next(deliveries)
                assert delivery.body == body
                delivery.ack()


async def test_an_app_delays_what_it_publishes_over_its_worker_and_without_one(embedded_url: str) -> None:
    app = rabbitry.App("own")
    came: list[str] = []

    @app.stage("out", queue="own.out")
    async def take(text: str) -> None:
        came.append(text)

    await app.publish("alone", key="out", url=embedded_url, after=1)
    await asyncio.to_thread(app.publish_blocking, "script", key="out", url=embedded_url, after=timedelta(seconds=1))
    await app.publish("expired", key="out", url=embedded_url, after=1, expires=0.001, expired="dead")
    async with app.worker(embedded_url, connect_attempts=1):
        await app.publish("worker", key="out", after=1)
        with pytest.raises(rabbitry.UsageError, match="after=-1"):
            await app.publish("never", key="out", after=-1)
        await eventually(lambda: len(came) == 3, "all")
        await eventually_dead(embedded_url, app, 1)
    assert set(came) == {"alone", "script", "worker"}


async def test_deleted_queues_of_delays_are_declared_again(embedded_url: str) -> None:
    app = _app("again")
    async with app.publisher(embedded_url) as publisher:
        await publisher.publish("one", key="out", after=1)
        async with rabbitry.connect(embedded_url) as connection, await connection.channel() as channel:
            await eventually_holds(embedded_url, "again.out", 1)
            await channel.delete_queue(DUE)
            with pytest.raises(rabbitry.PublishReturned):
                await publisher.publish("two", key="out", after=1)
            await publisher.publish("three", key="out", after=1)
            await channel.delete_exchange(LAST)
            with pytest.raises(rabbitry.ChannelClosed):
                await publisher.publish("four", key="out", after=1)
            await publisher.publish("five", key="out", after=1)
        await eventually_holds(embedded_url, "again.out", 3)


async def test_deleted_queues_of_delays_are_declared_again_for_a_key_of_several_queues(embedded_url: str) -> None:
    app = _app("several")

    @app.stage("out", queue="several.copy")
    async def copy(text: str) -> None: ...

    async with app.publisher(embedded_url) as publisher:
        await publisher.publish("one", key="out", after=1)
        for queue in ("several.out", "several.copy"):
            await eventually_holds(embedded_url, queue, 1)
        async with rabbitry.connect(embedded_url) as connection, await connection.channel() as channel:
            await channel.delete_queue(DUE)
        with pytest.raises(rabbitry.PublishReturned):
            await publisher.publish("two", key="out", after=1)
        await publisher.publish("three", key="out", after=1)
    await eventually_holds(embedded_url, "several.out", 2)
    await eventually_holds(embedded_url, "several.copy", 2)


async def test_what_expired_is_dropped_or_a_dead_letter(broker_url: str) -> None:
    app = rabbitry.App("stale")
    came: list[str] = []

    @app.stage("in", attempts=2, delays=[0])
    async def handle(text: str) -> None:
        came.append(text)
        if text == "fails once" and came.count(text) == 1:
            raise RuntimeError("once")

    app.output("out", queue="stale.out")
    async with app.publisher(broker_url) as publisher:
        await publisher.publish("dropped by the broker", key="out", expires=0.2)
        await publisher.publish("kept", key="in", expires=600, expired="dead")
        await publisher.publish("dead", key="in", expires=0.2, expired="dead")
        await publisher.publish("dead later", key="in", after=1, expires=0.2, expired="dead")
        await publisher.publish("dropped later", key="in", after=1, expires=0.2)
        await publisher.publish(rabbitry.Outgoing("its own expiration", expiration=0.2), key="in", after=1)
        await publisher.publish("fails once", key="in", expires=600, expired="dead")
        await eventually_holds(broker_url, "stale.out", 0)
        await eventually_holds(broker_url, "stale.handle", 6)
    expired_at = time.time() + 0.3  # nothing on the broker tells that the last one has expired
    await eventually(lambda: time.time() > expired_at, "the last one to expire")
    async with app.worker(broker_url, connect_attempts=1):
        await eventually_dead(broker_url, app, 2)
        await eventually(lambda: came.count("fails once") == 2, "the second attempt")
        await eventually_holds(broker_url, "stale.handle", 0)
    assert sorted(came) == ["fails once", "fails once", "kept"]
    letters = await dead_of(broker_url, app)
    assert sorted(letter.body for letter in letters) == [b"dead", b"dead later"]
    for letter in letters:
        assert letter.reason == "expired"
        assert "no worker took it in time" in letter.error


@pytest.fixture(params=["embedded", "rabbitmq"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RabbitMQ | BrokerProcess]:
    """A broker with a store, of the test's own."""
    if request.param == "rabbitmq":
        yield request.getfixturevalue("own_rabbitmq")
        return
    with BrokerProcess("--data", str(tmp_path)) as broker:
        yield broker


async def test_a_killed_broker_loses_no_delayed_message(server: RabbitMQ | BrokerProcess) -> None:
    app = _app("killed")
    app.output("copy", queue="killed.copy")
    async with app.publisher(server.url) as publisher:
        for number in range(50):
            await publisher.send(f"{number}", key="out", after=6)
        await publisher.publish("x", key="copy", after=3600)
    await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.start)
    # RabbitMQ passes on anew what a queue did not confirm, such as one that starts, after three minutes or more.
    await eventually_holds(server.url, "killed.out", 50, within=240)
    async with rabbitry.connect(server.url) as connection, await connection.channel() as channel:
        async with channel.consume("killed.out") as deliveries:
            taken = [(await anext(deliveries)).body for _ in range(50)]
    assert taken == [f"{number}".encode() for number in range(50)]
    waiting = await counts(server.url, [level_name(level) for level in range(12)])
    assert waiting[level_name(11)] == 1, "the one of an hour waits where it did: 3599 begins with 2048"


async def test_messages_without_a_queue_hold_up_no_others(broker_url: str) -> None:
    gone, there = _app("gone"), _app("there")
    async with gone.publisher(broker_url) as publisher, there.publisher(broker_url) as other:
        for number in range(40):  # RabbitMQ passes on nothing more while 32 wait for a queue
            await publisher.send(f"{number}", key="out", after=2)
        await publisher.wait_for_confirms()
        async with rabbitry.connect(broker_url) as connection, await connection.channel() as channel:
            await channel.delete_queue("gone.out")
            await eventually_holds(broker_url, DUE, 0)
            await other.publish("x", key="out", after=4)
            await other.publish("y", key="out", after=1)
            await eventually_holds(broker_url, "there.out", 2)


async def test_of_a_key_with_several_queues_those_that_are_there_get_their_messages(broker_url: str) -> None:
    gone, there = rabbitry.App("gone"), rabbitry.App("there")

    @gone.stage("out", queue="gone.first")
    async def first(text: str) -> None: ...

    @gone.stage("out", queue="gone.second")
    async def second(text: str) -> None: ...

    @there.stage("out", queue="there.first")
    async def third(text: str) -> None: ...

    @there.stage("out", queue="there.second")
    async def fourth(text: str) -> None: ...

    async with gone.publisher(broker_url) as publisher, there.publisher(broker_url) as other:
        ids = [await publisher.publish(f"{number}", key="out", after=2) for number in range(40)]
        async with rabbitry.connect(broker_url) as connection, await connection.channel() as channel:
            await channel.delete_queue("gone.second")  # RabbitMQ passes on nothing more while 32 wait for it
            await eventually_holds(broker_url, "gone.first", 40)
            await eventually_holds(broker_url, DUE, 0)
            identity = await other.publish("x", key="out", after=4)
            await other.publish("y", key="out", after=1)
            await eventually_holds(broker_url, "there.first", 2)
            await eventually_holds(broker_url, "there.second", 2)
            async with channel.consume("there.second") as deliveries:
                taken = [await anext(deliveries) for _ in range(2)]
            assert identity in {each.properties.message_id for each in taken}, "all copies have the id"
            async with channel.consume("gone.first") as deliveries:
                assert [(await anext(deliveries)).properties.message_id for _ in range(40)] == ids


async def test_a_queue_declared_again_gets_its_delayed_messages(broker_url: str) -> None:
    app = _app("anew")
    async with app.publisher(broker_url) as publisher:
        await publisher.publish("x", key="out", after=3)
        async with rabbitry.connect(broker_url) as connection, await connection.channel() as channel:
            await channel.delete_queue("anew.out")
            await channel.declare_queue("anew.out", durable=True)  # without its binding
        await eventually_holds(broker_url, "anew.out", 1)


async def test_a_target_that_can_not_be_bound_gets_its_message_all_the_same(embedded_url: str) -> None:
    async with rabbitry.connect(embedded_url) as connection, await connection.channel() as channel:
        await declare(connection, Declarer())
        await bind(connection, "unbound.out")  # does not exist yet
        await channel.declare_queue("unbound.out", durable=True)
        message = delayed(["unbound.out"], _message(), 1)
        await channel.send(
            message.body, exchange=message.exchange, routing_key=message.routing_key, properties=message.properties
        )
        await eventually_holds(embedded_url, "unbound.out", 1)


async def test_a_program_of_an_earlier_version_beside_it_has_no_message_delivered_twice(broker_url: str) -> None:
    app = _app("beside")
    async with (
        app.publisher(broker_url) as publisher,
        rabbitry.connect(broker_url) as connection,
        await connection.channel() as channel,
    ):
        await publisher.publish("x", key="out", after=1)
        await channel.bind_queue(LAST, LAST, "rabbitry.delay.#")  # as it does when it declares the queues
        await publisher.publish("y", key="out", after=1)
        await publisher.publish("z", key="out", after=3)  # a second y would come before it
        async with channel.consume("beside.out") as deliveries:
            came = [(await anext(deliveries)).body for _ in range(3)]
    assert came == [b"x", b"y", b"z"]
