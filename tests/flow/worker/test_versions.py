"""A rolling deploy: workers of two versions of an app take each other's messages."""

from pathlib import Path

import msgspec
import pytest

import rabbitry
from rabbitry.amqp.client import Properties
from rabbitry.amqp.protocol.tables import FieldValue
from rabbitry.flow.message import PART, VERSION
from tests.flow._running import dead_of, eventually_holds, put
from tests.support.waiting import eventually


class Price(msgspec.Struct):
    cents: int
    currency: str


class Order(msgspec.Struct):
    number: int
    price: int


class NewOrder(msgspec.Struct):
    number: int
    price: int | Price  # what old programs publish is read, too


def _old(handled: list[str], uncounted: int = 1000) -> rabbitry.App:
    app = rabbitry.App("rolling")
    order = app.key("order", Order)

    @app.stage(order, then="paid", uncounted=uncounted)
    async def charge(order: Order) -> int:
        handled.append(f"old {order.number}")
        return order.number

    app.output("paid", queue="rolling.paid")
    return app


def _new(handled: list[str]) -> rabbitry.App:
    app = rabbitry.App("rolling")
    order = app.key("order", NewOrder, version=2)

    @app.stage(order, then="paid")
    async def charge(order: NewOrder) -> int:
        handled.append(f"new {order.number}")
        return order.number

    @app.stage("cart", then=order)
    async def buy(number: int) -> NewOrder:
        return NewOrder(number, Price(5, "EUR"))

    app.output("paid", queue="rolling.paid")
    return app


async def test_each_version_of_the_workers_handles_what_it_can_read(broker_url: str) -> None:
    handled: list[str] = []
    old, new = _old(handled), _new(handled)
    async with old.worker(broker_url, connect_attempts=1):
        async with old.publisher(broker_url) as publisher:
            await publisher.publish(Order(1, 5), key="order")
        async with new.publisher(broker_url) as publisher:
            await publisher.publish(NewOrder(2, Price(5, "EUR")), key="order")
            await publisher.publish(3, key="cart")
        await eventually(lambda: handled == ["old 1"], "the old message, by the old worker")
        await eventually_holds(broker_url, "rolling.retry.1s", 1, at_least=True)
        async with new.worker(broker_url, connect_attempts=1):
            await eventually(lambda: {"new 2", "new 3"} <= set(handled), "the new ones, by the new worker")
    async with old.publisher(broker_url) as publisher:
        await publisher.publish(Order(4, 5), key="order")
    async with new.worker(broker_url, connect_attempts=1):
        await eventually(lambda: "new 4" in handled, "an old message, by the new worker alone")
    assert sorted(handled) == ["new 2", "new 3", "new 4", "old 1"]
    await eventually_holds(broker_url, "rolling.paid", 4)
    assert await dead_of(broker_url, old) == []


async def test_a_message_that_no_worker_knows_becomes_a_dead_letter_in_the_end(broker_url: str) -> None:
    handled: list[str] = []
    old, new = _old(handled, uncounted=1), _new(handled)
    async with new.publisher(broker_url) as publisher:
        await publisher.publish(NewOrder(1, 5), key="order")
    async with old.worker(broker_url, connect_attempts=1):
        await eventually_holds(broker_url, "rolling.dead", 1)
    [letter] = await dead_of(broker_url, old)
    assert (letter.reason, letter.attempts, handled) == ("version", 1, [])
    assert letter.error == "version 2 of its type, and the workers know version 1: replay it to newer ones"


async def test_batches_have_the_messages_that_their_worker_can_read(broker_url: str) -> None:
    handled: list[str] = []
    old, new = rabbitry.App("rolling"), rabbitry.App("rolling")
    old_key, new_key = old.key("order", Order), new.key("order", NewOrder, version=2)

    @old.stage(old_key, name="charge", batch=4, within=0.1, then="paid")
    async def charge_old(orders: list[Order]) -> list[int]:
        handled.extend(f"old {order.number} {type(order.price).__name__}" for order in orders)
        return [order.number for order in orders]

    @new.stage(new_key, name="charge", batch=4, within=0.1, then="paid")
    async def charge_new(orders: list[NewOrder]) -> list[int]:
        handled.extend(f"new {order.number} {type(order.price).__name__}" for order in orders)
        return [order.number for order in orders]

    for app in (old, new):
        app.output("paid", queue="rolling.paid")
    async with old.publisher(broker_url) as publisher, new.publisher(broker_url) as newer:
        for number in range(12):
            await publisher.publish(Order(number, 5), key="order")
            if not number % 4:
                await newer.publish(NewOrder(100 + number, Price(5, "EUR")), key="order")
    async with new.worker(broker_url, connect_attempts=1):
        async with old.worker(broker_url, connect_attempts=1):
            await eventually(lambda: sum(text.endswith("int") for text in handled) == 12, "the old messages")
        await eventually(lambda: len(handled) == 15, "the new ones, by the new worker")
        await eventually_holds(broker_url, "rolling.paid", 15)
    assert {text for text in handled if "Price" in text} == {f"new {number} Price" for number in (100, 104, 108)}
    assert sorted(int(text.split()[1]) for text in handled) == [*range(12), 100, 104, 108]
    assert await dead_of(broker_url, old) == []


async def test_a_join_runs_on_a_worker_that_can_read_all_parts(broker_url: str, tmp_path: Path) -> None:
    handled: list[str] = []
    store = f"sqlite:///{tmp_path}/joins.sqlite3"
    old, new = rabbitry.App("rolling", store=store), rabbitry.App("rolling", store=store)
    old_key, new_key = old.key("order", Order), new.key("order", NewOrder, version=2)

    async def split(number: int) -> None: ...

    @old.join(old_key, name="total", of="split", within=3600, then="paid")
    async def total_old(orders: list[Order]) -> int:
        handled.append("old")
        return len(orders)

    @new.join(new_key, name="total", of="split", within=3600, then="paid")
    async def total_new(orders: list[NewOrder]) -> int:
        handled.append(" ".join(type(order.price).__name__ for order in orders))
        return len(orders)

    for app in (old, new):
        app.stage("cart", then="order")(split)
        app.output("paid", queue="rolling.paid")

    async def part(number: int, order: Order | NewOrder, version: int) -> None:
        headers: dict[str, FieldValue] = {PART: f"job/{number}/2", VERSION: version}
        properties = Properties(message_id=f"part {number}", content_type="application/json", headers=headers)
        await put(broker_url, "rolling.total", msgspec.json.encode(order), properties)

    async with new.worker(broker_url, connect_attempts=1) as worker:
        await part(0, NewOrder(1, Price(5, "EUR")), 2)
        counts = worker._engine.counting.stages["total"]
        await eventually(lambda: counts.counters.get("done") == 1 and not counts.in_hand, "the new worker has kept it")
    async with old.worker(broker_url, connect_attempts=1) as older:
        await part(1, Order(2, 5), 1)
        not_done = older._engine.counting.stages["total"].not_done
        await eventually(lambda: not_done["retry"] >= 1, "the old worker leaves it to newer ones")
        async with new.worker(broker_url, connect_attempts=1):
            await eventually_holds(broker_url, "rolling.paid", 1)
    assert handled == ["Price int"]
    assert await dead_of(broker_url, old) == []


def test_a_key_has_one_version() -> None:
    app = rabbitry.App("one")
    key = app.key("order", Order, version=2)
    assert (key.version, app.key("order", Order, version=2)) == (2, key)
    with pytest.raises(rabbitry.AppError, match=r"it is version 2 of .*Order.* already, and can't be version 1"):
        app.key("order", Order)
    with pytest.raises(rabbitry.AppError, match="version=0: must be a whole number"):
        app.key("order", Order, version=0)
