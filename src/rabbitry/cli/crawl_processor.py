"""`rabbitry crawl processor`."""

from __future__ import annotations

import asyncio
from typing import Annotated, Final

import typer

from rabbitry.cli._common import (
    Broker,
    ConnectAttempts,
    ExitCode,
    LogJson,
    LogLevel,
    Plain,
    Strict,
    broker_url,
    start_logging,
)
from rabbitry.cli._logging import Level
from rabbitry.cli._parent import ready
from rabbitry.cli._service import GRACE, run_service

DEADLINE: Final = 10.0
Processes = Annotated[int, typer.Option(min=1, help="How many processes read pages, one for each CPU to be used.")]


def add_to(app: typer.Typer) -> None:
    """Add the command to `rabbitry crawl`."""
    app.command("processor")(processor)


def processor(
    context: typer.Context,
    processes: Processes = 1,
    plain: Plain = False,
    strict: Strict = False,
    connect_attempts: ConnectAttempts = None,
    broker: Broker = None,
    log_level: LogLevel = Level.INFO,
    log_json: LogJson = False,
) -> None:
    """Read the pages of crawlers, of any program, and publish title, text, language and links, until SIGTERM or Ctrl-C.

    It keeps nothing and needs no configuration: start any number of them, anywhere, at any time.

    Example: rabbitry crawl processor --processes 4
    """
    from rabbitry.apps.crawl.processor.service import run

    start_logging(log_level, log_json)
    url = broker_url(context, broker)

    async def service(stop: asyncio.Event) -> int:
        is_done = await run(
            url,
            stop,
            processes=processes,
            plain=plain,
            strict=strict,
            connect_attempts=connect_attempts,
            deadline=DEADLINE,
            started=ready,
        )
        return ExitCode.DONE if is_done else ExitCode.FAILED

    raise typer.Exit(run_service(service, deadline=DEADLINE + 2 * GRACE))
