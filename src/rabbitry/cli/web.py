"""`rabbitry web`: the dashboard."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rabbitry.apps.grading.commands.options import ExchangeType, Type
from rabbitry.cli.broker import LISTENER
from rabbitry.runtime.logging import Level
from rabbitry.runtime.options import Broker, LogJson, LogLevel, Plain, broker_url, start_logging
from rabbitry.runtime.output import ExitCode
from rabbitry.runtime.parent import ready
from rabbitry.runtime.service import run_service

if TYPE_CHECKING:
    from rabbitry.exceptions import ConnectFailed

log = logging.getLogger("rabbitry.cli.web")
app = typer.Typer()


@app.command("web")
def serve(
    context: typer.Context,
    broker: Broker = None,
    host: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Where to listen; another address than this machine's own needs APP_PASSWORD.",
            show_default="127.0.0.1",
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            "--port",
            "--web-port",
            metavar="PORT",
            min=0,
            max=65535,
            help="The port; 0 takes a free one.",
            show_default="8003",
        ),
    ] = None,
    queue: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The exclusive queue that samples come to; '' lets the broker name one.",
            show_default="QUEUE_NAME, or Consumer",
        ),
    ] = None,
    exchange_type: Type = ExchangeType.DIRECT,
    plain: Plain = False,
    env_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Settings, see docs/monitor.md.", show_default=".env")
    ] = None,
    log_level: LogLevel = Level.INFO,
    log_json: LogJson = False,
) -> None:
    """Serve the dashboard until SIGTERM or Ctrl-C. APP_PASSWORD in the environment asks for a password.

    Example: rabbitry web --broker amqp://rabbit.example/ --port 8003
    """  # fmt: skip
    start_logging(log_level, log_json)
    from rabbitry.apps._listening import listen
    from rabbitry.apps._serving import serve as serve_http
    from rabbitry.apps.grading.stages import Wiring
    from rabbitry.apps.monitor.settings import from_environment, variables
    from rabbitry.web.server import PORT, create_app

    url = None if broker is None else broker_url(context, broker)
    settings = from_environment(variables(env_file), default_port=PORT, broker=url, host=host, port=port)
    if queue is not None:
        settings = replace(settings, queue=queue)
    wiring = Wiring(exchange_type=exchange_type.value, plain=plain)
    inherited = os.environ.pop(LISTENER, None)
    listeners = listen(settings.host, settings.port) if inherited is None else [socket.socket(fileno=int(inherited))]
    name = f"[{settings.host}]" if ":" in settings.host else settings.host

    async def service(stop: asyncio.Event) -> int:
        refusals: list[ConnectFailed] = []

        def refused(error: ConnectFailed) -> None:
            refusals.append(error)
            stop.set()

        log.info("dashboard on http://%s:%d/", name, listeners[0].getsockname()[1])
        await serve_http(create_app(settings, wiring=wiring, refused=refused), listeners, stop, ready)
        if refusals:
            raise refusals[0]
        return ExitCode.DONE

    raise typer.Exit(run_service(service))
