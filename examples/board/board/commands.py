"""`rabbitry board TEXT`, and what `rabbitry up` runs."""

import asyncio
import contextlib
from typing import Annotated

import typer

import rabbitry
from rabbitry.apps import Service, Services, Up
from rabbitry.runtime.logging import Level
from rabbitry.runtime.options import Broker, LogJson, LogLevel, as_arguments, broker_url, start_logging
from rabbitry.runtime.parent import ready
from rabbitry.runtime.service import run_service

app = typer.Typer()
Each = Annotated[float, typer.Option(help="Post it again after so many seconds; 0 posts it once.")]
Reminding = Annotated[float, typer.Option(min=0.1, help="Seconds between two reminders to drink.")]


@app.command()
def post(
    context: typer.Context,
    text: str,
    each: Each = 0,
    broker: Broker = None,
    log_level: LogLevel = Level.INFO,
    log_json: LogJson = False,
) -> None:
    """Put a note on the board."""
    start_logging(log_level, as_json=log_json)
    url = broker_url(context, broker)

    async def service(stop: asyncio.Event) -> int:
        async with rabbitry.connect(url) as connection:
            channel = await connection.channel()
            await channel.declare_exchange("board", "fanout", durable=True)
            ready()
            while not stop.is_set():
                await channel.publish(text.encode(), exchange="board", mandatory=False)
                if not each:
                    break
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), each)
        return 0

    raise typer.Exit(run_service(service))


def services(up: Up, remind_each: Reminding = 60) -> Services:
    """Return the process that reminds everybody to drink."""
    arguments = ("board", "drink some water", *as_arguments(each=remind_each))
    return Services(children=(Service(name="the reminder", arguments=arguments),) if up.is_wanted else ())
