"""`rabbitry workqueue produce|consume`: a hundred thousand messages for any number of consumers."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Final

import typer

from rabbitry.apps.management import Management
from rabbitry.exceptions import ConnectFailed
from rabbitry.runtime.logging import Level
from rabbitry.runtime.options import (
    Broker,
    ConnectAttempts,
    Json,
    LogJson,
    LogLevel,
    Plain,
    Strict,
    broker_url,
    start_logging,
)
from rabbitry.runtime.output import ExitCode, print_json
from rabbitry.runtime.service import run_once, run_service

if TYPE_CHECKING:
    from rabbitry.apps.queue_checks import Look
    from rabbitry.apps.workqueue.work import Progress, Worker

_IDLE: Final = 6.0
"""Seconds without a message after which the queue is checked: a broker's figures are up to 5 s old."""

_logger = logging.getLogger(__name__)
app: typer.Typer = typer.Typer()
Queue = Annotated[str, typer.Option(help="The queue.")]


@app.command("produce")
def produce_numbers(
    context: typer.Context,
    count: Annotated[int, typer.Option(min=1, help="How many numbers, starting at 0.")] = 100_001,
    queue: Queue = "worker_queue",
    *,
    plain: Plain = False,
    strict: Strict = False,
    broker: Broker = None,
    as_json: Json = False,
) -> None:
    """Publish the numbers 0 to 100000 as text; end when the broker has confirmed them all.

    Example: rabbitry workqueue produce
    """
    url = broker_url(context, broker)

    async def work() -> int:
        from rabbitry.apps.workqueue.work import produce

        await produce(url, _teller(as_json=as_json), count=count, queue=queue, plain=plain, strict=strict)
        return ExitCode.DONE

    raise typer.Exit(run_once(work()))


@app.command("consume")
def consume_numbers(
    context: typer.Context,
    queue: Queue = "worker_queue",
    prefetch: Annotated[
        int,
        typer.Option(
            min=1, max=65535, help="Unacknowledged messages at a time; consumers with equal values get equal shares."
        ),
    ] = 10,
    *,
    plain: Plain = False,
    strict: Strict = False,
    connect_attempts: ConnectAttempts = None,
    broker: Broker = None,
    management: Management = None,
    as_json: Json = False,
    log_level: LogLevel = Level.INFO,
    log_json: LogJson = False,
) -> None:
    """Take numbers and ack each, as one of any number of consumers, until SIGTERM or Ctrl-C.

    If the queue has messages and none arrives, it prints why, as far as the broker's management API shows it.

    Example: rabbitry workqueue consume
    """
    start_logging(log_level, as_json=log_json)
    url = broker_url(context, broker)

    async def service(stop: asyncio.Event) -> int:
        from rabbitry.apps.workqueue.work import Worker
        from rabbitry.runtime.tasks import background

        worker = Worker(_teller(as_json=as_json), queue=queue, prefetch=prefetch, plain=plain, strict=strict)
        async with background(_watch(worker, queue, url, management)):
            await worker.run(url, stop, connect_attempts=connect_attempts)
        return ExitCode.DONE

    raise typer.Exit(run_service(service))


async def _watch(worker: Worker, queue: str, url: str, management: str | None) -> None:
    """Print once what is wrong with the queue while no message arrives. Ends if there is no management API."""
    from rabbitry.amqp.client import parse_url

    login, said = parse_url(url), set[str]()
    first: Look | None = None
    while True:
        done = worker.done
        await asyncio.sleep(_IDLE)
        if worker.done != done:
            first = None
            continue
        from rabbitry.apps.queue_checks import look, problems

        try:
            second = await look(management, login)
        except ConnectFailed as error:
            _logger.log(logging.DEBUG if management is None else logging.WARNING, "%s", error)
            return
        for problem in problems(first, second) if first is not None else ():
            if problem.queue == queue and problem.todo not in said:
                said.add(problem.todo)
                _logger.warning("queue '%s': %s: %s", queue, problem.what, problem.todo)
        first = second


def _teller(*, as_json: bool) -> Callable[[Progress], None]:
    """Return a function that prints progress: on a terminal it overwrites one line, else it prints a line each time."""
    end = "\r" if sys.stdout.isatty() else "\n"

    def tell(progress: Progress) -> None:
        if as_json:
            data = {"done": progress.done, "rate": round(progress.rate), "left": progress.left}
            print_json(data | {"shares": progress.shares})
            return
        left = "" if progress.left is None else f", {progress.left} left"
        total = sum(progress.shares.values()) or 1
        shares = "  ".join(f"{name} {done / total:.0%}" for name, done in sorted(progress.shares.items()))
        line = f"{progress.done} done, {progress.rate:.0f}/s{left}{'; ' + shares if shares else ''}"
        print(f"{line:<78}" if end == "\r" else line, end=end, flush=True)
        if end == "\r" and progress.left == 0 and not shares:
            print()

    return tell
