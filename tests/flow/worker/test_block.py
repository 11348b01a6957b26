"""The block of a worker ends when the worker fails for good, with the cause, as that of a TaskGroup does."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import httpx
import pytest

import rabbitry
from rabbitry.exceptions import AccessRefused
from rabbitry.testing import RunningBroker, harness
from tests.support.rabbitmq import RabbitMQ
from tests.support.waiting import eventually


@contextmanager
def _hanging(concurrency: int = 1) -> Iterator[rabbitry.App]:
    """An app whose handler hangs until the block is left."""
    app, release = rabbitry.App("dies"), threading.Event()

    @app.stage("k", time_limit=0.1, concurrency=concurrency, attempts=1)
    def hang(number: int) -> None:
        release.wait(60)

    try:
        yield app
    finally:
        release.set()


async def _hang(app: rabbitry.App, url: str, number: int = 2) -> None:
    for _ in range(number):
        await app.publish(1, key="k", url=url)
    await asyncio.Event().wait()


async def test_a_stuck_worker_cancels_its_block(no_leaks: None, broker_url: str) -> None:
    healthy: list[bool] = []

    async def block(app: rabbitry.App) -> None:
        async with app.worker(broker_url, connect_attempts=1) as worker:
            try:
                await _hang(app, broker_url)
            except asyncio.CancelledError:
                healthy.append(worker.is_healthy)
                raise

    with _hanging() as app, pytest.raises(rabbitry.RabbitryError, match="2 handlers hang"):
        await block(app)
    assert healthy == [False]
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_health_shows_the_cause_of_a_failure(embedded_url: str) -> None:
    with _hanging() as app:
        async with app.worker(embedded_url, connect_attempts=1) as worker:
            port = await worker.serve_health(0)
            hanging = asyncio.create_task(_hang(app, embedded_url))
            with pytest.raises(rabbitry.RabbitryError, match="2 handlers hang"):
                await worker.wait()
            hanging.cancel()
            async with httpx.AsyncClient(timeout=90) as client:
                answer = await client.get(f"http://127.0.0.1:{port}/health")
                live = await client.get(f"http://127.0.0.1:{port}/live")
    assert (live.status_code, live.json()) == (503, {"status": "failed"})
    assert answer.status_code == 503
    assert answer.json()["status"] == "unhealthy"
    assert "2 handlers hang" in answer.json()["failure"]


def _ann(server: RabbitMQ) -> str:
    """Add a user with all rights, and return her URL."""
    server.add_user("ann", "secret")
    server.set_permissions("ann")
    return server.url.replace("guest:guest", "ann:secret")


async def test_a_worker_whose_login_is_refused_later_cancels_its_block(no_leaks: None, own_rabbitmq: RabbitMQ) -> None:
    app = rabbitry.App("refused")

    @app.stage("k")
    async def handle(number: int) -> None: ...

    async def block() -> None:
        async with app.worker(_ann(own_rabbitmq), connect_attempts=1):
            own_rabbitmq.eval('ok = rabbit_auth_backend_internal:change_password(<<"ann">>, <<"other">>, <<"tests">>).')
            own_rabbitmq.eval('rabbit_networking:close_all_connections(<<"maintenance">>).')
            await asyncio.Event().wait()

    with pytest.raises(rabbitry.ConnectionClosed, match="refused the login of user 'ann'"):
        await block()


async def test_a_worker_that_may_not_consume_any_more_cancels_its_block(no_leaks: None, own_rabbitmq: RabbitMQ) -> None:
    app = rabbitry.App("forbidden")

    @app.stage("k")
    async def handle(number: int) -> None: ...

    async def block() -> None:
        async with app.worker(_ann(own_rabbitmq), connect_attempts=1):
            own_rabbitmq.set_permissions("ann", ".*", ".*", "nothing")
            async with rabbitry.connect(own_rabbitmq.url) as connection, await connection.channel() as channel:
                await channel.delete_queue("forbidden.handle")
                await channel.declare_queue("forbidden.handle", durable=True)
            await asyncio.Event().wait()

    with pytest.raises(AccessRefused):
        await block()


async def test_an_error_of_the_block_goes_before_the_failure_and_names_it(embedded_url: str) -> None:
    async def block(app: rabbitry.App) -> None:
        async with app.worker(embedded_url, connect_attempts=1):
            try:
                await _hang(app, embedded_url)
            finally:
                raise LookupError("of the block")

    with _hanging() as app, pytest.raises(LookupError) as raised:
        await block(app)
    assert any("2 handlers hang" in note for note in raised.value.__notes__)


async def test_a_block_that_goes_on_in_spite_of_it_raises_the_failure_at_its_end(embedded_url: str) -> None:
    async def block(app: rabbitry.App) -> None:
        async with app.worker(embedded_url, connect_attempts=1):
            with suppress(asyncio.CancelledError):
                await _hang(app, embedded_url)
            await asyncio.sleep(0)

    with _hanging() as app, pytest.raises(rabbitry.RabbitryError, match="2 handlers hang"):
        await block(app)
    await asyncio.sleep(0)  # no cancellation is left over


async def test_a_cancellation_that_comes_when_the_block_is_done_goes_nowhere_else(embedded_url: str) -> None:
    async def block(app: rabbitry.App) -> None:
        async with app.worker(embedded_url, connect_attempts=1) as worker:
            worker._on_failed(LookupError("just now"))
            asyncio.get_running_loop().call_soon(done.set_result, None)
            await done  # the failure comes first, and cancels a task that has its result already

    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    with _hanging() as app, pytest.raises(LookupError, match="just now"):
        await block(app)
    await asyncio.sleep(0)


async def test_a_block_also_cancelled_from_outside_is_cancelled(no_leaks: None, embedded_url: str) -> None:
    with _hanging() as app:

        async def block() -> None:
            async with app.worker(embedded_url, connect_attempts=1):
                try:
                    await _hang(app, embedded_url)
                except asyncio.CancelledError:
                    running.cancel()
                    raise

        running = asyncio.create_task(block())
        with pytest.raises(asyncio.CancelledError):
            await running


async def test_a_failure_raised_by_wait_is_raised_only_there(embedded_url: str) -> None:
    with _hanging() as app:
        async with app.worker(embedded_url, connect_attempts=1) as worker:
            hanging = asyncio.create_task(_hang(app, embedded_url))
            with pytest.raises(rabbitry.RabbitryError, match="2 handlers hang"):
                await worker.wait()
            hanging.cancel()
            await asyncio.sleep(0)


async def test_a_worker_entered_in_another_task_raises_the_failure_when_it_is_left(embedded_url: str) -> None:
    with _hanging() as app:
        worker = app.worker(embedded_url, connect_attempts=1)
        await asyncio.create_task(worker.__aenter__())
        hanging = asyncio.create_task(_hang(app, embedded_url))
        await eventually(lambda: not worker.is_healthy, "the failure")
        hanging.cancel()
        with pytest.raises(rabbitry.RabbitryError, match="2 handlers hang"):
            await worker.__aexit__(None, None, None)


async def test_a_harness_whose_worker_fails_ends_the_test(no_leaks: None) -> None:
    with _hanging() as app, pytest.raises(rabbitry.RabbitryError, match="2 handlers hang"):
        async with harness(app, raise_errors=False) as h:
            await _hang(app, h.url)


async def test_a_test_waiting_for_a_message_gets_the_workers_failure(no_leaks: None) -> None:
    async def test(app: rabbitry.App) -> None:
        app.output("out")
        async with harness(app, raise_errors=False) as h:
            for _ in range(2):
                await h.publish(1, key="k")
            await h.published("out", timeout=60)

    with _hanging() as app, pytest.raises(rabbitry.RabbitryError, match="2 handlers hang"):
        await test(app)


async def test_a_worker_that_is_refused_at_its_start_raises(no_leaks: None, broker_url: str) -> None:
    app = rabbitry.App("refused")

    @app.stage("k")
    async def handle(number: int) -> None: ...

    with pytest.raises(rabbitry.LoginRefused):
        async with app.worker(broker_url.replace("guest:guest", "guest:wrong").replace("test:test", "test:wrong")):
            pass


def test_a_program_ends_with_the_cause() -> None:
    async def program(url: str) -> None:
        with _hanging() as app:
            async with app.worker(url, connect_attempts=1):
                await _hang(app, url)

    with RunningBroker() as broker, pytest.raises(rabbitry.RabbitryError, match="2 handlers hang"):
        asyncio.run(program(broker.url))


async def test_a_worker_that_does_not_run_raises_usage_error(embedded_url: str, no_leaks: None) -> None:
    app = rabbitry.App("idle")

    @app.stage(key="in")
    async def nothing(value: int) -> None: ...

    worker = app.worker(embedded_url)
    for _ in range(2):  # before it is entered, and once it has stopped
        with pytest.raises(rabbitry.UsageError, match="the worker does not run"):
            await worker.wait()
        if worker.url is None:
            with pytest.raises(rabbitry.UsageError, match="the worker does not run"):
                await worker.serve_health(0)
            with pytest.raises(rabbitry.UsageError, match="the worker does not run"):
                await worker.publish(1, key="in")
            with pytest.raises(rabbitry.UsageError, match="the worker does not run"):
                worker.publish_blocking(1, key="in")
            async with worker:
                with pytest.raises(rabbitry.UsageError, match="a worker is entered once"):
                    await worker.__aenter__()
                assert worker.is_healthy
    with pytest.raises(rabbitry.UsageError, match="a worker is entered once"):
        await worker.__aenter__()
