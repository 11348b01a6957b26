"""Lifespans and dependencies: when they are made and cleaned up, and what their errors do."""

import asyncio
import contextlib
import itertools
import os
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

import pytest

import rabbitry
from rabbitry import Depends
from tests.flow._running import bodies, dead_of, eventually_dead, eventually_holds
from tests.support.waiting import eventually

numbers = itertools.count()


async def test_a_worker_and_its_messages_have_their_own_dependencies(broker_url: str, no_leaks: None) -> None:
    app = rabbitry.App("living")
    said: list[str] = []

    @contextlib.asynccontextmanager
    async def engine() -> AsyncIterator[str]:
        said.append("engine up")
        yield "engine"
        said.append("engine down")

    @app.lifespan
    async def around(engine: Annotated[str, Depends(engine, scope="worker")]) -> AsyncIterator[None]:
        said.append(f"life with {engine}")
        yield
        await app.publish("the end", key="last")  # the connection is still there
        said.append("life ends")

    def session(engine: Annotated[str, Depends(engine, scope="worker")]) -> Iterator[str]:
        said.append("session up")
        yield f"session of {engine}"
        said.append("session down")

    async def user(session: Annotated[str, Depends(session)], message: rabbitry.Message) -> str:
        return f"user of {session}, attempt {message.attempt}"

    @app.stage("async", then="done")
    async def in_loop(text: str, session: Annotated[str, Depends(session)], user: Annotated[str, Depends(user)]) -> str:
        said.append(f"{text} with {user}")
        return session

    @app.stage("thread", then="done")
    def in_thread(text: str, session: Annotated[str, Depends(session)]) -> str:
        said.append(f"{text} with {session}")
        return session

    app.output("done", queue="living.done")
    app.output("last", queue="living.last")
    async with app.worker(broker_url, connect_attempts=1), app.publisher(broker_url) as publisher:
        assert said == ["engine up", "life with engine"]
        await publisher.publish("one", key="async")
        await eventually_holds(broker_url, "living.done", 1)
        await publisher.publish("two", key="thread")
        await eventually_holds(broker_url, "living.done", 2)
    assert said == [
        "engine up",
        "life with engine",
        "session up",
        "one with user of session of engine, attempt 1",
        "session down",
        "session up",
        "two with session of engine",
        "session down",
        "life ends",
        "engine down",
    ]
    assert await bodies(broker_url, "living.last") == [b"the end"]


async def test_errors_of_dependencies_are_named_and_fail_their_message(embedded_url: str) -> None:
    app = rabbitry.App("failing-needs")
    seen: list[BaseException | None] = []

    async def broken(message: rabbitry.Message) -> AsyncIterator[int]:
        if message.headers.get("x-when") == "before":
            raise ValueError("no database")
        try:
            yield 1
        except LookupError as error:
            seen.append(error)  # it is not suppressed by this
            return
        raise OSError("commit failed")

    def busy(message: rabbitry.Message) -> int:
        if message.headers.get("x-when") == "reject":
            raise rabbitry.Reject("not now")
        return 1

    @app.stage("in", attempts=1)
    async def handle(text: str, one: Annotated[int, Depends(broken)], two: Annotated[int, Depends(busy)]) -> None:
        if text == "raise":
            raise LookupError("the handler's own")

    async with app.worker(embedded_url, connect_attempts=1), app.publisher(embedded_url) as publisher:
        for when, text in (("before", ""), ("after", ""), ("after", "raise"), ("reject", "")):
            await publisher.publish(text, key="in", headers={"x-when": when})
        await eventually_dead(embedded_url, app, 4)
    letters = {letter.error: letter for letter in await dead_of(embedded_url, app)}
    assert set(letters) == {
        "DependencyFailed: dependency 'broken' failed in its set-up: ValueError: no database",
        "DependencyFailed: dependency 'broken' failed in its clean-up: OSError: commit failed",
        "LookupError: the handler's own",
        "not now",
    }
    assert (
        "ValueError: no database"
        in letters["DependencyFailed: dependency 'broken' failed in its set-up: ValueError: no database"].traceback
    )
    assert letters["not now"].reason == "rejected"
    assert [type(error) for error in seen] == [LookupError]


async def test_a_generator_that_is_abandoned_undoes_what_its_dependency_began(embedded_url: str) -> None:
    app = rabbitry.App("undoing")
    said: list[str] = []

    async def transaction() -> AsyncIterator[None]:
        try:
            yield
        except BaseException as error:
            said.append(f"rolled back: {type(error).__name__}")
            raise
        said.append("committed")

    @app.stage("in", then="out", time_limit=0.3, attempts=1)
    async def count(up_to: int, _: Annotated[None, Depends(transaction)]) -> AsyncIterator[int]:
        for number in range(up_to):
            yield number
        if up_to > 1:
            await asyncio.sleep(3600)

    app.output("out", queue="undoing.out")
    async with app.worker(embedded_url, connect_attempts=1), app.publisher(embedded_url) as publisher:
        await publisher.publish(1, key="in")
        await eventually(lambda: said == ["committed"], "the first")
        await publisher.publish(2, key="in")
        await eventually(lambda: len(said) == 2, "the second")
    assert said[1].startswith("rolled back")


@pytest.mark.parametrize("when", ["set-up", "clean-up"])
async def test_errors_of_a_lifespan_end_the_worker_and_are_named(embedded_url: str, when: str) -> None:
    app = rabbitry.App(f"mortal-{when}")

    @app.lifespan
    def life() -> Iterator[None]:
        if when == "set-up":
            raise ValueError("no licence")
        yield
        raise ValueError("no licence")

    @app.stage("in")
    async def handle(text: str) -> None: ...

    with pytest.raises(rabbitry.DependencyFailed, match=f"'life' failed in its {when}: ValueError: no licence"):
        async with app.worker(embedded_url, connect_attempts=1):
            assert when == "clean-up"


async def test_a_lifespan_that_ends_by_itself_ends_the_worker(embedded_url: str) -> None:
    app = rabbitry.App("ending")

    @app.lifespan
    async def life() -> AsyncIterator[None]:
        async def fail() -> None:
            raise ValueError("lost the licence")

        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
            yield

    @app.stage("in")
    async def handle(text: str) -> None: ...

    with pytest.raises((rabbitry.DependencyFailed, ExceptionGroup)):
        async with app.worker(embedded_url, connect_attempts=1):
            await asyncio.sleep(3600)


def test_a_lifespan_yields_once() -> None:
    with pytest.raises(rabbitry.AppError, match=r"app 'still', lifespan.*a lifespan yields once"):

        @rabbitry.App("still").lifespan
        async def life() -> None: ...


processes = rabbitry.App("living-processes")


def number() -> int:
    return next(numbers)


def of_process() -> Iterator[str]:
    yield f"process {os.getpid()}, {next(numbers)}"


@processes.stage("in", then="out", processes=True, concurrency=1)
def in_process(
    text: str,
    life: Annotated[str, Depends(of_process, scope="worker")],
    number: Annotated[int, Depends(number)],
) -> dict[str, Any]:
    return {"life": life, "number": number, "pid": os.getpid()}


processes.output("out", queue="living-processes.out")


async def test_dependencies_of_processes_live_there(embedded_url: str) -> None:
    async with processes.worker(embedded_url, connect_attempts=1), processes.publisher(embedded_url) as publisher:
        await publisher.publish("a", key="in")
        await publisher.publish("b", key="in")
        await eventually_holds(embedded_url, "living-processes.out", 2)
    found = [body.decode() for body in await bodies(embedded_url, "living-processes.out")]
    assert all(', 0"' in body for body in found), "one instance for both messages"
    assert '"number":1' in found[0]
    assert '"number":2' in found[1]
    assert str(os.getpid()) not in found[0]
