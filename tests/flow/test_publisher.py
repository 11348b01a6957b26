"""Leaving a publisher's block: what was sent is confirmed, and what failed is raised, counted, or known already."""

import asyncio
import gc

import pytest

import rabbitry
from rabbitry.exceptions import PublishReturned
from rabbitry.testing import harness
from tests.flow._running import counts, eventually_holds


def _app(name: str) -> rabbitry.App:
    app = rabbitry.App(name)

    @app.stage("in")
    async def handle(text: str) -> None: ...

    return app


async def _lose_the_binding(app: rabbitry.App, url: str) -> None:
    async with rabbitry.connect(url) as connection, await connection.channel() as channel:
        await channel.unbind_queue(f"{app.name}.handle", app.exchange, "in")


async def test_leaving_waits_for_all_that_was_sent(broker_url: str, no_leaks: None) -> None:
    app = _app("waits")
    async with app.publisher(broker_url) as publisher:
        for number in range(500):
            await publisher.send(str(number), key="in")
    assert (await counts(broker_url, ["waits.handle"]))["waits.handle"] == 500


async def test_an_app_without_stages_publishes(broker_url: str, no_leaks: None) -> None:
    web = rabbitry.App("web")
    web.output("order", queue="web.orders")
    async with web.publisher(broker_url) as publisher:
        await publisher.publish("now", key="order")
        await publisher.publish("later", key="order", after=1)
        with pytest.raises(rabbitry.UsageError, match="key 'bill' leads nowhere in app 'web'; it has order"):
            await publisher.publish("lost", key="bill")
    await eventually_holds(broker_url, "web.orders", 2)
    assert await counts(broker_url, ["web.dead", "web.retry.1s"]) == {"web.dead": -1, "web.retry.1s": -1}
    with pytest.raises(rabbitry.AppError, match="app 'web' has no stages to run"):
        web.worker(broker_url)


async def test_a_harness_shows_what_an_app_without_stages_publishes() -> None:
    web = rabbitry.App("web")
    web.output("order", queue="web.orders")
    async with harness(web) as h:
        await web.publish("tea", key="order")
        assert await h.published("order") == "tea"
        await h.idle()


async def test_leaving_raises_failures_that_were_not_handled(broker_url: str) -> None:
    app = _app("raises")
    with pytest.raises(ExceptionGroup, match="2 messages were not confirmed") as caught:  # noqa: PT012 - leaving raises
        async with app.publisher(broker_url) as publisher:
            await _lose_the_binding(app, broker_url)
            for number in range(2):
                await publisher.send(str(number), key="in")
            with pytest.raises(PublishReturned):
                await publisher.publish("handled", key="in")
            seen = await publisher.send("seen", key="in")
            with pytest.raises(PublishReturned):
                await seen
    assert [type(error) for error in caught.value.exceptions] == [PublishReturned] * 2


async def test_leaving_with_an_error_is_quick(embedded_url: str, caplog: pytest.LogCaptureFixture) -> None:
    app = _app("errors")
    gc.collect()  # what other tests left, and what is logged of it
    caplog.clear()
    with pytest.raises(KeyError):  # noqa: PT012 - leaving raises
        async with app.publisher(embedded_url) as publisher:
            for number in range(500):
                await publisher.send(str(number), key="in")
            raise KeyError("the program's own")
    gc.collect()
    assert not [record for record in caplog.records if record.name == "asyncio" and record.levelname == "ERROR"]


def test_leaving_a_blocking_publisher_raises_nothing_that_was_handled(broker_url: str) -> None:
    app = _app("script")
    with app.publisher_blocking(broker_url) as publisher:
        publisher.publish("x", key="in")
        asyncio.run(_lose_the_binding(app, broker_url))
        with pytest.raises(PublishReturned):
            publisher.publish("x", key="in")
