"""Options shared by the commands of grading, and their conversion."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from rabbitry.exceptions import UsageError

if TYPE_CHECKING:
    from rabbitry.apps.grading.stages import Wiring

EXCHANGE: Final = "assignment_exchange"


class ExchangeType(StrEnum):
    """The values of `--exchange-type`."""

    DIRECT = "direct"
    FANOUT = "fanout"


class RoleChoice(StrEnum):
    """The values of `--person`."""

    DEMONSTRATOR = "demonstrator"
    ASSISTANT = "assistant"
    COORDINATOR = "coordinator"


Config = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="The modules (TOML, see docs/grading.md). Default: RABBITRY_GRADING, then the user's grading.toml.",
        show_default=False,
    ),
]
ModuleName = Annotated[str, typer.Option("--module", metavar="NAME", help="The module.")]
ExchangeName = Annotated[str, typer.Option("--exchange", metavar="NAME", help="The exchange.")]
Type = Annotated[ExchangeType, typer.Option("--exchange-type", help="fanout: every role sees every message.")]
Person = Annotated[
    bool, typer.Option("--person", help="Keep arriving submissions in the inbox until a person decides.")
]
People = Annotated[
    list[RoleChoice] | None,
    typer.Option("--person", help="A role in which people decide; may be repeated.", show_default=False),
]

Remark = Annotated[str, typer.Option(metavar="TEXT", help="The reason, for the history.")]
KeptFiles = Annotated[
    str | None,
    typer.Option(
        "--files",
        envvar="RABBITRY_FILES",
        metavar="FOLDER|URL",
        help="Where submitted files are kept: a folder or s3://BUCKET. Default: a folder beside the database.",
        show_default=False,
    ),
]


KeyFile = Annotated[
    Path | None,
    typer.Option(
        "--key",
        envvar="RABBITRY_GRADING_KEY",
        metavar="FILE",
        help="The private key with which the roles sign (`rabbitry grading keys`). Default: they don't sign.",
        show_default=False,
    ),
]


def wiring_of(config: Path | None, exchange: str, type_: ExchangeType, *, plain: bool) -> Wiring:
    """Return the course and its exchange.

    Raises:
        UsageError: Queues can't be bound to the exchange.
    """
    from rabbitry.apps.grading.modules import load_course
    from rabbitry.apps.grading.stages import Wiring

    check_exchange(exchange)
    return Wiring(load_course(config), exchange, type_.value, plain)


def check_exchange(name: str) -> None:
    """Raise UsageError for the default exchange, to which nothing can be bound."""
    if not name:
        raise UsageError("queues can't be bound to the default exchange: pass another one with --exchange")


def time_of(option: str, text: str) -> str:
    """Return a time of a command line, which is this machine's unless it has an offset, in the form of the records.

    Args:
        option: The option, for the error.
        text: Its value.

    Raises:
        UsageError: It is not a time.
    """
    try:
        return datetime.fromisoformat(text).astimezone(UTC).isoformat(timespec="microseconds")
    except (ValueError, OverflowError) as error:
        raise UsageError(f"{option} {text!r} is not a time: write 2026-12-01 or 2026-12-01T09:00") from error
