"""The options that commands share, and functions that use their values.

This module imports nothing heavy, since every start of `rabbitry` would pay for it.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from rabbitry._words import reason
from rabbitry.exceptions import Undecodable, UsageError
from rabbitry.runtime.logging import Level, configure
from rabbitry.runtime.output import warn
from rabbitry.runtime.parent import DATABASE

LOG_LEVEL: Final = "RABBITRY_LOG_LEVEL"
LOG_JSON: Final = "RABBITRY_LOG_JSON"
"""Environment variables with the values of --log-level and --log-json."""
DEFAULT_BROKER = "amqp://guest:guest@127.0.0.1:5672/"


def broker_option(text: str) -> Any:
    """Return the option `--broker` with a help text, for a command to which it means more than to the others."""
    return typer.Option("--broker", envvar="RABBITRY_BROKER", metavar="URL", help=text, show_default=False)


def port_option(*names: str, help: str, show_default: str | bool = True) -> Any:
    """Return an option for a TCP port, where 0 takes a free one. names: as for `typer.Option`."""
    return typer.Option(*names, min=0, max=65535, metavar="PORT", help=help, show_default=show_default)


Broker = Annotated[
    str | None,
    broker_option(f"The broker, amqp[s]://user:password@host:port/vhost; {DEFAULT_BROKER} if nothing is said."),
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
EnvFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Settings, see docs/monitor.md.", show_default=".env")
]
PasswordFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="The file with the password, on its first line; else RABBITMQ_PASSWORD.",
        show_default=False,
    ),
]
UsersFile = Annotated[
    Path | None,
    typer.Option(
        "--users",
        envvar="RABBITRY_WEB_USERS",
        metavar="FILE",
        help="The file of the dashboard's users.",
        show_default="web-users.json in the user's data folder",
    ),
]
Memory = Annotated[bool, typer.Option("--memory", help="Keep everything in memory: it is lost when the process ends.")]
Offset = Annotated[int, typer.Option(min=0, max=1_000_000_000, metavar="N", help="How many to skip.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")]
DatabaseURL = Annotated[
    str | None,
    typer.Option(
        "--database",
        envvar=DATABASE,
        metavar="URL",
        help="sqlite:///FILE or postgresql://user@host/name; a file in the user's data folder otherwise.",
        show_default=False,
    ),
]
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
        envvar=LOG_LEVEL,
        help="The least severe events that are logged.",
        case_sensitive=False,
    ),
]
LogJson = Annotated[bool, typer.Option("--log-json", envvar=LOG_JSON, help="Log one JSON object a line.")]


def start_logging(level: Level, *, as_json: bool) -> None:
    """Send the log of this process to stderr. Each command that logs calls it first."""
    configure(level, as_json=as_json)


def broker_url(context: typer.Context, broker: str | None) -> str:
    """Return the broker's URL: that of `--broker` or RABBITRY_BROKER, or else the default.

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
        raise UsageError(f"the password file {file} can't be read: it is not UTF-8 text") from error


def named_database(context: typer.Context, url: str | None) -> str | None:
    """Return the database's URL if one was named, with a warning about a password on the command line."""
    source = context.get_parameter_source("database")
    if url is not None and source is not None and source.name == "COMMANDLINE" and _has_password(url):
        warn(
            "other users of this machine can see a password in --database; "
            f"put the URL into the environment as {DATABASE} instead"
        )
    return url


def _has_password(url: str) -> bool:
    authority = url.partition("://")[2].partition("/")[0]
    return "@" in authority and ":" in authority.rpartition("@")[0]


def same_arguments(context: typer.Context, *, without: Collection[str]) -> list[str]:
    """Return the arguments that the command line gave to this command, for another process of it.

    Those of the environment are left out, which the other process inherits.

    Args:
        context: The command's context.
        without: The names of parameters to leave out.
    """
    words: list[str] = []
    for parameter in context.command.params:
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        if name in without or source is None or source.name != "COMMANDLINE":
            continue
        given = context.params[name]
        if parameter.param_type_name == "argument":
            words += [str(value) for value in (given if isinstance(given, list | tuple) else [given])]
        elif given is False:
            words.append(parameter.secondary_opts[0])
        else:
            words += _words(parameter.opts[0], given)
    return words


def as_arguments(**options: object) -> tuple[str, ...]:
    """Return options, named as the parameters of a command, as arguments for another process.

    True is a flag; False and None are left out; each item of a list or tuple is an option of its own.
    """
    return tuple(word for name, value in options.items() for word in _words(f"--{name.replace('_', '-')}", value))


def _words(option: str, given: object) -> list[str]:
    if given is None or given is False:
        return []
    if given is True:
        return [option]
    values = given if isinstance(given, list | tuple) else [given]
    return [word for value in values for word in (option, str(value.value if isinstance(value, Enum) else value))]
