"""The harness tests itself with an app of each handler kind."""

import asyncio
import os
from multiprocessing import resource_tracker

import pytest

import rabbitry
from rabbitry.testing import harness
from tests.flow._apps import Item
from tests.flow._kinds import kinds
from tests.flow._running import dead_of

# Python keeps one such pipe for the life of a process that has had children; no leak of a test's.
resource_tracker.ensure_running()


async def test_each_kind_of_handler_passes_its_value_on(no_leaks: None) -> None:
    async with harness(kinds) as h:
        identity = await h.publish({"n": 0}, key="struct")
        end = await h.published("end", timeout=90)
        assert end.pop("pid") != os.getpid()
        assert end == {"n": 7, "correlation_id": identity}
        assert await h.published("struct") == Item(0)
        assert (await h.published("pydantic")).n == 2
        assert await h.published("text") == "4"
        assert await h.published("bytes") == b"5"
        assert await h.published("process", type=dict) == {"n": 6}


async def test_lists_and_computed_keys_go_where_they_should(no_leaks: None) -> None:
    app = rabbitry.App("sorting")

    @app.stage("numbers", then=lambda number: {0: "even", 1: None}.get(number["n"] % 3, "odd"))
    async def split(numbers: list[int]) -> list[dict[str, int]]:
        return [{"n": number} for number in numbers]

    @app.stage("even")
    def even(item: Item) -> None: ...

    app.output("odd")
    async with harness(app) as h:
        await h.publish([3, 4, 5, 6], key="numbers")
        assert [await h.published("even") for _ in range(2)] == [Item(3), Item(6)]
        assert await h.published("odd") == {"n": 5}
        with pytest.raises(TimeoutError):
            await h.published("odd", timeout=0.1)


async def test_an_exception_of_a_handler_surfaces_where_the_test_waits(no_leaks: None) -> None:
    app = rabbitry.App("failing")

    @app.stage("in", then="out")
    async def fail(text: str) -> str:
        raise LookupError("no such thing")

    app.output("out")

    async def test() -> None:
        async with harness(app) as h:
            await h.publish("x", key="in")
            await h.published("out")

    with pytest.raises(AssertionError, match="no such thing"):
        await test()


async def test_an_exception_of_a_handler_surfaces_at_the_end(no_leaks: None) -> None:
    app = rabbitry.App("failing")
    was_called = asyncio.Event()

    @app.stage("in", attempts=1)
    async def fail(text: str) -> None:
        was_called.set()
        raise LookupError("no such thing")

    async def test() -> None:
        async with harness(app) as h:
            await h.publish("x", key="in")
            await was_called.wait()
            await h.dead()

    with pytest.raises(AssertionError, match="no such thing"):
        await test()


async def test_a_rejected_message_is_a_dead_letter_and_no_failure(no_leaks: None) -> None:
    app = rabbitry.App("rejecting")

    @app.stage("in")
    async def reject(text: str) -> None:
        raise rabbitry.Reject("not this one")

    async with harness(app) as h:
        identity = await h.publish("x", key="in")
        letter = await h.dead()
    assert (letter.id, letter.reason, letter.error, letter.body) == (identity, "rejected", "not this one", b"x")


async def test_nothing_published_is_a_timeout_and_an_unknown_key_an_error(no_leaks: None) -> None:
    async with harness(kinds) as h:
        with pytest.raises(TimeoutError, match="'end'"):
            await h.published("end", timeout=0.05)
        with pytest.raises(rabbitry.UsageError, match="'nowhere'"):
            await h.published("nowhere")


async def test_using_an_ended_harness_is_an_error(no_leaks: None) -> None:
    app = rabbitry.App("shop")

    @app.stage(key="in")
    async def nothing(value: int) -> None: ...

    async with harness(app) as running:
        await running.publish(1, key="in")
    with pytest.raises(rabbitry.UsageError, match="the harness has ended"):
        await running.published("in")


async def test_only_an_app_has_a_harness() -> None:
    with pytest.raises(rabbitry.UsageError, match=r"harness\(app\) takes a rabbitry.App, not str"):
        await harness("shop").__aenter__()  # type: ignore[arg-type] # the mistake that is tested


async def test_a_harness_names_an_unknown_argument() -> None:
    with pytest.raises(
        rabbitry.UsageError, match=r"harness\(app\) takes no 'delays': .* retries and delays come at once"
    ):
        await harness(rabbitry.App("shop"), delays=0).__aenter__()  # type: ignore[arg-type] # the mistake that is tested


async def test_each_dead_letter_is_returned_once_and_stays(no_leaks: None) -> None:
    app = rabbitry.App("rejecting")

    @app.stage("in")
    async def reject(text: str) -> None:
        raise rabbitry.Reject(text)

    async with harness(app) as h:
        for text in ("one", "two", "two"):
            await h.publish(text, key="in")
        assert [(await h.dead()).error for _ in range(3)] == ["one", "two", "two"]
        with pytest.raises(TimeoutError, match=r"^no dead letter came within 0\.1 s$"):
            await h.dead(timeout=0.1)
        assert [letter.error for letter in await dead_of(h.url, app)] == ["one", "two", "two"]
        await h.publish("three", key="in")
        assert (await h.dead()).error == "three"


async def test_retries_come_at_once_whatever_their_delay(no_leaks: None) -> None:
    app = rabbitry.App("retrying")

    @app.stage("in", then="out", attempts=4, delays=[3600])
    async def retry(text: str, message: rabbitry.Message) -> int:
        if message.attempt == 1:
            raise rabbitry.Retry(after=86_400)
        if message.attempt < 4:
            raise LookupError("not yet")
        return message.attempt

    app.output("out")
    async with harness(app, raise_errors=False) as h:
        await h.publish("x", key="in")
        assert await h.published("out") == 4
        assert len(h.errors) == 2


async def test_a_topic_app_is_asked_by_key_and_by_pattern(no_leaks: None) -> None:
    app = rabbitry.App("topics", exchange_type="topic")

    @app.stage("order.*", then=lambda order: f"bill.{order['country']}.{order['n']}")
    async def bill(order: dict[str, object]) -> dict[str, object]:
        return order

    app.output("bill.#")
    async with harness(app) as h:
        for number, country in enumerate(("fr", "ie", "fr")):
            await h.publish({"country": country, "n": number}, key=f"order.{country}")
        assert (await h.published("bill.ie.1"))["n"] == 1
        assert [(await h.published("bill.#"))["n"] for _ in range(3)] == [0, 1, 2]
        assert [(await h.published("order.fr"))["n"] for _ in range(2)] == [0, 2]
        assert (await h.published("bill.fr.2"))["n"] == 2
        with pytest.raises(rabbitry.UsageError, match="'order'"):
            await h.published("order")
        with pytest.raises(TimeoutError):
            await h.published("bill.ie.7", timeout=0.05)


async def test_a_fanout_app_is_asked_by_any_key(no_leaks: None) -> None:
    app = rabbitry.App("news", exchange_type="fanout")

    @app.stage("all")
    async def take(text: str) -> None: ...

    async with harness(app) as h:
        await h.publish("x", key="whatever")
        assert await h.published("whatever") == "x"


def _shop() -> rabbitry.App:
    app = rabbitry.App("shop")
    tried: set[int] = set()

    @app.stage("numbers", then=lambda number: "even" if number % 2 == 0 else None)
    async def split(numbers: list[int]) -> list[int]:
        return numbers

    @app.stage("even", then="half", attempts=3, delays=(60,))
    async def halve(number: int) -> int:
        if number == 4 and number not in tried:
            tried.add(number)
            raise rabbitry.Retry("once more")
        if number == 8:
            raise rabbitry.Reject("eight")
        await asyncio.sleep(0.05)
        return number // 2

    app.output("half", queue="halves")
    return app


async def test_an_idle_app_has_published_all_that_it_will(no_leaks: None) -> None:
    async with harness(_shop()) as h:
        await h.idle()
        for numbers in ([1, 2, 3, 4], [6, 8], [5]):
            await h.publish(numbers, key="numbers")
        await h.idle(timeout=90)
        assert h.all_published("numbers") == [[1, 2, 3, 4], [6, 8], [5]]
        assert sorted(h.all_published("even")) == [2, 4, 6, 8]
        assert sorted(h.all_published("half", type=int)) == [1, 2, 3]
        assert sorted(message.json for message in h.broker.queue("halves").messages) == [1, 2, 3]
        assert [letter.error for letter in await h.all_dead()] == ["eight"]
        assert await h.published("numbers") == [1, 2, 3, 4]
        assert (await h.dead()).error == "eight"


async def test_an_app_survives_a_restart_of_its_broker(no_leaks: None) -> None:
    async with harness(_shop()) as h:
        await h.publish(list(range(10, 60)), key="numbers")
        await asyncio.to_thread(h.broker.restart)
        await h.idle(timeout=90)
        assert {message.json for message in h.broker.queue("halves").messages} == set(range(5, 30))


async def test_messages_published_around_a_restart_are_seen(no_leaks: None) -> None:
    app = rabbitry.App("restarted")
    app.output("out")

    @app.stage("in", then="out")
    async def double(number: int) -> int:
        return 2 * number

    async with harness(app) as h:
        for number in range(4):
            restarting = asyncio.create_task(asyncio.to_thread(h.broker.restart))
            await h.publish(number, key="in")
            while await h.published("out", timeout=60) != 2 * number:  # at least once: an earlier one may come again
                pass
            await h.idle(timeout=60)
            await restarting
            await h.idle(timeout=60)
        assert set(h.all_published("out")) == {0, 2, 4, 6}
        assert await h.all_dead() == []


async def test_an_app_that_is_not_idle_in_time_is_named_with_its_queues(no_leaks: None) -> None:
    app = rabbitry.App("slow")
    goes_on = asyncio.Event()

    @app.stage("in")
    async def wait(number: int) -> None:
        await goes_on.wait()

    async with harness(app) as h:
        await h.publish(1, key="in")
        with pytest.raises(TimeoutError, match=r"still had messages after 0.05 s, in slow\.wait \(1\)"):
            await h.idle(timeout=0.05)
        goes_on.set()
        await h.idle(timeout=90)


async def test_an_app_is_idle_beside_a_queue_of_another_program_that_is_full(no_leaks: None) -> None:
    app = rabbitry.App("shop")

    @app.stage("in", then="out")
    async def double(number: int) -> int:
        return 2 * number

    app.output("out")
    async with harness(app) as h, rabbitry.connect(h.url) as connection:
        channel = await connection.channel()
        await channel.declare_queue("warehouse")
        await channel.bind_queue("warehouse", "shop", "out")
        await h.publish(1, key="in")
        await h.idle(timeout=90)
        assert [message.json for message in h.broker.queue("warehouse").messages] == [2]


async def test_a_failed_handler_ends_the_wait_for_an_idle_app(no_leaks: None) -> None:
    app = rabbitry.App("failing")

    @app.stage("in")
    async def fail(number: int) -> None:
        raise LookupError("no such thing")

    async def test() -> None:
        async with harness(app) as h:
            await h.publish(1, key="in")
            await h.idle(timeout=90)

    with pytest.raises(AssertionError, match="no such thing"):
        await test()
