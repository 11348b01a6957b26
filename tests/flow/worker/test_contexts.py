"""Each message is handled in a context of its own, and nothing that a handler raises reaches the worker."""

import asyncio
import contextvars
import subprocess
import sys
import textwrap
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

import rabbitry
from rabbitry.flow.exceptions import WorkerStuck
from rabbitry.flow.worker._executors.in_context import InContext
from rabbitry.flow.worker._job import Result
from tests.flow._running import dead_of, eventually_dead, eventually_holds
from tests.support import commands
from tests.support.waiting import eventually

tenant = contextvars.ContextVar("tenant", default="none")


def note(text: str) -> str:
    """Return which tenant is set before this message sets its own."""
    before = tenant.get()
    tenant.set(text)
    return f"{text}: {before}, {tenant.get()}"


contexts = rabbitry.App("contexts")
contexts.output("out", queue="contexts.out")


@contexts.stage("async", then="out", concurrency=1)
async def in_task(text: str) -> str:
    said = note(text)
    await asyncio.sleep(0)
    inner = await asyncio.create_task(_read())
    assert inner == text, "tasks that a handler makes begin in its context"
    return said


async def _read() -> str:
    return tenant.get()


@contexts.stage("thread", then="out", concurrency=1)
def in_thread(text: str) -> str:
    return note(text)


@contexts.stage("process", then="out", concurrency=1, processes=True)
def in_process(text: str) -> str:
    return note(text)


async def test_each_message_begins_in_a_copy_of_the_context_that_the_worker_was_entered_in(broker_url: str) -> None:
    tenant.set("outer")
    async with contexts.worker(broker_url, connect_attempts=1):
        tenant.set("later")
        async with contexts.publisher(broker_url) as publisher:
            for text in ("alice", "bob", "carol"):
                for key in ("async", "thread", "process"):
                    await publisher.publish(text, key=key)
        await eventually_holds(broker_url, "contexts.out", 9)
    said = []
    async with rabbitry.connect(broker_url) as connection, await connection.channel() as channel:
        while (delivery := await channel.get("contexts.out")) is not None:
            said.append(delivery.body.decode())
            delivery.ack()
    assert sorted(said) == sorted(
        f"{text}: {before}, {text}" for text in ("alice", "bob", "carol") for before in ("outer", "outer", "none")
    )


async def _give(value: object) -> Result:
    await asyncio.sleep(0)
    return Result("done", reason=str(value))


async def test_awaits_errors_and_cancelling_of_a_coroutine_keep_its_context() -> None:
    async def work() -> Result:
        tenant.set("inside")
        try:
            async with asyncio.timeout(0):
                await asyncio.Event().wait()
        except TimeoutError:
            assert tenant.get() == "inside"
        return await _give(tenant.get())

    context = contextvars.copy_context()
    assert (await InContext(context, work())).reason == "inside"
    assert (tenant.get(), context[tenant]) == ("none", "inside")

    async def hang() -> Result:
        tenant.set("hanging")
        try:
            await asyncio.Event().wait()
        finally:
            assert tenant.get() == "hanging"
        raise AssertionError

    async def await_it() -> None:
        await InContext(contextvars.copy_context(), hang())

    task = asyncio.create_task(await_it())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    async def fail() -> Result:
        raise ValueError("as it is")

    with pytest.raises(ValueError, match="as it is"):
        await InContext(contextvars.copy_context(), fail())


def _raise(what: str) -> None:
    kinds: dict[str, type[BaseException]] = {
        "KeyboardInterrupt": KeyboardInterrupt, "SystemExit": SystemExit, "GeneratorExit": GeneratorExit,
        "CancelledError": asyncio.CancelledError, "StopIteration": StopIteration, "BaseException": BaseException,
    }  # fmt: skip
    raise kinds[what]("said")


_KINDS = ("KeyboardInterrupt", "SystemExit", "GeneratorExit", "CancelledError", "StopIteration", "BaseException")
interrupts = rabbitry.App("interrupts")


@interrupts.stage("async", attempts=1)
async def raise_in_task(text: str) -> None:
    if text != "good":
        await asyncio.sleep(0)
        _raise(text)


@interrupts.stage("thread", attempts=1)
def raise_in_thread(text: str) -> None:
    if text != "good":
        _raise(text)


@interrupts.stage("process", attempts=1, processes=True, concurrency=1)
def raise_in_process(text: str) -> None:
    if text != "good":
        _raise(text)


async def test_system_exits_fail_only_the_message_that_raised_them(broker_url: str) -> None:
    async with interrupts.worker(broker_url, connect_attempts=1) as worker:
        async with interrupts.publisher(broker_url) as publisher:
            for what in (*_KINDS, "good"):
                for key in ("async", "thread", "process"):
                    await publisher.publish(what, key=key)
        await eventually_dead(broker_url, interrupts, 3 * len(_KINDS))
        for stage in interrupts.stages.values():
            await eventually_holds(broker_url, stage.queue, 0)
        assert worker.is_healthy
    letters = await dead_of(broker_url, interrupts)
    assert sorted((letter.stage, letter.body.decode()) for letter in letters) == sorted(
        (stage, what) for stage in interrupts.stages for what in _KINDS
    )
    for letter in letters:
        wanted = "RuntimeError" if letter.body == b"StopIteration" and "task" in letter.stage else letter.body.decode()
        assert letter.error.startswith(wanted), letter  # Python itself turns StopIteration in a coroutine into that
        assert (letter.reason, letter.attempts) == ("failed", 1)


async def _cancel_and_wait() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(10)


async def _cancel_and_return() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()


async def _cancel_and_swallow() -> None:
    try:
        await _cancel_and_wait()
    except asyncio.CancelledError:
        return


@pytest.mark.parametrize(("cancel", "dead"), [(_cancel_and_wait, 3), (_cancel_and_return, 0), (_cancel_and_swallow, 0)])
async def test_a_handler_that_cancels_its_own_task_costs_no_other_message(
    embedded_url: str, no_leaks: None, cancel: Callable[[], Awaitable[None]], dead: int
) -> None:
    app = rabbitry.App("selfish")
    done: list[str] = []

    @app.stage("in", attempts=1, concurrency=2)
    async def handle(text: str) -> None:
        if text.startswith("odd"):
            await cancel()
        await asyncio.sleep(0)
        done.append(text)

    async with app.worker(embedded_url, connect_attempts=1) as worker, app.publisher(embedded_url) as publisher:
        for n in range(10):
            await publisher.publish(f"odd {n}" if n % 4 == 1 else f"even {n}", key="in")
        await eventually(lambda: sum(text.startswith("even") for text in done) == 7, "the others to be handled")
        await eventually_holds(embedded_url, "selfish.handle", 0)
        await eventually_dead(embedded_url, app, dead)
        assert worker.is_healthy
    letters = await dead_of(embedded_url, app)
    assert len(letters) <= 3
    assert all((letter.attempts, letter.body[:3]) == (1, b"odd") for letter in letters)
    assert (await dead_of(embedded_url, app))[dead:] == [] or cancel is _cancel_and_return


async def test_errors_of_a_types_validators_fail_only_that_message(embedded_url: str, no_leaks: None) -> None:
    import pydantic

    class Picky(pydantic.BaseModel):
        value: int

        @pydantic.field_validator("value")
        @classmethod
        def look(cls, value: int) -> int:
            raise KeyError(value)

    app = rabbitry.App("picky")
    app.stage("async", attempts=1, name="task")(_async_handler(Picky))
    app.stage("thread", attempts=1, name="thread")(_handler(Picky))
    async with app.worker(embedded_url, connect_attempts=1) as worker, app.publisher(embedded_url) as publisher:
        for key in ("async", "thread"):
            await publisher.publish({"value": 1}, key=key)
        await eventually_dead(embedded_url, app, 2)
        assert worker.is_healthy
    assert {letter.error for letter in await dead_of(embedded_url, app)} == {"KeyError: 1"}


def _handler(kind: type) -> Callable[..., None]:
    def handle(value: object) -> None: ...

    handle.__annotations__["value"] = kind
    return handle


def _async_handler(kind: type) -> Callable[..., Awaitable[None]]:
    async def handle(value: object) -> None: ...

    handle.__annotations__["value"] = kind
    return handle


async def test_handlers_that_hang_are_counted_in_the_log_before_they_end_the_worker(
    embedded_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = rabbitry.App("hanging")
    release = threading.Event()

    @app.stage("in", attempts=1, time_limit=0.1, concurrency=2)
    def hang(text: str) -> None:
        release.wait(60)

    async def work() -> None:
        async with app.worker(embedded_url, connect_attempts=1) as worker:
            for n in range(3):
                await app.publish(str(n), key="in", url=embedded_url)
            await worker.wait()

    try:
        with pytest.raises(WorkerStuck, match="3 handlers hang"):
            await work()
    finally:
        release.set()
    assert "1 of 2 that may hang" in caplog.text
    assert "2 of 2 that may hang" in caplog.text


# -- processes that can't import their handler -------------------------------------------------------------

_NOTEBOOK = """
import asyncio, sys, types
import rabbitry

app = rabbitry.App("notebook")
{define}

async def main():
    async with app.worker({url!r}, connect_attempts=1):
        print("entered")

asyncio.run(main())
"""


def test_a_process_stage_without_a_file_is_refused_at_once() -> None:
    program = _NOTEBOOK.format(
        define="@app.stage('k', processes=True)\ndef crunch(x: int) -> None: ...", url="amqp://127.0.0.1:1/"
    )
    for arguments, given in ((["-"], program), (["-c", program], "")):
        done = subprocess.run(
            [sys.executable, *arguments], input=given, env=commands.environment(), capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 1
        assert "AppError" in done.stderr.splitlines()[-1]
        assert "put the function into a module" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("kind", ["made up", "changed", "unguarded"])
def test_a_handler_that_no_process_can_import_is_refused_when_the_worker_starts(
    embedded_url: str, tmp_path: Path, kind: str
) -> None:
    module = tmp_path / "crunching.py"
    module.write_text("def crunch(x: int) -> None: ...\n")
    define = {
        "made up": "module = types.ModuleType('made_up')\nsys.modules['made_up'] = module\n"
        "exec('def crunch(x: int) -> None: ...', module.__dict__)\napp.stage('k', processes=True)(module.crunch)",
        "changed": "import crunching\napp.stage('k', processes=True)(crunching.crunch)\n"
        f"open({str(module)!r}, 'w').close()",
        "unguarded": "@app.stage('k', processes=True)\ndef crunch(x: int) -> None: ...",
    }[kind]
    script = tmp_path / "script.py"
    if kind != "unguarded":
        define = "if __name__ == '__main__':\n" + textwrap.indent(define, "    ")
    program = _NOTEBOOK.format(define=define, url=embedded_url)
    if kind != "unguarded":
        program = program.replace("asyncio.run", "if __name__ == '__main__':\n    asyncio.run")
    script.write_text(program)
    done = subprocess.run(
        [sys.executable, str(script)], env=commands.environment({"PYTHONPATH": str(tmp_path)}), capture_output=True,
        text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "entered" not in done.stdout
    last = done.stderr.splitlines()[-1]
    if kind == "unguarded":
        assert "WorkerProcessDied" in last
        assert "bootstrapping phase" in done.stderr
    else:
        assert "AppError" in last
        assert "can't import the handler" in last
        assert {"made up": "No module named 'made_up'", "changed": "no attribute 'crunch'"}[kind] in last
