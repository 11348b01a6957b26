"""`rabbitry worker`: run an app's stages until a signal."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from rabbitry.cli._apps import AppPath, load_app
from rabbitry.exceptions import RabbitryError, UsageError
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

_logger = logging.getLogger(__name__)
app: typer.Typer = typer.Typer()


Stages = Annotated[
    list[str] | None, typer.Option("--stage", metavar="NAME", help="Run this stage alone; may be repeated.")
]
Concurrency = Annotated[
    int | None, typer.Option(min=1, help="How many messages of a stage are handled at once.", show_default=False)
]
Processes = Annotated[int, typer.Option(min=1, help="The number of worker processes.")]
HealthPort = Annotated[
    int | None,
    port_option(
        help="Serve GET /health, /live and /metrics on this port of 127.0.0.1; several processes use this port and the "
        "next ones.",
        show_default=False,
    ),
]
Deadline = Annotated[float, typer.Option(min=0, help="Seconds to finish handling messages after a signal.")]


@app.command("worker")
def work(
    context: typer.Context,
    path: AppPath,
    stage: Stages = None,
    concurrency: Concurrency = None,
    processes: Processes = 1,
    health_port: HealthPort = None,
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

    Example: rabbitry worker shop.flow:app --stage validate --concurrency 20
    """
    start_logging(log_level, as_json=log_json)
    url = broker_url(context, broker)
    flow = load_app(path, plain=plain)
    worker = flow.worker(
        url, stages=stage or None, concurrency=concurrency, strict=strict, connect_attempts=connect_attempts
    )
    if processes == 1:
        code = run_service(
            partial(_run, worker, health_port, deadline), deadline=deadline + 2 * GRACE, give_up=worker.give_up
        )
    else:
        # A password must not be an argument: the broker's URL goes into the environment.
        again = ["worker", *same_arguments(context, without=("processes", "health_port", "broker"))]
        ports = [health_port and health_port + number for number in range(processes)]
        supervise = partial(_supervise, arguments=again, ports=ports, url=url, patience=deadline + 3 * GRACE)
        code = run_service(supervise, deadline=deadline + 4 * GRACE)
    raise typer.Exit(code)


async def _run(worker: Worker, health_port: int | None, deadline: float, stop: asyncio.Event) -> int:
    """Run a worker until it is told to stop or fails."""
    stopping = asyncio.ensure_future(stop.wait())
    entering = asyncio.ensure_future(worker.__aenter__())
    try:
        await asyncio.wait((stopping, entering), return_when=asyncio.FIRST_COMPLETED)
        if not entering.done():
            entering.cancel()
            # Before `__aenter__` does, which knows no deadline: the first consumers may have brought work already.
            is_done = await worker.stop(deadline)
            await asyncio.wait((entering,))
            return ExitCode.DONE if is_done else ExitCode.FAILED
        entering.result()
        if health_port is not None:
            try:
                port = await worker.serve_health(health_port)
            except UsageError:
                await worker.stop(0)
                raise
            _logger.info("health: http://127.0.0.1:%d/health", port)
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


async def _supervise(
    stop: asyncio.Event, arguments: list[str], ports: list[int | None], url: str, patience: float
) -> int:
    """Keep worker processes running until a signal, and restart those that end by themselves.

    patience: seconds that they have to end; more than they need to return their messages.
    """
    from rabbitry.runtime.children import Child

    environment = {"RABBITRY_BROKER": url}  # a password must not be an argument
    children = []
    for number, port in enumerate(ports, 1):
        own = [*arguments, *as_arguments(health_port=port)]
        children.append(Child(f"worker {number}", own, environment, prints=True))
    keeping = [asyncio.ensure_future(child.keep()) for child in children]
    stopping = asyncio.ensure_future(stop.wait())
    refused: Child | None = None
    try:
        # One that ends for good can't start, and neither can the others.
        await asyncio.wait((stopping, *keeping), return_when=asyncio.FIRST_COMPLETED)
        if not stop.is_set():
            refused = next(child for child, task in zip(children, keeping, strict=True) if task.done())
    finally:
        stopping.cancel()
        await asyncio.gather(*(child.end(patience) for child in children))
    # One that had not started yet when it was asked to end died of that; it had nothing in hand.
    codes = [0 if code == -signal.SIGTERM else code for code in [await task for task in keeping]]
    for child, code in zip(children, codes, strict=True):
        if code < 0:
            raise RabbitryError(f"{child.name} was ended by signal {-code}; its unsettled messages are redelivered")
    if refused is not None:
        refused.say_end(keeping[children.index(refused)].result())
    return max(codes)
