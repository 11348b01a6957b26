"""Values with a key and properties of their own: returned, yielded and published, on both brokers."""

from collections.abc import AsyncIterator

import pytest

import rabbitry
from rabbitry.amqp.client import Delivery
from rabbitry.testing import RunningBroker
from tests.flow._apps import addressed
from tests.flow._running import dead_of, eventually_dead, eventually_holds
from tests.support.waiting import eventually


async def taken(url: str, queue: str, count: int) -> list[Delivery]:
    """Wait for so many messages in a queue, and take them."""
    await eventually_holds(url, queue, count)
    found = []
    async with rabbitry.connect(url) as connection, await connection.channel() as channel:
        while (delivery := await channel.get(queue, no_ack=True)) is not None:
            found.append(delivery)
    return found


@pytest.mark.parametrize("key", ["returned", "yielded", "process"])
async def test_key_and_properties_are_those_that_were_given(broker_url: str, key: str) -> None:
    async with addressed.worker(broker_url, connect_attempts=1):
        identity = await addressed.publish("x", key=key, url=broker_url)
        (page,) = await taken(broker_url, "addressed.pages", 1)
        (line,) = await taken(broker_url, "addressed.lines", 1)
    properties = page.properties
    headers = dict(properties.headers or {})
    assert page.body == b"\x00page"
    assert (page.exchange, page.routing_key) == ("addressed", "page")
    assert (properties.content_type, properties.content_encoding, properties.type) == ("text/html", "zstd", "P" * 200)
    assert (properties.expiration, properties.priority, properties.delivery_mode) == ("60000", 7, 2)
    assert (headers["x-rabbitry-url"], headers["nested"], headers["x-rabbitry-attempt"]) == ("http://a/", {"n": 1}, 1)
    assert (properties.correlation_id, properties.app_id) == (identity, "addressed")
    assert properties.message_id not in (None, identity)
    assert (line.body, line.routing_key) == (b"x", "line"), "without a key it goes where `then` says"
    assert (line.properties.content_type, line.properties.type) == ("text/plain", "str")


async def test_a_handler_of_bytes_reads_encoding_and_type(broker_url: str) -> None:
    app = rabbitry.App("reading")
    seen: list[tuple[bytes, rabbitry.Message]] = []

    @app.stage("page")
    async def handle(body: bytes, message: rabbitry.Message) -> None:
        seen.append((body, message))

    page = rabbitry.Outgoing(b"body", headers={"x-url": "u"}, content_encoding="zstd", type="Page")
    async with app.worker(broker_url, connect_attempts=1), app.publisher(broker_url) as publisher:
        await publisher.publish(page, key="page", headers={"x-url": "other", "more": 1})
        await app.publish(rabbitry.Outgoing("text", key="page"), key="unused", url=broker_url)
        await eventually(lambda: len(seen) == 2, "both")
    (body, message), (text, plain) = seen
    assert (body, message.content_encoding, message.type, message.content_type) == (
        b"body", "zstd", "Page", "application/octet-stream",
    )  # fmt: skip
    assert (message.headers["x-url"], message.headers["more"]) == ("u", 1)
    assert (text, plain.content_encoding, plain.type) == (b"text", None, "str")


WRONG = [
    (rabbitry.Outgoing("x", priority=1000), "priority"),
    (rabbitry.Outgoing("x", expiration=-1), "expiration"),
    (rabbitry.Outgoing("x", expiration=float("nan")), "expiration"),
    (rabbitry.Outgoing("x", headers={"odd": object()}), "no AMQP type"),  # type: ignore[dict-item] # wrong on purpose
    (rabbitry.Outgoing("x", headers={"x-rabbitry-attempt": 9}), "Rabbitry's own"),
    (rabbitry.Outgoing("x", key="k" * 256), "256 bytes"),
    (rabbitry.Outgoing("x", type="t" * 256), "256 bytes"),
    (rabbitry.Outgoing("x", index=0), "index=0 is for handlers of batches"),
    (rabbitry.Outgoing(object()), "object"),
]


async def test_values_that_amqp_can_not_carry_fail_the_handler(broker_url: str) -> None:
    app = rabbitry.App("wrong")

    @app.stage("returned", then="out", attempts=1)
    async def returned(number: int) -> rabbitry.Outgoing:
        return WRONG[number][0]

    @app.stage("yielded", then="out", attempts=1)
    async def yielded(number: int) -> AsyncIterator[rabbitry.Outgoing]:
        yield WRONG[number][0]

    app.output("out", queue="wrong.out")
    async with app.worker(broker_url, connect_attempts=1), app.publisher(broker_url) as publisher:
        for number in range(len(WRONG)):
            for key in ("returned", "yielded"):
                await publisher.publish(number, key=key)
        await eventually_dead(broker_url, app, 2 * len(WRONG))
        await eventually_holds(broker_url, "wrong.out", 0)
    for letter in await dead_of(broker_url, app):
        assert WRONG[int(letter.body)][1] in letter.error


@pytest.mark.parametrize(("wrong", "why"), WRONG)
async def test_an_invalid_outgoing_is_refused_when_published(
    rabbitry_broker: RunningBroker, wrong: rabbitry.Outgoing, why: str
) -> None:
    app = rabbitry.App("refused")
    app.output("out", queue="out")

    @app.stage("in", then="out")
    async def handle(text: str) -> None: ...

    async with app.publisher(rabbitry_broker.url) as publisher:
        with pytest.raises(rabbitry.UsageError, match=why):
            await publisher.publish(wrong, key="in")


def test_it_is_frozen() -> None:
    outgoing = rabbitry.Outgoing(b"x", key="k", headers={"a": 1})
    with pytest.raises(AttributeError):
        outgoing.key = "other"  # type: ignore[misc] # it is frozen
