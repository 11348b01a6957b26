"""Retry queues: which one a delay takes, and what is left of a long one."""

from typing import Any, cast

import pytest

from rabbitry.amqp.client import Delivery, Properties
from rabbitry.flow.message import ATTEMPT, WAIT, wait_of
from rabbitry.flow.wiring.retries import RETRY_QUEUES, later, onward, spread


class _Delivered:
    """As much of a delivery as a retry looks at."""

    exchange, routing_key, body = "app", "key", b"x"

    def __init__(self, headers: dict[str, Any]) -> None:
        self.properties = Properties(headers=headers, message_id="m", expiration="5", user_id="guest")


def _delivery(**headers: Any) -> Delivery:
    return cast("Delivery", _Delivered(headers))


@pytest.mark.parametrize(
    ("delay", "exchange", "rest"),
    [(0, "", None), (0.2, "app.retry.1s", None), (1, "app.retry.1s", None), (1.1, "app.retry.5s", None),
     (30, "app.retry.30s", None), (31, "app.retry.5m", None), (301, "app.retry.1h", None), (3600, "app.retry.1h", None),
     (3601, "app.retry.1h", 1), (9000, "app.retry.1h", 5400)],
)  # fmt: skip
def test_a_delay_rounds_up_to_a_retry_queue_and_a_long_one_repeats(
    delay: float, exchange: str, rest: float | None
) -> None:
    message = later("app", "queue", _delivery(), 2, delay, 131_064)
    assert isinstance(message.properties, Properties)
    assert (message.exchange, message.routing_key, message.mandatory) == (exchange, "queue", True)
    assert message.properties.headers is not None
    assert message.properties.headers.get(WAIT) == rest
    assert message.properties.headers[ATTEMPT] == 2


def test_headers_that_brokers_write_or_act_on_are_dropped() -> None:
    headers = {"x-death": [], "x-first-death-queue": "q", "CC": ["other"], "theirs": 1, WAIT: 3.0}
    properties = later("app", "queue", _delivery(**headers), 2, 1, 131_064).properties
    assert isinstance(properties, Properties)
    assert properties.headers == {
        "theirs": 1, ATTEMPT: 2, "x-rabbitry-exchange": "app", "x-rabbitry-routing-key": "key",
    }  # fmt: skip
    assert (properties.message_id, properties.expiration, properties.user_id) == ("m", None, None)


@pytest.mark.parametrize(("value", "seconds"), [(5.0, 5.0), (5, 5.0), (-1, 0.0), ("x", 0.0), (None, 0.0)])
def test_the_remaining_delay_is_parsed_safely(value: Any, seconds: float) -> None:
    assert wait_of(Properties(headers={WAIT: value})) == seconds


@pytest.mark.parametrize("rest", [0.5, 1, 4, 8, 100, 273, 3270, 3599, 7200])
def test_the_rest_of_a_delay_passes_through_few_queues_and_is_not_much_late(rest: float) -> None:
    seconds = {f"app.retry.{suffix}": seconds for seconds, suffix in RETRY_QUEUES}
    waited, left, hops = 0, rest, 0
    while left > 0:
        message = onward("app", "queue", _delivery(), 2, left, 131_064)
        assert isinstance(message.properties, Properties)
        assert message.properties.headers is not None
        waited += seconds[message.exchange]
        left = wait_of(message.properties)
        hops += 1
    assert rest <= waited <= max(1.0, rest * 1.1 + 1)
    assert hops <= 20


@pytest.mark.parametrize(("most", "step", "highest"), [(0.5, 1, 1), (15, 1, 15), (150, 5, 150), (1800, 30, 1800)])
def test_jitter_is_spread_over_whole_steps(most: float, step: int, highest: int) -> None:
    found = {spread(most) for _ in range(2000)}
    assert {seconds % step for seconds in found} == {0}
    assert min(found) == 0
    assert max(found) <= highest
    assert len(found) > min(highest / step, 10) / 2


def test_an_uncounted_retry_says_so() -> None:
    properties = later(
        "app", "queue", _delivery(**{"x-rabbitry-uncounted": 3}), 2, 1, 131_064, is_counted=False
    ).properties
    assert isinstance(properties, Properties)
    assert (properties.headers or {})["x-rabbitry-uncounted"] == 4
    assert (properties.headers or {})[ATTEMPT] == 2
