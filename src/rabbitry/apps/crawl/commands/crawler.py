"""`rabbitry crawl crawler`, and the options for a crawler's limits."""

from __future__ import annotations

import math
import re
from typing import Annotated, Final

import typer

from rabbitry._version import __version__
from rabbitry.apps.crawl.commands._roles import DEADLINE, run_role
from rabbitry.exceptions import UsageError
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

_RATE: Final = re.compile(r"(\d{1,15}(?:\.\d{1,6})?) ?([kKMG]i?)?B?(?:/s)?")
_FACTORS: Final = {None: 1, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "ki": 2**10, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}

AllowPrivate = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-private",
        metavar="NETWORK",
        help="A private network that may be crawled, e.g. 10.1.0.0/16; may be repeated, or several with commas.",
        show_default=False,
    ),
]


def _no_nan(share: float | None) -> float | None:
    """Return the value of `--cpu-limit`; NaN passes a `min` check and is refused here."""
    if share is not None and math.isnan(share):
        raise typer.BadParameter("nan is not a number")
    return share


CPULimit = Annotated[
    float | None,
    typer.Option(
        "--cpu-limit",
        metavar="SHARE",
        min=0.01,
        callback=_no_nan,
        help="The share of one CPU core that it may use, e.g. 0.25.",
        show_default=False,
    ),
]
BandwidthLimit = Annotated[
    str | None,
    typer.Option(
        "--bandwidth",
        metavar="BYTES/s",
        help="The most bytes a second over the network, e.g. 500k, 2M or 1Mi.",
        show_default=False,
    ),
]
Hosts = Annotated[int, typer.Option("--concurrency", min=1, help="The number of hosts to fetch from at once.")]


def networks(given: list[str] | None) -> list[str]:
    """Return the networks of all `--allow-private` options."""
    return [part for text in given or () for part in re.split(r"[,\s]+", text) if part]


def bytes_a_second(text: str | None) -> float | None:
    """Return the value of `--bandwidth`. Raises UsageError."""
    if text is None:
        return None
    found = _RATE.fullmatch(text.strip())
    rate = float(found[1]) * _FACTORS[found[2]] if found else 0.0
    if rate <= 0:
        raise UsageError(f"'{text}' is not a number of bytes a second: use e.g. 500k, 2M or 1Mi")
    return rate


def add_to(app: typer.Typer) -> None:
    """Add the command to `rabbitry crawl`."""
    app.command("crawler")(crawler)


def crawler(
    context: typer.Context,
    allow_private: AllowPrivate = None,
    cpu_limit: CPULimit = None,
    bandwidth: BandwidthLimit = None,
    concurrency: Hosts = 100,
    *,
    plain: Plain = False,
    strict: Strict = False,
    connect_attempts: ConnectAttempts = None,
    broker: Broker = None,
    log_level: LogLevel = Level.INFO,
    log_json: LogJson = False,
) -> None:
    """Fetch the addresses that keepers send, and publish the pages, until SIGTERM or Ctrl-C.

    It stores nothing and needs no configuration: start any number of them, anywhere, at any time.

    Example: rabbitry crawl crawler --cpu-limit 0.25 --bandwidth 2M
    """
    from rabbitry.apps.crawl.crawler.service import Options, run

    start_logging(log_level, as_json=log_json)
    options = Options(networks(allow_private), cpu_limit, bytes_a_second(bandwidth), concurrency, plain)
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
