"""`rabbitry web`: the dashboard."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import TYPE_CHECKING, Annotated

import typer

from rabbitry.apps.management import Management
from rabbitry.cli import web_users
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
    UsersFile,
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
        help="The address to listen on; one that other machines can reach needs users or APP_PASSWORD.",
        show_default="127.0.0.1",
    ),
]
Port = Annotated[
    int | None,
    port_option("--port", "--web-port", help="The port; 0 takes a free one.", show_default="8003"),
]


Mask = Annotated[
    str | None,
    typer.Option(
        envvar="RABBITRY_MASK",
        metavar="NAMES",
        help="Names of fields that are masked in messages, with commas between them; an empty text for none.",
        show_default="password, token, authorization, …",
    ),
]
ReadOnly = Annotated[bool, typer.Option("--read-only", help="Nobody may change anything, whatever their role is.")]


def app() -> typer.Typer:
    """Return the command, with the options of the apps that are installed, and its subcommand `users`."""
    made = typer.Typer()
    made.callback(invoke_without_command=True)(with_app_options(serve, "router"))
    made.add_typer(web_users.app, name="users")
    return made


def serve(
    context: typer.Context,
    app_options: AppOptions,
    broker: Broker = None,
    host: Host = None,
    port: Port = None,
    management: Management = None,
    users: UsersFile = None,
    mask: Mask = None,
    *,
    read_only: ReadOnly = False,
    plain: Plain = False,
    env_file: EnvFile = None,
    log_level: LogLevel = Level.INFO,
    log_json: LogJson = False,
) -> None:
    """Serve the dashboard until SIGTERM or Ctrl-C. Once there are users, people have to sign in (docs/dashboard.md).

    Example: rabbitry web --broker amqp://rabbit.example/ --port 8003
    """
    if context.invoked_subcommand is not None:
        return
    start_logging(log_level, as_json=log_json)
    from rabbitry.apps import Site
    from rabbitry.apps.settings import from_environment, variables
    from rabbitry.apps.users_file import chosen_file, has_users
    from rabbitry.telemetry import Masking
    from rabbitry.web.login.gate import Access
    from rabbitry.web.login.oidc.settings import provider_of
    from rabbitry.web.server import PORT, create_app, mounts, open_history

    url = None if broker is None else broker_url(context, broker)
    found = variables(env_file)
    file = chosen_file(users or found.get("RABBITRY_WEB_USERS"))
    provider = provider_of(found)
    has_login = has_users(file) or provider is not None
    settings = from_environment(found, default_port=PORT, broker=url, host=host, port=port, has_login=has_login)
    masking = Masking() if mask is None else Masking(mask.split(","))
    access = Access(password=settings.password, users=file, masking=masking, is_read_only=read_only, provider=provider)
    listeners = inherit_or_listen(settings.host, settings.port)
    refusals = _Refusals()
    site = Site(broker=settings.broker, plain=plain, variables=found, refused=refusals)
    history = open_history(settings.broker)
    mounted = mounts(site, app_options, history)
    api = management or found.get("RABBITRY_MANAGEMENT")
    dashboard = create_app(settings, mounted, api, history, access)
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
