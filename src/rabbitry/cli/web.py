"""`rabbitry web`: the dashboard."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import TYPE_CHECKING, Annotated

import typer

from rabbitry.apps.management import Management
from rabbitry.cli._app_options import AppOptions, with_app_options
from rabbitry.runtime.addresses import in_url
from rabbitry.runtime.listening import inherit_or_listen
from rabbitry.runtime.logging import Level
from rabbitry.runtime.options import (
    Broker,
    EnvFile,
    LogJson,
    LogLevel,
    Plain,
    broker_url,
    port_option,
    start_logging,
)
from rabbitry.runtime.output import ExitCode
from rabbitry.runtime.parent import ready
from rabbitry.runtime.service import run_service

if TYPE_CHECKING:
    from fastapi import FastAPI

    from rabbitry.apps.settings import Settings
    from rabbitry.exceptions import ConnectFailed

_logger = logging.getLogger(__name__)

Host = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="The address to listen on; one that other machines can reach needs APP_PASSWORD.",
        show_default="127.0.0.1",
    ),
]
Port = Annotated[
    int | None,
    port_option("--port", "--web-port", help="The port; 0 takes a free one.", show_default="8003"),
]


def app() -> typer.Typer:
    """Return the command, with the options of the apps that are installed."""
    made = typer.Typer()
    made.command("web")(with_app_options(serve, "router"))
    return made


def serve(
    context: typer.Context,
    app_options: AppOptions,
    broker: Broker = None,
    host: Host = None,
    port: Port = None,
    management: Management = None,
    *,
    plain: Plain = False,
    env_file: EnvFile = None,
    log_level: LogLevel = Level.INFO,
    log_json: LogJson = False,
) -> None:
    """Serve the dashboard until SIGTERM or Ctrl-C. Set APP_PASSWORD in the environment to require a password.

    Example: rabbitry web --broker amqp://rabbit.example/ --port 8003
    """
    start_logging(log_level, as_json=log_json)
    from rabbitry.apps import Site
    from rabbitry.apps.settings import from_environment, variables
    from rabbitry.web.server import PORT, create_app, mounts, open_history

    url = None if broker is None else broker_url(context, broker)
    found = variables(env_file)
    settings = from_environment(found, default_port=PORT, broker=url, host=host, port=port)
    listeners = inherit_or_listen(settings.host, settings.port)
    refusals = _Refusals()
    site = Site(broker=settings.broker, plain=plain, variables=found, refused=refusals)
    history = open_history(settings.broker)
    mounted = mounts(site, app_options, history)
    dashboard = create_app(settings, mounted, management or found.get("RABBITRY_MANAGEMENT"), history)
    raise typer.Exit(run_service(lambda stop: _serve(dashboard, settings, listeners, refusals, stop)))


class _Refusals:
    """The broker's refusals of the login, each of which ends the dashboard."""

    def __init__(self) -> None:
        self.first: ConnectFailed | None = None
        self.stop: asyncio.Event | None = None

    def __call__(self, error: ConnectFailed) -> None:
        self.first = self.first or error
        if self.stop is not None:
            self.stop.set()


async def _serve(
    dashboard: FastAPI, settings: Settings, listeners: list[socket.socket], refusals: _Refusals, stop: asyncio.Event
) -> int:
    from rabbitry.runtime.http.serving import serve as serve_http

    refusals.stop = stop
    name = in_url(settings.host)
    _logger.info("dashboard on http://%s:%d/", name, listeners[0].getsockname()[1])
    await serve_http(dashboard, listeners, stop, ready)
    if refusals.first is not None:
        raise refusals.first
    return ExitCode.DONE
