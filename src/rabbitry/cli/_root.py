"""The table of subcommands, of which only the one asked for is imported, and what becomes of errors."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Annotated

import typer

from rabbitry import __version__
from rabbitry.exceptions import ConnectionClosed, RabbitryError, RequestTimeout
from rabbitry.runtime.output import ExitCode, exit_code, say_last
from rabbitry.runtime.parent import parent

COMMANDS: Mapping[str, str] = MappingProxyType(
    {
        "up": "Run broker, this machine's agent and the dashboard until Ctrl-C.",
        "broker": "Run the embedded AMQP broker.",
        "web": "Serve the dashboard.",
        "worker": "Run an app's stages.",
        "publish": "Publish JSON lines to an app.",
        "dead": "Look at an app's dead letters, replay and drop them.",
        "topology": "Show, check and export what an app needs on the broker.",
        "grading": "Assignments: submitted, corrected, validated, confirmed.",
        "crawl": "Web sites: fetched by some machines, processed by others, searched.",
        "workqueue": "A hundred thousand messages for any number of consumers.",
        "monitor": "Publish this machine's samples; see statistics.",
        "queues": "List the broker's queues.",
        "exchanges": "List the broker's exchanges.",
        "bindings": "List the broker's bindings.",
        "connections": "List the broker's connections.",
        "channels": "List the broker's channels.",
        "consumers": "List the broker's consumers.",
        "doctor": "Find out why nothing arrives, and what to do about it.",
        "version": "Print the version.",
    }
)
"""Name → help of each subcommand; `rabbitry.cli.NAME` holds it as `app`, a `typer.Typer`."""
_LISTINGS: frozenset[str] = frozenset({"queues", "exchanges", "bindings", "connections", "channels", "consumers"})
"""Subcommands that stand beside each other in `rabbitry.cli.listings`."""


def run(arguments: Sequence[str]) -> int:
    """Run the command line and return its exit code.

    A `RabbitryError` becomes one line on stderr; any other error is a defect, and its traceback is shown.
    """
    wanted = next((word for word in arguments if not word.startswith("-")), None)
    try:
        root = build(wanted)
        root(args=list(arguments), prog_name="rabbitry")
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else ExitCode.FAILED
    except RabbitryError as error:
        say_last(str(error), is_transient=isinstance(error, ConnectionClosed | RequestTimeout))
        return exit_code(error)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "rabbitry":
            raise
        from rabbitry._installing import extra_of, missing

        say_last(missing(f"`rabbitry {wanted}`", error, extra_of(wanted)))
        return ExitCode.FAILED
    except Exception as error:
        if parent() is not None:  # which prints it once more, as the last line
            say_last(f"{type(error).__name__}: {error}")
        raise
    return ExitCode.DONE


def build(wanted: str | None) -> typer.Typer:
    """The root command, with `wanted` mounted and placeholders that carry only their help for the others.

    Importing all of them would cost `rabbitry --help` and `rabbitry broker` half a second for nothing.
    """
    # Plain help: Rich's boxes would cost each start 0.1 s, and break an error over several lines.
    root = typer.Typer(
        help="AMQP messages over any broker, a broker where there is none, and a live view of your machines.",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    root.callback()(_options)
    if wanted in _LISTINGS:
        root.add_typer(importlib.import_module("rabbitry.cli.listings").app)
    for name, text in COMMANDS.items():
        if wanted in _LISTINGS and name in _LISTINGS:
            continue
        if name != wanted:
            root.command(name, help=text)(_placeholder)
            continue
        app: typer.Typer = importlib.import_module(f"rabbitry.cli.{name}").app
        if len(app.registered_commands) == 1 and app.registered_callback is None:
            root.add_typer(app)  # without a name: its command stands beside the others
        elif app.registered_callback is not None and app.registered_callback.invoke_without_command is True:
            root.add_typer(app, name=name)  # a command of its own that has subcommands too
        else:
            root.add_typer(app, name=name, help=text, no_args_is_help=True)
    return root


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"rabbitry {__version__}")
        raise typer.Exit


def _options(
    _: Annotated[
        bool,
        typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version),
    ] = False,
) -> None:
    """Options that stand before the subcommand."""


def _placeholder() -> None:
    """What a command is until it is called; it never is, since `build` mounts the one that is called."""
