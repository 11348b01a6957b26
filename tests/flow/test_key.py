"""Keys with a type: compared where they are declared, published with, returned, and asked for in a harness."""

from typing import Any, TypedDict

import msgspec
import pytest

import rabbitry
from rabbitry.flow.codec import encode
from rabbitry.flow.key import Key, check_value, make_key
from rabbitry.testing import harness
from tests.flow._running import dead_of, eventually_dead, eventually_holds


class Order(msgspec.Struct):
    """A message."""

    article: str


def _app() -> tuple[rabbitry.App, Key[Order], Key[str], Key[list[int]]]:
    app = rabbitry.App("typed")
    order, bill, numbers = app.key("order", Order), app.key("bill", str), app.key("numbers", list[int])

    @app.stage(order, then=bill, attempts=1)
    async def charge(order: Order) -> Any:
        return 5 if order.article == "wrong" else order.article

    @app.stage(numbers, then=lambda number: bill)
    async def total(numbers: list[int]) -> Any:
        return rabbitry.Outgoing(str(sum(numbers)), key=bill)

    app.output(bill, queue="typed.bills")
    return app, order, bill, numbers


async def test_what_is_published_is_compared_with_the_type_of_its_key(broker_url: str, no_leaks: None) -> None:
    app, order, bill, numbers = _app()
    async with app.worker(broker_url, connect_attempts=1), app.publisher(broker_url) as publisher:
        await publisher.publish(Order("tea"), key=order)
        await publisher.publish(rabbitry.Outgoing(Order("tea"), priority=3), key=order)
        await publisher.publish([1, 2], key=numbers)
        await eventually_holds(broker_url, "typed.bills", 3)
        # The ignores show that type checkers see it too: one that is not needed is an error.
        with pytest.raises(rabbitry.UsageError, match="key 'order' takes Order, and not dict"):
            await publisher.publish({"article": "tea"}, key=order)  # type: ignore[misc] # the mistake that is tested
        with pytest.raises(rabbitry.UsageError, match="key 'order' takes Order, and not str"):
            await publisher.send("tea", key=order)  # type: ignore[misc] # the mistake that is tested
        with pytest.raises(rabbitry.UsageError, match=r"key 'numbers' takes list\[int\], and not this value"):
            await publisher.publish(["one"], key=numbers)  # type: ignore[misc] # the mistake that is tested
        with pytest.raises(rabbitry.UsageError, match="key 'order' takes Order"):
            await app.publish(5, key="order")  # by its name
        with pytest.raises(rabbitry.UsageError, match="key 'bill' takes str"):
            await app.publish(rabbitry.Outgoing(5, key=bill), key=order)
        await publisher.publish(Order("wrong"), key=order)
        await eventually_dead(broker_url, app, 1)
    (letter,) = await dead_of(broker_url, app)
    assert letter.error == "UsageError: key 'bill' takes str, and not int"


class Paid(TypedDict):
    """A value without a class of its own."""

    amount: int


@pytest.mark.parametrize(
    ("type_", "fitting", "wrong"),
    [
        (float, [1, 1.5], ["1", True]),
        (int, [1], [1.5, True]),
        (bool, [True], [1]),
        (Paid, [Paid(amount=1)], [{"amount": "1"}, {}, 1]),
        (Any, [1, None, [1], {"a": 1}], []),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_numbers_and_typed_dictionaries_are_compared_too(
    type_: type[object], fitting: list[object], wrong: list[object]
) -> None:
    key = make_key("key", type_, 1)
    for value in fitting:
        check_value(key, value, encode(value))
    for value in wrong:
        with pytest.raises(rabbitry.UsageError, match="key 'key' takes "):
            check_value(key, value, encode(value))


async def test_a_harness_knows_the_types() -> None:
    app, order, bill, numbers = _app()
    async with harness(app) as h:
        await h.publish(Order("tea"), key=order)
        found = await h.published(order)
        assert found.article == "tea"  # mypy knows that
        assert (await h.published(bill)).upper() == "TEA"
        assert h.all_published(bill) == ["tea"]
        with pytest.raises(rabbitry.UsageError, match="key 'order' takes Order"):
            await h.publish(5, key=order)  # type: ignore[misc] # the mistake that is tested
        await h.publish([1, 2], key=numbers)
        assert await h.published(bill) == "3"


def test_handlers_take_the_type_of_their_key() -> None:
    app = rabbitry.App("typed")
    order = app.key("order", Order)
    assert app.key("order", Order) == order
    assert (str(order), order.name, order.type) == ("order", "order", Order)

    async def wrong(value: str) -> None: ...

    async def raw(value: bytes) -> None: ...

    with pytest.raises(rabbitry.AppError, match=r"app 'typed', stage 'wrong'.*parameter 'value' is .*str.*Order"):
        app.stage(order)(wrong)
    app.stage(order)(raw)
    assert app.stages["raw"].key == "order"
    with pytest.raises(rabbitry.AppError, match=r"app 'typed', key 'order': it is version 1 of .*Order.* already"):
        app.key("order", str)
    with pytest.raises(rabbitry.AppError, match=r"key 'odd': type=.*can't be decoded"):
        app.key("odd", rabbitry.App)
    with pytest.raises(rabbitry.AppError, match="key=5: must be a string"):
        app.key(5, str)  # type: ignore[arg-type] # the mistake that is tested


def test_a_then_with_a_type_leads_somewhere() -> None:
    app = rabbitry.App("typed")
    bill = app.key("bill", str)

    @app.stage("in", then=bill)
    async def handle(value: str) -> str:
        return value

    with pytest.raises(rabbitry.AppError, match="then='bill' leads nowhere"):
        app.validate()
