"""Printing data and errors of commands, and their exit codes.

This module imports nothing heavy, since every start of `rabbitry` would pay for it.
"""

from __future__ import annotations

import json
import sys
import unicodedata
from enum import IntEnum
from typing import Any, NoReturn

import typer

from rabbitry.exceptions import ConnectFailed, RabbitryError, UsageError
from rabbitry.runtime.logging import redact
from rabbitry.runtime.parent import Report, parent


class ExitCode(IntEnum):
    """The exit codes of `rabbitry`."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    BROKER = 3
    """The broker is unreachable, or refused the login or the virtual host."""
    INTERRUPTED = 130
    """Interrupted twice, or once in a command whose work is then left undone."""


def exit_code(error: RabbitryError) -> ExitCode:
    """Return the exit code for an error that ends a command."""
    if isinstance(error, ConnectFailed):
        return ExitCode.BROKER
    if isinstance(error, UsageError):
        return ExitCode.USAGE
    return ExitCode.FAILED


def one_line(text: str) -> str:
    """Return `text` on one line, without control characters and passwords: text from a peer may hold both."""
    return redact("".join(map(_shown, text))).strip()


def many_lines(text: str) -> str:
    """Return `text` with its lines and indents, without characters that a terminal would act on."""
    lines = text.expandtabs(4).splitlines()
    return "\n".join("".join(map(_shown, line)) for line in lines)


def _shown(letter: str) -> str:
    """Return a letter that is safe on a terminal; one that hides or reorders others (UAX #9) becomes its number."""
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
    """Print why this process ends. A child of `rabbitry up` reports it to its parent, which prints it last.

    Args:
        what: What happened and what to do.
        is_transient: Whether another start may succeed.
    """
    above = parent()
    if above is None:
        say(what)
    else:
        above.report(Report(one_line(what), is_transient))


def fail(what: str, code: ExitCode = ExitCode.FAILED) -> NoReturn:
    """End the command with exit code `code` and one line on stderr that says what happened and what to do."""
    say_last(what)
    raise typer.Exit(code)


def print_json(data: dict[str, Any]) -> None:
    """Print one JSON object on one line of stdout, at once; see `json_line`."""
    print(json_line(data), flush=True)


def json_line(data: dict[str, Any]) -> str:
    """Return a JSON object as one line.

    Characters that a terminal would act on, and file names that are not valid UTF-8, are escaped.
    """
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    if not text.isprintable():
        text = "".join(letter if letter.isprintable() else json.dumps(letter)[1:-1] for letter in text)
    return text
