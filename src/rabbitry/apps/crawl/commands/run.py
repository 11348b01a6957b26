"""`rabbitry crawl run`: all roles on one machine."""

from __future__ import annotations

import typer

from rabbitry._version import __version__
from rabbitry.apps.crawl.commands._roles import DEADLINE, run_role
from rabbitry.apps.crawl.commands.crawler import AllowPrivate, BandwidthLimit, CPULimit, Hosts, bytes_a_second, networks
from rabbitry.apps.crawl.commands.keeper import PerHost
from rabbitry.apps.crawl.commands.processor import Processes
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


def add_to(app: typer.Typer) -> None:
    """Add the command to `rabbitry crawl`."""
    app.command("run")(run)


def run(
    context: typer.Context,
    allow_private: AllowPrivate = None,
    cpu_limit: CPULimit = None,
    bandwidth: BandwidthLimit = None,
    concurrency: Hosts = 100,
    processes: Processes = 1,
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
    """Run a crawler, a processor and a keeper on this machine, until SIGTERM or Ctrl-C.

    More of each may join from other machines at any time. Start a crawl with `rabbitry crawl add`.

    Example: rabbitry crawl run --allow-private 10.0.0.0/8
    """
    from rabbitry.apps.crawl.crawler.service import Options as CrawlerOptions
    from rabbitry.apps.crawl.keeper.service import Options as KeeperOptions
    from rabbitry.apps.crawl.service import Options, run

    start_logging(log_level, as_json=log_json)
    options = Options(
        CrawlerOptions(networks(allow_private), cpu_limit, bytes_a_second(bandwidth), concurrency, plain),
        KeeperOptions(database, per_host, plain),
        processes,
    )
    url = broker_url(context, broker)

    run_role(
        lambda stop: run(
            options,
            url,
            __version__,
            stop,
            strict=strict,
            connect_attempts=connect_attempts,
            deadline=DEADLINE,
            started=ready,
        )
    )
