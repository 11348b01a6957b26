"""`rabbitry dead list|show|replay|drop`: an app's dead letters."""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine
from contextlib import aclosing, contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rabbitry._ids import NoSuchID
from rabbitry.cli._apps import AppName, app_name
from rabbitry.exceptions import NotFound, RabbitryError, UsageError
from rabbitry.runtime.logging import redact
from rabbitry.runtime.options import Broker, Json, broker_url
from rabbitry.runtime.output import ExitCode, many_lines, one_line, print_json, say, warn
from rabbitry.runtime.service import run_once

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rabbitry.amqp.client import Connection
    from rabbitry.flow.wiring.dead_letters import DeadLetter, Which

app: typer.Typer = typer.Typer()
Id = Annotated[
    str | None, typer.Option("--id", help="The one with this message id, or its unique prefix.", show_default=False)
]
Reason = Annotated[str | None, typer.Option(help="Those with this reason, e.g. failed.", show_default=False)]
Stage = Annotated[str | None, typer.Option(help="Those of this stage.", show_default=False)]
All = Annotated[bool, typer.Option("--all", help="All of them.")]


@app.command("list")
def list_(
    context: typer.Context,
    name: AppName,
    reason: Reason = None,
    stage: Stage = None,
    broker: Broker = None,
    *,
    as_json: Json = False,
) -> None:
    """List dead letters, oldest first, without removing any.

    Example: rabbitry dead list shop --reason failed
    """
    wanted = _which(None, reason, stage, everything=True)

    async def work(connection: Connection, app: str) -> int:
        from rabbitry.flow.wiring.dead_letters import letters

        is_empty = True
        async for letter in letters(connection, app, wanted):
            is_empty = False
            if as_json:
                print_json(_described(letter))
            else:
                print(one_line(f"{letter.id}  {letter.failed_at}  {letter.stage}  {letter.reason}  {letter.error}"))
        if is_empty and not as_json:
            say(f"no dead letters of {app}" if reason is None and stage is None else f"no such dead letters of {app}")
        return ExitCode.DONE

    raise typer.Exit(run_once(_connected(context, broker, name, work)))


@app.command("show")
def show(
    context: typer.Context,
    name: AppName,
    id: Annotated[str, typer.Argument(metavar="ID", help="The message's id, or its unique prefix.")],
    broker: Broker = None,
    *,
    as_json: Json = False,
) -> None:
    """Show one dead letter with its traceback and its body, without removing it.

    Example: rabbitry dead show shop 3f2a
    """

    async def work(connection: Connection, app: str) -> int:
        from rabbitry.flow.wiring.dead_letters import letters

        wanted = await _chosen(connection, app, id, None, None, everything=False)
        async with aclosing(letters(connection, app, wanted)) as found:
            async for letter in found:
                _print_whole(letter, as_json=as_json)
                return ExitCode.DONE
        raise NoSuchID(f"the dead letter {id!r} of app {app!r} was removed just now")

    raise typer.Exit(run_once(_connected(context, broker, name, work)))


@app.command("replay")
def replay(
    context: typer.Context,
    name: AppName,
    id: Id = None,
    reason: Reason = None,
    stage: Stage = None,
    *,
    all_: All = False,
    broker: Broker = None,
    as_json: Json = False,
) -> None:
    """Publish dead letters to the queues in which they failed, and remove each once the broker has confirmed it.

    Exit code 1 if some could not be published; these stay. Example: rabbitry dead replay shop --stage validate
    """
    _which(id, reason, stage, everything=all_)

    async def work(connection: Connection, app: str) -> int:
        from rabbitry.flow.wiring.dead_letters import replay

        wanted = await _chosen(connection, app, id, reason, stage, everything=all_)
        with _progress() as told:
            replayed, problems = await replay(connection, app, wanted, told)
        for problem in problems:
            warn(problem)
        _say("replayed", replayed, as_json=as_json)
        return ExitCode.FAILED if problems else ExitCode.DONE

    raise typer.Exit(run_once(_connected(context, broker, name, work)))


@app.command("drop")
def drop(
    context: typer.Context,
    name: AppName,
    id: Id = None,
    reason: Reason = None,
    stage: Stage = None,
    *,
    all_: All = False,
    broker: Broker = None,
    as_json: Json = False,
) -> None:
    """Delete dead letters for good.

    Example: rabbitry dead drop shop --id 3f2a
    """
    _which(id, reason, stage, everything=all_)

    async def work(connection: Connection, app: str) -> int:
        from rabbitry.flow.wiring.dead_letters import drop

        wanted = await _chosen(connection, app, id, reason, stage, everything=all_)
        _say("dropped", await drop(connection, app, wanted), as_json=as_json)
        return ExitCode.DONE

    raise typer.Exit(run_once(_connected(context, broker, name, work)))


def _print_whole(letter: DeadLetter, *, as_json: bool) -> None:
    data = _described(letter)
    if as_json:
        print_json(data)
        return
    for field, value in data.items():
        if field not in ("traceback", "body"):
            print(f"{field:15} {one_line(str(value))}")
    print(redact(many_lines(letter.traceback)))
    print(one_line(str(data["body"])) if sys.stdout.isatty() else str(data["body"]))


def _which(id: str | None, reason: str | None, stage: str | None, *, everything: bool) -> Which:
    from rabbitry.flow.wiring.dead_letters import which

    try:
        return which(id=id, reason=reason, stage=stage, everything=everything)
    except UsageError as error:
        raise UsageError(f"{error}: --id, --reason, --stage or --all") from error


async def _chosen(
    connection: Connection, app: str, id: str | None, reason: str | None, stage: str | None, *, everything: bool
) -> Which:
    """Choose dead letters, and complete an abbreviated id. Raises NoSuchID."""
    from rabbitry.flow.wiring.dead_letters import find_id

    whole = None if id is None else await find_id(connection, app, id)
    return _which(whole, reason, stage, everything=everything)


async def _connected(
    context: typer.Context,
    broker: str | None,
    name: str,
    work: Callable[[Connection, str], Coroutine[Any, Any, int]],
) -> int:
    from rabbitry.amqp.client import connect

    app = app_name(name)
    async with connect(broker_url(context, broker), name="rabbitry dead", recover=False) as connection:
        try:
            return await work(connection, app)
        except NotFound as error:
            raise RabbitryError(f"app {app!r} has no dead letters here: {error.reply_text}") from error


def _described(letter: DeadLetter) -> dict[str, Any]:
    import base64
    from dataclasses import asdict

    data = asdict(letter)
    try:
        data["body"] = letter.body.decode()
    except UnicodeDecodeError:
        data["body"] = base64.b64encode(letter.body).decode()
        data["body_encoding"] = "base64"
    return data


def _say(what: str, number: int, *, as_json: bool) -> None:
    if as_json:
        print_json({what: number})
    else:
        print(f"{what} {number}")


@contextmanager
def _progress() -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("replayed"), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as bar:
        task = bar.add_task("replayed", total=None)
        yield lambda done: bar.update(task, completed=done)
