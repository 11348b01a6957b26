"""The times of a message: which are accepted, and what they mean."""

import time
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

import rabbitry
from rabbitry.amqp.client import Properties
from rabbitry.flow._publication import publication_of
from rabbitry.flow.message import EXPIRES
from rabbitry.flow.timing import Expiry, Timing, expiry_of, read_expiry, timing_of


def test_a_message_without_times_has_none() -> None:
    assert timing_of(None, None, None, "drop") is None


@pytest.mark.parametrize(
    ("after", "expires", "timing"),
    [
        (2, 3, Timing(2.0, 3.0, "dead")),
        (timedelta(days=60), timedelta(minutes=1), Timing(5_184_000.0, 60.0, "dead")),
        (None, 0.5, Timing(0.0, 0.5, "dead")),
        (0, 1, Timing(0.0, 1.0, "dead")),
    ],
)
def test_times_are_seconds_or_timedeltas(after: Any, expires: Any, timing: Timing) -> None:
    assert timing_of(after, None, expires, "dead") == timing


def test_a_time_of_day_is_a_delay_and_one_that_is_over_is_none() -> None:
    elsewhere = timezone(timedelta(hours=5))
    timing = timing_of(None, datetime.now(elsewhere) + timedelta(hours=1), None, "drop")
    assert timing is not None
    assert 3000 < timing.delay <= 3600
    assert timing_of(None, datetime.now(UTC) - timedelta(days=1), None, "drop") == Timing(0.0, None, "drop")


@pytest.mark.parametrize(
    ("times", "text"),
    [
        ({"after": -1}, "after=-1: give seconds, or a timedelta, not negative"),
        ({"after": float("nan")}, "after=nan"),
        ({"after": True}, "after=True"),
        ({"after": "5"}, "after='5'"),
        ({"after": 1, "at": datetime.now(UTC)}, "give one of them"),
        ({"at": datetime(2030, 1, 1)}, "give a datetime with a time zone"),  # noqa: DTZ001 # what is refused
        ({"at": 5}, "at=5: give a datetime"),
        ({"expires": 0}, "expires=0: give positive seconds"),
        ({"expires": 1e12}, "at most 100 years"),
        ({"expires": 1, "expired": "keep"}, "expired='keep': give 'drop' or 'dead'"),
        ({"expired": "keep"}, "expired='keep': give 'drop' or 'dead'"),
        ({"expired": "dead"}, "give expires=SECONDS too"),
        ({"after": 1, "expired": "dead"}, "give expires=SECONDS too"),
    ],
)
def test_what_is_no_time_is_refused(times: dict[str, Any], text: str) -> None:
    given: dict[str, Any] = {"after": None, "at": None, "expires": None, "expired": "drop"} | times
    with pytest.raises(rabbitry.UsageError, match="=") as caught:
        timing_of(**given)
    assert text in str(caught.value)


def test_an_expiry_beyond_what_brokers_take_is_left_to_the_worker() -> None:
    app = rabbitry.App("shop")

    @app.stage("order")
    def take(order: str) -> None: ...

    def published(years: int) -> tuple[str | None, bool]:
        timing = timing_of(expires=timedelta(days=365 * years))
        properties = publication_of(app.spec(), "x", "order", None, timing)[1].properties
        assert isinstance(properties, Properties)
        return properties.expiration, EXPIRES in (properties.headers or {})

    assert published(10) == (str(10 * 365 * 86_400_000), False)
    assert published(11) == (None, True)


def test_a_message_expires_after_it_is_delivered() -> None:
    now = time.time()
    expiry = expiry_of(Timing(3600.0, 60.0, "dead"))
    assert expiry is not None
    assert 3660 <= expiry.at - now < 3720
    assert expiry_of(Timing(3600.0, None, "dead")) is None
    again = read_expiry(str(expiry))
    assert again is not None
    assert again == Expiry("dead", pytest.approx(expiry.at, abs=0.001))  # type: ignore[arg-type] # compares as a float


@pytest.mark.parametrize("text", ["", "dead", "dead x", "5.0", "keep 5.0"])
def test_a_malformed_header_is_no_expiry(text: str) -> None:
    assert read_expiry(text) is None
