"""`rabbitry worker`: run an app's stages until a signal."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from functools import partial
from typing import TYPE_CHECKING, Annotated, Final, NamedTuple

import typer

from rabbitry.cli._apps import AppPath, load_app
from rabbitry.cli._scaling import Backlog, Bounds, Range, Rules, parse_range
from rabbitry.exceptions import UsageError
from rabbitry.runtime.addresses import in_url
from rabbitry.runtime.logging import Level
from rabbitry.runtime.options import (
    Broker,
    ConnectAttempts,
    LogJson,
    LogLevel,
    Plain,
    Strict,
    as_arguments,
    broker_url,
    port_option,
    same_arguments,
    start_logging,
)
from rabbitry.runtime.output import ExitCode
from rabbitry.runtime.parent import ready
from rabbitry.runtime.service import GRACE, run_service

if TYPE_CHECKING:
    from rabbitry.flow.worker import Worker
    from rabbitry.runtime.children import Child

_logger = logging.getLogger(__name__)
app: typer.Typer = typer.Typer()
LAST_PORT: Final = 65535
_OF_PARENT: Final = ("processes", "scale_backlog", "scale_age", "scale_quiet", "health_port", "broker")
"""Parameters that are not passed on to worker processes as they are."""


Stages = Annotated[
    list[str] | None, typer.Option("--stage", metavar="NAME", help="Run this stage alone; may be repeated.")
]
Concurrency = Annotated[
    int | None, typer.Option(min=1, help="How many messages of a stage are handled at once.", show_default=False)
]
Processes = Annotated[
    str,
    typer.Option(
        metavar="N|MIN:MAX", help="The number of worker processes; with MIN:MAX it follows what waits in the queues."
    ),
]
ScaleBacklog = Annotated[
    int, typer.Option(min=1, help="With MIN:MAX: waiting messages for each process, beyond which there are more.")
]
ScaleAge = Annotated[
    float, typer.Option(min=1, help="With MIN:MAX: seconds without an empty queue, after which there is one more.")
]
ScaleQuiet = Annotated[
    float, typer.Option(min=1, help="With MIN:MAX: seconds in which fewer would do, after which there is one less.")
]
HealthPort = Annotated[
    int | None,
    port_option(
        help="Serve GET /health, /live and /metrics on this port; several processes use this port and the next ones.",
        show_default=False,
    ),
]
HealthHost = Annotated[str, typer.Option(metavar="ADDRESS", help="The address of the health port.")]
Deadline = Annotated[float, typer.Option(min=0, help="Seconds to finish handling messages after a signal.")]


@app.command("worker")
def work(
    context: typer.Context,
    path: AppPath,
    stage: Stages = None,
    concurrency: Concurrency = None,
    processes: Processes = "1",
    scale_backlog: ScaleBacklog = 100,
    scale_age: ScaleAge = 10.0,
    scale_quiet: ScaleQuiet = 60.0,
    health_port: HealthPort = None,
    health_host: HealthHost = "127.0.0.1",
    deadline: Deadline = 10.0,
    *,
    plain: Plain = False,
    strict: Strict = False,
    connect_attempts: ConnectAttempts = None,
    broker: Broker = None,
    log_level: LogLevel = Level.INFO,
    log_json: LogJson = False,
) -> None:
    """Run an app's stages until SIGTERM or Ctrl-C, finishing messages in hand; a second signal returns them.

    Example: rabbitry worker shop.flow:app --stage validate --concurrency 20 --processes 1:4
    """
    start_logging(log_level, as_json=log_json)
    size = parse_range(processes)
    if health_port and health_port + size.most - 1 > LAST_PORT:
        raise UsageError(f"--health-port {health_port} leaves no ports for {size.most} processes: choose a lower one")
    url = broker_url(context, broker)
    flow = load_app(path, plain=plain)
    worker = flow.worker(
        url, stages=stage or None, concurrency=concurrency, strict=strict, connect_attempts=connect_attempts
    )
    if size == (1, 1):
        health = None if health_port is None else _Address(health_host, health_port)
        code = run_service(
            partial(_run, worker, health, deadline), deadline=deadline + 2 * GRACE, give_up=worker.give_up
        )
    else:
        again = ["worker", *same_arguments(context, without=_OF_PARENT)]
        making = _Making(again, health_port, url, patience=deadline + 3 * GRACE)
        bounds = Bounds(scale_backlog, scale_age, scale_quiet)
        supervise = partial(_supervise, worker=worker, size=size, bounds=bounds, make=making)
        code = run_service(supervise, deadline=deadline + 4 * GRACE)
    raise typer.Exit(code)


class _Address(NamedTuple):
    host: str
    port: int


async def _run(worker: Worker, health: _Address | None, deadline: float, stop: asyncio.Event) -> int:
    """Run a worker until it is told to stop or fails."""
    stopping = asyncio.ensure_future(stop.wait())
    entering = asyncio.ensure_future(worker.__aenter__())
    try:
        if health is not None:
            # A worker that waits for its broker is alive, and an orchestrator that got no answer would restart it.
            await asyncio.wait((entering,), timeout=0)  # its first step starts the thread that answers
            try:
                port = await worker.serve_health(health.port, health.host)
            except UsageError:
                entering.cancel()
                await asyncio.wait((entering,))
                raise
            _logger.info("health: http://%s:%d/health", in_url(health.host), port)
        await asyncio.wait((stopping, entering), return_when=asyncio.FIRST_COMPLETED)
        if not entering.done():
            entering.cancel()
            # Before `__aenter__` does, which knows no deadline: the first consumers may have brought work already.
            is_done = await worker.stop(deadline)
            await asyncio.wait((entering,))
            return ExitCode.DONE if is_done else ExitCode.FAILED
        entering.result()
        ready(f"{worker.spec.name}: {', '.join(stage.name for stage in worker.stages)}")
        waiting = asyncio.ensure_future(worker.wait())
        await asyncio.wait((stopping, waiting), return_when=asyncio.FIRST_COMPLETED)
        is_done = await worker.stop(deadline)
        if waiting.done() and not waiting.cancelled():
            waiting.result()
        waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await waiting
        return ExitCode.DONE if is_done else ExitCode.FAILED
    finally:
        stopping.cancel()


async def _supervise(stop: asyncio.Event, worker: Worker, size: Range, bounds: Bounds, make: _Making) -> int:
    """Keep worker processes running until a signal, as many as `size` and the backlog say."""
    from rabbitry.cli._backlog import watch
    from rabbitry.cli._supervising import Workers

    workers = Workers(make.child, size, make.patience)
    workers.resize(size.least)
    if size.least == size.most:
        return await workers.supervise(stop)
    rules, loop = Rules(size, bounds), asyncio.get_running_loop()

    def scale(backlog: Backlog) -> None:
        before = workers.size
        if (step := rules.decide(loop.time(), before, backlog)) is not None:
            workers.resize(step.size)
            if workers.size != before:
                _logger.info("worker processes: %d, %d before: %s", workers.size, before, step.why)

    watching = asyncio.create_task(watch(make.url, worker.spec, worker.stages, scale))
    # It ends by itself only if it fails. Then all processes end as at a signal, and its error is raised.
    watching.add_done_callback(lambda _: stop.set())
    try:
        return await workers.supervise(stop)
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching


class _Making(NamedTuple):
    """How a worker process is made."""

    arguments: list[str]
    health_port: int | None
    url: str
    patience: float
    """Seconds that it has to end; more than it needs to return its messages."""

    def child(self, number: int) -> Child:
        """Return the process of a number, from 1 on."""
        from rabbitry.runtime.children import Child

        port = self.health_port and self.health_port + number - 1
        # A password must not be an argument: the broker's URL goes into the environment.
        environment = {"RABBITRY_BROKER": self.url}
        return Child(f"worker {number}", [*self.arguments, *as_arguments(health_port=port)], environment, prints=True)
