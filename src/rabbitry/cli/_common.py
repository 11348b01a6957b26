"""The parts that all subcommands share: options, exit codes, and how data and errors are printed.

Kept free of heavy imports, since every start of `rabbitry` pays for them.
"""

from __future__ import annotations

import json
import re
import sys
import unicodedata
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from rabbitry._words import reason
from rabbitry.cli._logging import Level, configure, redact
from rabbitry.cli._parent import Report, parent
from rabbitry.exceptions import ConnectFailed, RabbitryError, Undecodable, UsageError

DEFAULT_BROKER = "amqp://guest:guest@127.0.0.1:5672/"


class ExitCode(IntEnum):
    """The exit codes of `rabbitry`."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    BROKER = 3
    """The broker is unreachable, or refused the login or the virtual host."""
    INTERRUPTED = 130
    """Interrupted twice, or once in a command whose work is then left undone."""


Broker = Annotated[
    str | None,
    typer.Option(
        "--broker",
        envvar="RABBITRY_BROKER",
        metavar="URL",
        help=f"The broker, amqp[s]://user:password@host:port/vhost; {DEFAULT_BROKER} where nothing is said.",
        show_default=False,
    ),
]
Plain = Annotated[
    bool,
    typer.Option(
        "--plain",
        help="Declare exchanges and queues as the original programs do, so that these can join (docs/originals.md).",
    ),
]
Strict = Annotated[
    bool, typer.Option("--strict", help="What exists on the broker with other flags is an error, and not used.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")]
ConnectAttempts = Annotated[
    int | None,
    typer.Option(
        "--connect-attempts",
        min=1,
        metavar="N",
        show_default=False,
        help="Give up, with exit code 3, after N attempts to connect that failed in a row; without it, never.",
    ),
]
LogLevel = Annotated[
    Level,
    typer.Option(
        "--log-level",
        envvar="RABBITRY_LOG_LEVEL",
        help="The least severe events that are logged.",
        case_sensitive=False,
    ),
]
LogJson = Annotated[bool, typer.Option("--log-json", envvar="RABBITRY_LOG_JSON", help="Log one JSON object a line.")]


def start_logging(level: Level, as_json: bool) -> None:
    """Send the log of this process to stderr. Each command that logs calls it first."""
    configure(level, as_json)


def broker_url(context: typer.Context, broker: str | None) -> str:
    """Return the URL to use: what `--broker` or RABBITRY_BROKER said, else the default.

    A password on the command line works, with a warning: other users of the machine can read it.
    """
    if broker is None:
        return DEFAULT_BROKER
    source = context.get_parameter_source("broker")
    if source is not None and source.name == "COMMANDLINE" and has_secret(broker):
        warn(
            "other users of this machine can see a password in --broker; "
            "put the URL into the environment as RABBITRY_BROKER instead"
        )
    return broker


def has_secret(url: str) -> bool:
    """Return whether a broker's URL holds a password other than the well-known `guest`."""
    found = re.match(r"amqps?://[^:/@]*:([^/]*)@", url)
    return found is not None and found[1] not in ("", "guest")


def read_password(file: Path) -> str:
    """Return the first line of a password file. Raises UsageError, which shows nothing of the file."""
    from rabbitry._decode import decode_text  # only few commands read a file

    try:
        return decode_text(file.read_bytes()).split("\n", 1)[0].rstrip("\r")
    except OSError as error:
        raise UsageError(f"the password file {file} can't be read: {reason(error)}") from error
    except Undecodable as error:
        raise UsageError(f"the password file {file} can't be read: it is no UTF-8 text") from error


def exit_code(error: RabbitryError) -> ExitCode:
    """Return the exit code that an error which ends a command stands for."""
    if isinstance(error, ConnectFailed):
        return ExitCode.BROKER
    if isinstance(error, UsageError):
        return ExitCode.USAGE
    return ExitCode.FAILED


def one_line(text: str) -> str:
    """Return `text` on one line, without control characters and passwords: text from a peer may hold both."""
    return redact("".join(map(_shown, text))).strip()


def many_lines(text: str) -> str:
    """Return `text` as it stands, indents and all, without what a terminal would act on."""
    lines = text.expandtabs(4).splitlines()
    return "\n".join("".join(map(_shown, line)) for line in lines)


def _shown(letter: str) -> str:
    """Return a letter as a terminal may have it; one that hides or turns others around (UAX #9) by its number."""
    if letter.isprintable():
        return letter
    return f"<U+{ord(letter):04X}>" if unicodedata.category(letter) == "Cf" else " "


def warn(what: str) -> None:
    """Print a warning on stderr, for a command that has no log (yet)."""
    say(f"warning: {what}")


def say(what: str) -> None:
    """Print a line on stderr: what happened and what to do."""
    print(f"rabbitry: {one_line(what)}", file=sys.stderr)


def say_last(what: str, *, is_transient: bool = False) -> None:
    """Print why this process ends. A child of `rabbitry up` tells its parent instead, which prints it last.

    is_transient: another start may go better.
    """
    above = parent()
    if above is None:
        say(what)
    else:
        above.report(Report(one_line(what), is_transient))


def fail(what: str, code: ExitCode = ExitCode.FAILED) -> NoReturn:
    """End the command: one line on stderr that says what happened and what to do, and `code`."""
    say_last(what)
    raise typer.Exit(code)


def print_json(data: dict[str, Any]) -> None:
    """Print one JSON object on one line of stdout, at once; see `json_line`."""
    print(json_line(data), flush=True)


def json_line(data: dict[str, Any]) -> str:
    """Return a JSON object as one line.

    What a terminal would act on, and what UTF-8 can't say (names of files), is escaped.
    """
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    if not text.isprintable():
        text = "".join(letter if letter.isprintable() else json.dumps(letter)[1:-1] for letter in text)
    return text


def version() -> str:
    """Return the version of the installed `rabbitry`."""
    from rabbitry import __version__

    return __version__
