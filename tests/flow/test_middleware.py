"""Middleware: their order, what they see and may change, and where they can't be."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

import rabbitry
from rabbitry.flow.middleware import Next, NextBlocking
from tests.flow._running import bodies, dead_of, eventually_dead, eventually_holds
from tests.support.waiting import eventually


def _around(said: list[str]) -> rabbitry.App:
    """Return an app with handlers of each kind, and middleware that note what they see."""
    app = rabbitry.App("around")

    @app.middleware(stages=["in_loop", "count"])
    async def outer(message: rabbitry.Message, call_next: Next) -> Any:
        said.append(f"outer of {message.stage}")
        try:
            return await call_next()
        except ValueError as error:
            said.append(f"outer saw {error}")
            raise
        finally:
            said.append("outer ends")

    @app.middleware(stages=["in_loop"])
    async def inner(message: rabbitry.Message, call_next: Next) -> Any:
        returned = await call_next()
        said.append(f"inner of {returned}")
        return None if returned is None else returned.upper()

    @app.middleware(stages=["in_thread"])
    def threaded(message: rabbitry.Message, call_next: NextBlocking) -> Any:
        return f"<{call_next()}>"

    @app.middleware(stages=["of_batch"])
    async def batched(messages: list[rabbitry.Message], call_next: Next) -> Any:
        said.append(f"a batch of {len(messages)}")
        return await call_next()

    @app.stage("async", then="out", attempts=1)
    async def in_loop(text: str) -> str:
        if text == "fail":
            raise ValueError("no")
        return text

    @app.stage("thread", then="out")
    def in_thread(text: str) -> str:
        return text

    @app.stage("batch", batch=5)
    async def of_batch(texts: list[str]) -> None: ...

    @app.stage("yield", then="out")
    async def count(up_to: int) -> AsyncIterator[int]:
        for number in range(up_to):
            yield number

    app.output("out", queue="around.out")
    return app


async def test_middleware_are_around_each_call_the_first_outermost(broker_url: str, no_leaks: None) -> None:
    said: list[str] = []
    app = _around(said)
    async with app.worker(broker_url, connect_attempts=1), app.publisher(broker_url) as publisher:
        await publisher.publish("a", key="async")
        await eventually_holds(broker_url, "around.out", 1)
        assert said == ["outer of in_loop", "inner of a", "outer ends"]
        said.clear()
        await publisher.publish("fail", key="async")
        await eventually_dead(broker_url, app, 1)
        assert said == ["outer of in_loop", "outer saw no", "outer ends"]
        said.clear()
        await publisher.publish("b", key="thread")
        await eventually_holds(broker_url, "around.out", 2)
        await publisher.publish(2, key="yield")
        await eventually_holds(broker_url, "around.out", 4)
        await eventually(lambda: said == ["outer of count", "outer ends"], "the end of the generator")
        await publisher.publish("c", key="batch")
        await eventually(lambda: "a batch of 1" in said, "the batch")
    assert sorted(await bodies(broker_url, "around.out")) == [b"0", b"1", b"<b>", b"A"]
    (letter,) = await dead_of(broker_url, app)
    assert letter.error == "ValueError: no"


async def around_loop(message: rabbitry.Message, call_next: Next) -> Any:
    return await call_next()


def around_thread(message: rabbitry.Message, call_next: NextBlocking) -> Any:
    return call_next()


async def around_batches(messages: list[rabbitry.Message], call_next: Next) -> Any:
    return await call_next()


def in_process(text: str) -> None: ...


async def in_loop(text: str) -> None: ...


@pytest.mark.parametrize(
    ("middleware", "handler", "options", "text"),
    [
        (around_loop, in_process, {}, "the middleware is `async def`, and the handler is not"),
        (around_thread, in_loop, {}, "the middleware is `def`, and the handler is not"),
        (around_thread, in_process, {"processes": True}, "its handler runs in processes"),
        (around_batches, in_loop, {}, "and the handler one message"),
    ],
)
def test_a_middleware_that_does_not_fit_a_stage_is_refused(
    middleware: Callable[..., Any], handler: Callable[..., Any], options: dict[str, Any], text: str
) -> None:
    app = rabbitry.App("unfit")
    app.middleware(middleware)
    app.stage("in", **options)(handler)
    with pytest.raises(rabbitry.AppError, match=text):
        app.validate()


def without_next(message: rabbitry.Message) -> None: ...


def wrong_order(call_next: NextBlocking, message: rabbitry.Message) -> None: ...


async def yields(message: rabbitry.Message, call_next: Next) -> AsyncIterator[None]:
    yield


@pytest.mark.parametrize("function", [without_next, wrong_order, yields])
def test_a_function_that_is_no_middleware_is_refused(function: Callable[..., Any]) -> None:
    with pytest.raises(rabbitry.AppError, match="app 'unfit', middleware"):
        rabbitry.App("unfit").middleware(function)


def test_the_stages_of_a_middleware_exist() -> None:
    app = rabbitry.App("unfit")
    app.middleware(stages=["absent"])(around_loop)
    app.stage("in")(in_loop)
    with pytest.raises(rabbitry.AppError, match="there is no stage 'absent'"):
        app.validate()
    with pytest.raises(rabbitry.AppError, match="give a list of names"):
        app.middleware(stages="in_loop")(around_loop)
