"""`rabbitry cancel`: cancels a job of an app by its id."""

from __future__ import annotations

from typing import Annotated

import typer

from rabbitry.cli._apps import AppName, app_name
from rabbitry.runtime.options import Broker, Json, broker_url
from rabbitry.runtime.output import ExitCode, one_line, print_json
from rabbitry.runtime.service import run_once

app: typer.Typer = typer.Typer()


@app.command("cancel")
def cancel(
    context: typer.Context,
    name: AppName,
    id: Annotated[str, typer.Argument(metavar="ID", help="The id of the job's first message.")],
    broker: Broker = None,
    *,
    as_json: Json = False,
) -> None:
    """Cancel a job of an app with cancellable=True, before or while it is handled.

    The cancellation holds for 24 hours. Exit code 0 says that the broker keeps it, also if there is no such job.
    Example: rabbitry cancel shop 3f2a8c41d0b94e7f
    """
    raise typer.Exit(run_once(_cancel(broker_url(context, broker), app_name(name), id, as_json=as_json)))


async def _cancel(url: str, name: str, id: str, *, as_json: bool) -> int:
    from rabbitry.amqp.client import connect
    from rabbitry.flow.wiring import cancelling

    async with connect(url, name="rabbitry cancel", recover=False) as connection:
        await cancelling.cancel(connection, name, id)
    if as_json:
        print_json({"cancelled": id, "app": name})
    else:
        print(one_line(f"cancelled job {id} of {name}"))
    return ExitCode.DONE
