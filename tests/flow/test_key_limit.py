"""Limits for each key: what an app accepts of them."""

from collections.abc import Callable
from typing import Any

import pytest

import rabbitry
from rabbitry.flow._key_limit import KeyLimit
from rabbitry.flow._rate import parse_rate


def customer(order: dict[str, str]) -> str:
    """Return a key."""
    return order["customer"]


async def later(order: dict[str, str]) -> str:
    """Return no key, but a coroutine."""
    return order["customer"]


def test_a_stage_has_limits_of_each_key() -> None:
    app = rabbitry.App("shop")

    @app.stage("order", limit_by=customer, rate_each="10/s", concurrency_each=2)
    async def pay(order: dict[str, str]) -> None: ...

    spec = app.spec()
    assert spec.key_limits == {"pay": KeyLimit(customer, parse_rate("10/s"), 2)}
    assert not spec.rates
    assert not spec.totals
    assert app.stages["pay"].concurrency == 100, "no limit of the whole stage limits a worker"


def test_a_stage_has_limits_of_its_own_beside_those_of_each_key() -> None:
    app = rabbitry.App("shop")

    @app.stage("order", rate="100/s", total_concurrency=20, limit_by=customer, concurrency_each=1)
    async def pay(order: dict[str, str]) -> None: ...

    spec = app.spec()
    assert spec.key_limits == {"pay": KeyLimit(customer, None, 1)}
    assert spec.rates == {"pay": parse_rate("100/s")}
    assert spec.totals == {"pay": 20}
    assert app.stages["pay"].concurrency == 20


@pytest.mark.parametrize(("key_of", "by"), [(customer, "customer"), (lambda order: order["customer"], "key")])
def test_a_key_has_the_name_of_its_function(key_of: Callable[[Any], object], by: str) -> None:
    assert KeyLimit(key_of, None, 1).by == by


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (
            {"limit_by": customer, "rate": "1/s"},
            r"limit_by=… is the key of rate_each=… and concurrency_each=…: give one of them",
        ),
        ({"rate_each": "1/s"}, r"rate_each=… and concurrency_each=… need limit_by=…, the function of the key"),
        ({"concurrency_each": 1}, r"rate_each=… and concurrency_each=… need limit_by=…, the function of the key"),
        ({"limit_by": customer, "rate_each": "1/h"}, r"rate_each='1/h': must be at least '1/m'"),
        ({"limit_by": customer, "rate_each": "fast"}, r"rate_each='fast': must be messages in a time, such as '10/s'"),
        ({"limit_by": customer, "concurrency_each": 11}, r"concurrency_each=11: must be a number of calls, 1 to 10"),
        ({"limit_by": "customer", "rate_each": "1/s"}, r"limit_by='customer': must be a function of the value, no `as"),
        ({"limit_by": later, "rate_each": "1/s"}, r"limit_by=<function later at .*>: must be a function of the value,"),
        ({"limit_by": customer, "concurrency_each": 1, "batch": 5}, "concurrency_each=… is for stages without batch"),
        ({"total_concurrency": 1, "batch": 5}, "total_concurrency=… is for stages without batch"),
        ({"idempotent": later}, r"idempotent=<function later at .*>: must be True, or a function of the value, no `as"),
        (
            {"limit_by": customer, "rate_each": "1/s", "name": "n" * 240, "queue": "short"},
            "limit_by=…: the names of app and stage must have at most 220 bytes together, since",
        ),
        ({"limited_by": customer}, r"unknown option limited_by=; did you mean limit_by=\?"),
    ],
)
def test_a_wrong_limit_is_named_in_one_line(options: dict[str, Any], error: str) -> None:
    app = rabbitry.App("shop")

    async def one(order: dict[str, str]) -> None: ...

    async def many(orders: list[dict[str, str]]) -> None: ...

    with pytest.raises(rabbitry.AppError, match=error) as raised:
        app.stage("order", **options)(many if "batch" in options else one)
    assert "\n" not in str(raised.value)
    assert "app 'shop', stage" in str(raised.value)
    assert not app.stages
