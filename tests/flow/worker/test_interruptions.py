"""A worker that is told to stop gives work back without counting it against the message; one that dies does not."""

import asyncio
import os
import signal
import threading
from pathlib import Path
from typing import Literal

import pytest

import rabbitry
from rabbitry.amqp.client import Properties
from tests.flow._running import counts, dead_of, eventually_dead, eventually_holds, put
from tests.flow.worker.test_worker import take_and_die
from tests.support import commands
from tests.support.brokers import ON_EMBEDDED
from tests.support.waiting import eventually, eventually_blocking

INTERRUPTED = "x-rabbitry-interrupted"
RESTARTS = 4


@pytest.mark.parametrize("queue_type", ["classic", "quorum"])
@pytest.mark.parametrize("how", ["waits", "cleans up and raises", "swallows", "hangs in a thread"])
async def test_orderly_restarts_count_nothing_against_a_long_job(
    broker_url: str, queue_type: Literal["classic", "quorum"], how: str
) -> None:
    app = rabbitry.App("long", queue_type=queue_type)
    seen: list[rabbitry.Message] = []
    release, is_short = threading.Event(), False

    async def job(text: str, message: rabbitry.Message) -> None:
        seen.append(message)
        if is_short:
            return
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if how == "cleans up and raises":
                raise RuntimeError("the cleaning failed") from None
            if how == "swallows":
                await asyncio.get_running_loop().run_in_executor(None, release.wait, 60)
            raise

    def job_in_thread(text: str, message: rabbitry.Message) -> None:
        seen.append(message)
        if not is_short:
            release.wait(60)

    app.stage("k", attempts=2, name="job")(job_in_thread if how == "hangs in a thread" else job)
    async with app.publisher(broker_url) as publisher:
        await publisher.publish("x", key="k")
    try:
        for restart in range(RESTARTS):
            worker = app.worker(broker_url, connect_attempts=1)
            async with worker:
                await eventually(lambda number=restart + 1: len(seen) == number, "the job to begin")  # type: ignore[misc] # the default has its type
                assert await worker.stop(deadline=0.05)
            assert (await counts(broker_url, ["long.job"])) == {"long.job": 1}
        is_short = True
        async with app.worker(broker_url, connect_attempts=1):
            await eventually(lambda: len(seen) == RESTARTS + 1, "the job to be done")
            await eventually_holds(broker_url, "long.job", 0)
    finally:
        release.set()
    assert [message.attempt for message in seen] == [1] * (RESTARTS + 1)
    assert [message.headers.get(INTERRUPTED) for message in seen] == [None, 1, 2, 3, 4]
    left = await counts(broker_url, ["long.job", "long.suspects.job", "long.dead"])
    assert set(left.values()) == {0}, left


async def test_a_suspect_that_is_interrupted_stays_one_and_is_not_counted(broker_url: str) -> None:
    app = rabbitry.App("suspected")
    seen: list[rabbitry.Message] = []

    @app.stage("k", attempts=1)
    async def job(text: str, message: rabbitry.Message) -> None:
        seen.append(message)
        await asyncio.Event().wait()

    async with app.worker(broker_url, connect_attempts=1):
        pass
    await put(broker_url, "suspected.job", b"x", Properties(message_id="m", headers={INTERRUPTED: "odd"}))
    await take_and_die(broker_url, "suspected.job")
    for restart in range(RESTARTS):
        async with app.worker(broker_url, connect_attempts=1) as worker:
            await eventually(lambda number=restart + 1: len(seen) == number, "the job to begin")  # type: ignore[misc] # the default has its type
            assert await worker.stop(deadline=0)
        left = await counts(broker_url, ["suspected.job", "suspected.suspects.job"])
        assert left == {"suspected.job": 0, "suspected.suspects.job": 1}
    assert [message.attempt for message in seen] == [2] * RESTARTS
    assert [message.headers[INTERRUPTED] for message in seen] == ["odd", 1, 2, 3]


async def test_the_counters_of_a_worker_tell_interruptions_apart(embedded_url: str, no_leaks: None) -> None:
    app = rabbitry.App("told")
    began = asyncio.Event()

    @app.stage("k")
    async def job(text: str) -> None:
        began.set()
        await asyncio.Event().wait()

    async with app.worker(embedded_url, connect_attempts=1) as worker:
        await app.publish("x", key="k", url=embedded_url)
        await began.wait()
        await worker.stop(deadline=0)
        _, told = worker._describe()
    assert told["stages"] == {"job": {"consuming": False, "received": 1, "interrupted": 1}}


_LONG = """
import os, time
import rabbitry

app = rabbitry.App("longer")

def wait(text: str, message: rabbitry.Message) -> None:
    with open({log!r}, "a") as log:
        log.write(f"{{message.attempt}} {{message.headers.get('x-rabbitry-interrupted')}} {{os.getpid()}}\\n")
    until = time.monotonic() + 60
    while not os.path.exists({end!r}) and time.monotonic() < until:
        time.sleep(0.01)

@app.stage("thread", attempts=1)
def in_thread(text: str, message: rabbitry.Message) -> None:
    wait(text, message)

@app.stage("process", attempts=1, processes=True, concurrency=1)
def in_process(text: str, message: rabbitry.Message) -> None:
    wait(text, message)
"""


@pytest.mark.parametrize("stage", ["thread", "process"])
@pytest.mark.parametrize("how", ["deadline", "second signal", "signal to the group"])
@ON_EMBEDDED
def test_a_signal_is_not_counted_for_interrupted_messages(
    broker_url: str, tmp_path: Path, stage: str, how: str
) -> None:
    log, end = tmp_path / "log", tmp_path / "end"
    log.touch()
    (tmp_path / "longer_of_tests.py").write_text(_LONG.format(log=str(log), end=str(end)))
    more = {"RABBITRY_BROKER": broker_url, "PYTHONPATH": str(tmp_path)}
    published = commands.run("publish", "longer_of_tests:app", stage, text="x\n", more=more)
    assert published.returncode == 0, published.stderr
    for restart in range(3):
        deadline = "0.1" if how == "deadline" else "60"
        with commands.service("worker", "longer_of_tests:app", "--deadline", deadline, more=more) as worker:
            _wait_for_lines(worker, log, restart + 1)
            if how == "signal to the group":
                _signal_all(worker.process.pid, int(_lines(log)[-1][2]))
                eventually_blocking(lambda: _is_stopping(broker_url, stage), "the worker to take no more")
                end.touch()
                assert worker.process.wait(60) == 0, worker.output
                break
            worker.process.terminate()
            if how == "second signal":
                eventually_blocking(lambda: _is_stopping(broker_url, stage), "the worker to take no more")
                worker.process.send_signal(signal.SIGINT)
            assert worker.process.wait(60) == (130 if how == "second signal" else 0), worker.output
    if how == "signal to the group":
        assert [line[:2] for line in _lines(log)] == [["1", "None"]]
        queues = [f"longer.in_{stage}", f"longer.suspects.in_{stage}", "longer.dead"]
        assert asyncio.run(counts(broker_url, queues)) == dict.fromkeys(queues, 0)
    else:
        assert [line[:2] for line in _lines(log)] == [["1", "None"], ["1", "1"], ["1", "2"]]
        assert asyncio.run(counts(broker_url, [f"longer.in_{stage}"])) == {f"longer.in_{stage}": 1}


def _wait_for_lines(worker: commands.Service, log: Path, number: int) -> None:
    def are_there() -> bool:
        assert worker.process.poll() is None, worker.output
        return len(_lines(log)) == number

    eventually_blocking(are_there, "the job to begin")


def _lines(log: Path) -> list[list[str]]:
    return [line.split() for line in log.read_text().splitlines()]


def _signal_all(worker: int, process: int) -> None:
    """Signal as a service manager does, which tells all processes of a service."""
    for pid in {process, worker}:
        os.kill(pid, signal.SIGTERM)


def _is_stopping(url: str, stage: str) -> bool:
    async def ask() -> int:
        async with rabbitry.connect(url) as connection, await connection.channel() as channel:
            return (await channel.declare_queue(f"longer.in_{stage}", passive=True)).consumer_count

    return asyncio.run(ask()) == 0


async def test_a_message_whose_worker_dies_is_still_counted(broker_url: str) -> None:
    app = rabbitry.App("deadly")
    attempts: list[int] = []

    @app.stage("k", attempts=1)
    async def job(text: str, message: rabbitry.Message) -> None:
        attempts.append(message.attempt)
        raise rabbitry.Reject("done with it")

    async with app.worker(broker_url, connect_attempts=1):
        pass
    await put(broker_url, "deadly.job", b"x", Properties(message_id="m"))
    await take_and_die(broker_url, "deadly.job")
    async with app.worker(broker_url, connect_attempts=1):
        await eventually_dead(broker_url, app, 1)
    assert attempts == [2]
    (letter,) = await dead_of(broker_url, app)
    assert letter.attempts == 2
