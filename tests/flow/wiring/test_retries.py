"""Retry queues: which one a delay takes, and what is left of a long one."""

from typing import Any, cast

import pytest

from rabbitry.amqp.client import Delivery, Properties
from rabbitry.flow.message import ATTEMPT, WAIT, wait_of
from rabbitry.flow.wiring.retries import later


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
def test_a_delay_rounds_up_to_a_rung_and_a_long_one_goes_several_times(
    delay: float, exchange: str, rest: float | None
) -> None:
    message = later("app", "queue", _delivery(), 2, delay, 131_064)
    assert isinstance(message.properties, Properties)
    assert (message.exchange, message.routing_key, message.mandatory) == (exchange, "queue", True)
    assert message.properties.headers is not None
    assert message.properties.headers.get(WAIT) == rest
    assert message.properties.headers[ATTEMPT] == 2


def test_what_brokers_wrote_or_would_act_on_is_left_behind() -> None:
    headers = {"x-death": [], "x-first-death-queue": "q", "CC": ["other"], "theirs": 1, WAIT: 3.0}
    properties = later("app", "queue", _delivery(**headers), 2, 1, 131_064).properties
    assert isinstance(properties, Properties)
    assert properties.headers == {
        "theirs": 1, ATTEMPT: 2, "x-rabbitry-exchange": "app", "x-rabbitry-routing-key": "key",
    }  # fmt: skip
    assert (properties.message_id, properties.expiration, properties.user_id) == ("m", None, None)


@pytest.mark.parametrize(("value", "seconds"), [(5.0, 5.0), (5, 5.0), (-1, 0.0), ("x", 0.0), (None, 0.0)])
def test_what_is_left_to_wait_is_read_with_care(value: Any, seconds: float) -> None:
    assert wait_of(Properties(headers={WAIT: value})) == seconds
