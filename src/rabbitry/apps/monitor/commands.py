"""`rabbitry monitor publish` and `rabbitry monitor stats`: contracts `pi_utilization` and `system_info`."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Coroutine, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rabbitry.exceptions import UsageError
from rabbitry.runtime.logging import Level
from rabbitry.runtime.options import (
    DEFAULT_BROKER,
    ConnectAttempts,
    EnvFile,
    Json,
    LogJson,
    LogLevel,
    PasswordFile,
    Plain,
    Strict,
    broker_option,
    broker_url,
    port_option,
    read_password,
    start_logging,
)
from rabbitry.runtime.output import ExitCode, warn
from rabbitry.runtime.parent import ready
from rabbitry.runtime.service import run_service

if TYPE_CHECKING:
    from socket import socket

    from rabbitry.amqp.client import BrokerURL
    from rabbitry.apps.monitor.agent import Publisher
    from rabbitry.apps.monitor.settings import Settings

_logger = logging.getLogger(__name__)
app: typer.Typer = typer.Typer()

BrokerOption = Annotated[
    str | None,
    broker_option("The broker, amqp[s]://user:password@host:port/vhost, or -b, -p and -c; this machine's by default."),
]
BrokerHost = Annotated[
    str | None, typer.Option("-b", metavar="HOST[:PORT]", help="The broker, in place of --broker.", show_default=False)
]
VirtualHost = Annotated[
    str | None, typer.Option("-p", metavar="VHOST", help="The virtual host; / otherwise.", show_default=False)
]
Credentials = Annotated[
    str | None,
    typer.Option(
        "-c",
        metavar="LOGIN[:PASSWORD]",
        help="The login, guest:guest otherwise. The password is better kept in RABBITMQ_PASSWORD or a file.",
        show_default=False,
    ),
]


class To(StrEnum):
    """The exchanges that `--to` names."""

    UTILIZATION = "utilization"
    SYSTEM_INFO = "system-info"
    BOTH = "both"


RoutingKey = Annotated[
    str | None,
    typer.Option("-k", metavar="KEY", help="The routing key.", show_default="this machine's name"),
]
Target = Annotated[To, typer.Option(help="The exchange to publish to: pi_utilization, system_info, or both.")]
HTTPPort = Annotated[
    int | None,
    port_option(help="Serve /publish and /healthz here; 0: any port.", show_default=False),
]
Interval = Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help="Between two samples.")]
ProbeInterval = Annotated[
    float, typer.Option(min=0.1, metavar="SECONDS", help="Between two attempts while nobody listens.")
]


@app.command()
def publish(
    context: typer.Context,
    broker: BrokerOption = None,
    host: BrokerHost = None,
    virtual_host: VirtualHost = None,
    credentials: Credentials = None,
    password_file: PasswordFile = None,
    key: RoutingKey = None,
    to: Target = To.BOTH,
    http: HTTPPort = None,
    interval: Interval = 1.0,
    probe_interval: ProbeInterval = 5.0,
    connect_attempts: ConnectAttempts = None,
    *,
    strict: Strict = False,
    plain: Plain = False,
    env_file: EnvFile = None,
    log_level: LogLevel = Level.INFO,
    log_json: LogJson = False,
) -> None:
    """Publish this machine's CPU, memory, disks and network, a sample each second, until told to stop.

    Without -b, --broker and RABBITRY_BROKER it publishes to the broker of this machine.

    Example: RABBITMQ_PASSWORD=… rabbitry monitor publish -b rabbit.example -c alice -k pi-1
    """
    start_logging(log_level, as_json=log_json)
    from dataclasses import replace

    from rabbitry.apps.monitor.agent import Agent, Publisher
    from rabbitry.apps.monitor.names import SYSTEM_INFO, UTILIZATION
    from rabbitry.apps.monitor.sampling import hostname
    from rabbitry.apps.monitor.settings import from_environment
    from rabbitry.apps.settings import variables

    found = variables(env_file)
    url = _broker(context, broker, host, virtual_host, credentials, password_file, found)
    settings = from_environment(found, default_port=0, port=http)
    system_info = replace(SYSTEM_INFO, name=settings.exchange)
    exchanges = {To.UTILIZATION: [UTILIZATION], To.SYSTEM_INFO: [system_info], To.BOTH: [UTILIZATION, system_info]}[to]
    publisher = Publisher(
        dict.fromkeys([*exchanges, system_info]) if http is not None else exchanges,
        hostname() if key is None else _routing_keys([key])[0],
        strict=strict,
        on_connected=ready,
    )
    agent = Agent(publisher, exchanges, interval=interval, probe=probe_interval)
    listener = None if http is None else _listen(settings)

    async def service(stop: asyncio.Event) -> int:
        publishing = agent.run(url, stop, connect_attempts=connect_attempts)
        await (publishing if listener is None else _beside_http(publishing, publisher, settings, listener))
        return ExitCode.DONE

    raise typer.Exit(run_service(service))


@app.command()
def stats(
    context: typer.Context,
    broker: BrokerOption = None,
    host: BrokerHost = None,
    virtual_host: VirtualHost = None,
    credentials: Credentials = None,
    password_file: PasswordFile = None,
    key: Annotated[
        list[str] | None,
        typer.Option("-k", metavar="KEY...", help="What to count: -k a b, or -k a -k b.", show_default=False),
    ] = None,
    more_keys: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY]...", help="More of them.", show_default=False)
    ] = None,
    *,
    strict: Strict = False,
    plain: Plain = False,
    as_json: Json = False,
    log_level: LogLevel = Level.INFO,
    log_json: LogJson = False,
) -> None:
    """Show statistics of the samples that come with some routing keys, until Ctrl-C; then a summary.

    Without -b, --broker and RABBITRY_BROKER it reads from the broker of this machine.

    Example: rabbitry monitor stats -k pi-1 pi-2
    """
    start_logging(log_level, as_json=log_json)
    # An option of the field's parsers takes one value; what follows it arrives as arguments.
    keys = _routing_keys([*(key or []), *(more_keys or [])])
    if not keys:
        raise UsageError("which machines? give their routing keys: -k KEY [KEY...]")
    url = _broker(context, broker, host, virtual_host, credentials, password_file, os.environ)

    from rabbitry.apps.monitor.client import StatisticsClient
    from rabbitry.apps.monitor.display import display
    from rabbitry.apps.monitor.statistics import Counts

    async def service(stop: asyncio.Event) -> int:
        counts = Counts()
        async with display(counts, as_json=as_json) as show:
            await StatisticsClient(keys, counts, show, strict=strict).run(url, stop)
        return ExitCode.DONE

    try:
        code = run_service(service)
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = ExitCode.DONE
    raise typer.Exit(code)


def _listen(settings: Settings) -> list[socket]:
    from rabbitry.runtime.listening import listen

    listeners = listen(settings.host, settings.port)
    _logger.info("serving http://%s:%d/publish", settings.host, listeners[0].getsockname()[1])
    return listeners


async def _beside_http(
    publishing: Coroutine[None, None, None], publisher: Publisher, settings: Settings, listeners: list[socket]
) -> None:
    """Serve HTTP until the agent ends."""
    from rabbitry.apps.monitor.publisher import create_app
    from rabbitry.runtime.http.serving import serve

    ended = asyncio.Event()
    serving = asyncio.create_task(serve(create_app(publisher, settings), listeners, ended))
    try:
        await publishing
    finally:
        ended.set()
        await serving


def _broker(
    context: typer.Context,
    url: str | None,
    host: str | None,
    virtual_host: str | None,
    credentials: str | None,
    password_file: Path | None,
    found: Mapping[str, str],
) -> BrokerURL:
    """Return the broker that the command line names, else the environment, else the one of this machine.

    Raises:
        UsageError: both `--broker` and `-b` name one, or a value is malformed.
    """
    from rabbitry.amqp.client import parse_url
    from rabbitry.apps import settings

    parameter = context.get_parameter_source("broker")
    if host is not None:
        if url is not None and parameter is not None and parameter.name == "COMMANDLINE":
            raise UsageError("-b and --broker both name a broker; give one of them")
        if any(letter in host for letter in "@/?"):
            raise UsageError("-b takes HOST[:PORT]; the login goes to -c, the virtual host to -p")
        known = {key: value for key, value in found.items() if key != "RABBITRY_BROKER"} | {
            "RABBITMQ_HOST": "localhost"
        }
        text = settings.broker_url(known)
    elif url is not None:
        text = broker_url(context, url)
    else:
        text = settings.broker_url(found)
    broker = parse_url(text or DEFAULT_BROKER)
    if host is not None:
        broker = broker._replace(hosts=parse_url(f"amqp://{host}").hosts)
    if virtual_host is not None:
        broker = broker._replace(virtual_host=virtual_host)
    user, password = _login(credentials, password_file, found)
    return broker._replace(user=user or broker.user, password=password or broker.password)


def _login(
    credentials: str | None, password_file: Path | None, found: Mapping[str, str]
) -> tuple[str | None, str | None]:
    """Return the user and the password from `-c` and `--password-file`; None for what they do not give."""
    user, colon, password = (credentials or "").partition(":")
    if colon:
        warn(
            "other users of this machine can see a password in -c; give the login alone, "
            "and the password in RABBITMQ_PASSWORD or with --password-file"
        )
        return user, password
    if password_file is not None:
        return user, read_password(password_file)
    if user:
        password = found.get("RABBITMQ_PASSWORD", "")
        if not password:
            raise UsageError(f"missing password for user {user!r}: set RABBITMQ_PASSWORD or pass --password-file FILE")
        return user, password
    return None, None


def _routing_keys(keys: Sequence[str]) -> list[str]:
    for key in keys:
        if not 0 < len(key.encode(errors="replace")) < 256:
            raise UsageError("a routing key has 1 to 255 bytes")
    return list(dict.fromkeys(keys))
