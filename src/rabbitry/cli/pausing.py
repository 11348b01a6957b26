"""`rabbitry pause`, `resume` and `paused`: pause and resume stages, and list the paused ones."""

from __future__ import annotations

import contextlib
import getpass
import os
import sys
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

import typer

from rabbitry.apps.management import Management, get, management_url, open_client
from rabbitry.cli._apps import AppName, load_app
from rabbitry.runtime.options import Broker, Json, broker_url
from rabbitry.runtime.output import ExitCode, one_line, print_json, say
from rabbitry.runtime.service import run_once

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from rabbitry.amqp.client import Connection
    from rabbitry.flow.wiring.pausing import Pause

app: typer.Typer = typer.Typer()
StageName = Annotated[str, typer.Argument(metavar="STAGE", help="The stage's name.")]


@app.command("pause")
def pause(
    context: typer.Context,
    name: AppName,
    stage: StageName,
    why: Annotated[str, typer.Option(help="The reason, shown to others.", show_default=False)] = "",
    broker: Broker = None,
    *,
    as_json: Json = False,
) -> None:
    """Pause a stage: its workers finish what is in hand and take nothing more, until it is resumed.

    Example: rabbitry pause shop bill --why "the bank is down"
    """

    async def work() -> int:
        from rabbitry.amqp.client import connect
        from rabbitry.flow.message import node_name
        from rabbitry.flow.wiring import pausing

        app = _named(name, stage)
        async with connect(broker_url(context, broker), name="rabbitry pause", recover=False) as connection:
            found, is_new = await pausing.pause(connection, app, stage, by=f"{_user()}@{node_name()}", why=why)
        if as_json:
            print_json({**_described(found), "paused": is_new})
        else:
            print(f"paused {app} {stage}" if is_new else f"already paused: {_text(found)}")
        return ExitCode.DONE

    raise typer.Exit(run_once(work()))


@app.command("resume")
def resume(
    context: typer.Context, name: AppName, stage: StageName, broker: Broker = None, *, as_json: Json = False
) -> None:
    """Resume a stage that is paused.

    Example: rabbitry resume shop bill
    """

    async def work() -> int:
        from rabbitry.amqp.client import connect
        from rabbitry.flow.wiring import pausing

        app = _named(name, stage)
        async with connect(broker_url(context, broker), name="rabbitry resume", recover=False) as connection:
            was_paused = await pausing.resume(connection, app, stage)
        if as_json:
            print_json({"app": app, "stage": stage, "resumed": was_paused})
        else:
            print(f"resumed {app} {stage}" if was_paused else f"{app} {stage} was not paused")
        return ExitCode.DONE

    raise typer.Exit(run_once(work()))


@app.command("paused")
def list_paused(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Argument(metavar="[APP]", help="The app's name, or MODULE:APP.", show_default=False)
    ] = None,
    broker: Broker = None,
    management: Management = None,
    *,
    as_json: Json = False,
) -> None:
    """List the stages that are paused, by whom, since when and why.

    With MODULE:APP the stages are those of the app; otherwise the broker's management API lists them.

    Example: rabbitry paused shop.flow:app
    """

    async def work() -> int:
        from rabbitry.amqp.client import connect

        async with connect(broker_url(context, broker), name="rabbitry paused", recover=False) as connection:
            found = [one async for one in _found(connection, name, management)]
        for one in found:
            if as_json:
                print_json(_described(one))
            else:
                print(_text(one))
        if not found and not as_json:
            say("no stage is paused")
        return ExitCode.DONE

    raise typer.Exit(run_once(work()))


async def _found(connection: Connection, name: str | None, management: str | None) -> AsyncIterator[Pause]:
    """Yield the pauses of an app's stages, or of all apps."""
    from rabbitry.flow.wiring.pausing import NoSuchStage, paused

    for app, stage in await _stages(connection, name, management):
        with contextlib.suppress(NoSuchStage):  # no worker has run yet
            if (found := await paused(connection, app, stage)) is not None:
                yield found


async def _stages(connection: Connection, name: str | None, management: str | None) -> list[tuple[str, str]]:
    """Return apps and stages: those of the module's app, or those that have a queue of pauses on the broker."""
    if name is not None and ":" in name:
        flow = load_app(name)
        return [(flow.name, stage) for stage in flow.stages]
    from rabbitry.flow.wiring.pausing import paused_stage

    login = connection.url
    async with open_client(management_url(management, login), login) as client:
        queues = await get(client, f"/api/queues/{quote(login.virtual_host, safe='')}?columns=name")
    found = [paused_stage(str(queue.get("name", ""))) for queue in queues]
    return sorted(one for one in found if one is not None and name in (None, one[0]))


def _named(name: str, stage: str) -> str:
    """Return the app's name. Raises UsageError for a stage that the app of MODULE:APP does not have."""
    if ":" not in name:
        return name
    flow = load_app(name)
    flow.spec().select([stage])
    return flow.name


def _user() -> str:
    try:
        return getpass.getuser()
    except (ImportError, KeyError, OSError):  # a container's user without a name
        if sys.platform == "win32":
            return "unknown"
        else:
            return str(os.getuid())


def _described(pause: Pause) -> dict[str, str]:
    return {"app": pause.app, "stage": pause.stage, "by": pause.by, "at": pause.at, "why": pause.why}


def _text(pause: Pause) -> str:
    by = f", by {pause.by}" if pause.by else ""
    at = f", at {pause.at}" if pause.at else ""
    why = f": {pause.why}" if pause.why else ""
    return one_line(f"{pause.app} {pause.stage}{at}{by}{why}")
