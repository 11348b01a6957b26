"""`rabbitry crawl processor`."""

from __future__ import annotations

from typing import Annotated

import typer

from rabbitry.apps.crawl.commands._roles import DEADLINE, run_role
from rabbitry.runtime.logging import Level
from rabbitry.runtime.options import (
    Broker,
    ConnectAttempts,
    LogJson,
    LogLevel,
    Plain,
    Strict,
    broker_url,
    start_logging,
)
from rabbitry.runtime.parent import ready

Processes = Annotated[int, typer.Option(min=1, help="Processes that read pages, one for each CPU to use.")]


def add_to(app: typer.Typer) -> None:
    """Add the command to `rabbitry crawl`."""
    app.command("processor")(processor)


def processor(
    context: typer.Context,
    processes: Processes = 1,
    *,
    plain: Plain = False,
    strict: Strict = False,
    connect_attempts: ConnectAttempts = None,
    broker: Broker = None,
    log_level: LogLevel = Level.INFO,
    log_json: LogJson = False,
) -> None:
    """Process pages of any program's crawlers: publish title, text, language and links, until SIGTERM or Ctrl-C.

    It stores nothing and needs no configuration: start any number of them, anywhere, at any time.

    Example: rabbitry crawl processor --processes 4
    """
    from rabbitry.apps.crawl.processor.service import run

    start_logging(log_level, as_json=log_json)
    url = broker_url(context, broker)

    run_role(
        lambda stop: run(
            url,
            stop,
            processes=processes,
            plain=plain,
            strict=strict,
            connect_attempts=connect_attempts,
            deadline=DEADLINE,
            started=ready,
        )
    )
