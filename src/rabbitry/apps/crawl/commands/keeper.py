"""`rabbitry crawl keeper`, and the option for its database."""

from __future__ import annotations

from typing import Annotated

import typer

from rabbitry.apps.crawl.commands._roles import DEADLINE, run_role
from rabbitry.runtime.logging import Level
from rabbitry.runtime.options import (
    Broker,
    ConnectAttempts,
    DatabaseURL,
    LogJson,
    LogLevel,
    Plain,
    Strict,
    broker_url,
    start_logging,
)
from rabbitry.runtime.parent import ready

PerHost = Annotated[
    int,
    typer.Option("--per-host", min=1, max=100, metavar="N", help="How many crawlers may fetch from one host at once."),
]


def add_to(app: typer.Typer) -> None:
    """Add the command to `rabbitry crawl`."""
    app.command("keeper")(keeper)


def keeper(
    context: typer.Context,
    database: DatabaseURL = None,
    per_host: PerHost = 1,
    *,
    plain: Plain = False,
    strict: Strict = False,
    connect_attempts: ConnectAttempts = None,
    broker: Broker = None,
    log_level: LogLevel = Level.INFO,
    log_json: LogJson = False,
) -> None:
    """Manage the crawl: decide what to fetch next and store the index, until SIGTERM or Ctrl-C.

    Of several keepers with the same database one is active; the others stand by, and answer queries.

    Example: rabbitry crawl keeper --database postgresql://crawl@db/crawl
    """
    from rabbitry.apps.crawl.keeper.service import Options, run

    start_logging(log_level, as_json=log_json)
    options = Options(database, per_host, plain)
    url = broker_url(context, broker)

    run_role(
        lambda stop: run(
            options, url, stop, strict=strict, connect_attempts=connect_attempts, deadline=DEADLINE, started=ready
        )
    )
