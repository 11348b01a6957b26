"""A rolling deploy: workers of two versions of an app take each other's messages."""

import msgspec
import pytest

import rabbitry
from tests.flow._running import dead_of, eventually_holds
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


def test_a_key_has_one_version() -> None:
    app = rabbitry.App("one")
    key = app.key("order", Order, version=2)
    assert (key.version, app.key("order", Order, version=2)) == (2, key)
    with pytest.raises(rabbitry.AppError, match=r"it is version 2 of .*Order.* already, and can't be version 1"):
        app.key("order", Order)
    with pytest.raises(rabbitry.AppError, match="version=0: must be a whole number"):
        app.key("order", Order, version=0)
