"""`rabbitry broker`: the embedded AMQP broker; `check` and `repair` are for its data folder."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import socket
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rabbitry.cli import broker_store
from rabbitry.exceptions import UsageError
from rabbitry.runtime.addresses import in_url, is_loopback
from rabbitry.runtime.listening import PortTaken, inherit_or_listen, listen
from rabbitry.runtime.logging import Level
from rabbitry.runtime.options import (
    LogJson,
    LogLevel,
    Memory,
    PasswordFile,
    port_option,
    read_password,
    start_logging,
)
from rabbitry.runtime.output import ExitCode
from rabbitry.runtime.parent import MANAGEMENT_LISTENER, ready
from rabbitry.runtime.service import run_service

if TYPE_CHECKING:
    import ssl

    from rabbitry.broker import Broker

MANAGEMENT_PORT = 15672
_YOUNG = 10_000
"""New objects after which the garbage collector looks for cycles (a closed connection leaves some).

It examines the new objects, and every second time three times as many, which takes 10 ms if they are queues.
"""
_OLD = 300
"""Number of those larger collections after which it examines all objects, which takes 0.1 s for each million."""
_SWITCH_INTERVAL = 0.001
"""Seconds for which a thread waits for the interpreter before the other one has to release it.

The store's thread waits about twenty times for a large batch while the event loop is busy, and the loop while that
thread prepares rows. Python's default is 5 ms.
"""

Data = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="The folder for durable data; else the user's data folder.", show_default=False),
]

_logger = logging.getLogger(__name__)
app: typer.Typer = typer.Typer()
app.add_typer(broker_store.app)


Host = Annotated[
    str,
    typer.Option(
        help="The address to listen on; localhost is 127.0.0.1 and ::1. One that other machines reach needs --user."
    ),
]
Port = Annotated[int, port_option(help="The port for AMQP; 0 takes a free one.")]
User = Annotated[
    str | None, typer.Option(metavar="NAME", help="The user who may log in, instead of guest.", show_default=False)
]
VirtualHosts = Annotated[
    list[str] | None, typer.Option("--vhost", metavar="NAME", help="A virtual host beside /.", show_default=False)
]
ManagementPort = Annotated[
    int | None,
    port_option(
        help=f"The management API's port, {MANAGEMENT_PORT} otherwise; 0 takes a free one.", show_default=False
    ),
]
NoManagement = Annotated[bool, typer.Option("--no-management", help="Run without the management API.")]
Compat = Annotated[Literal["3.10", "4.0"], typer.Option(help="The RabbitMQ whose behaviour it has: 3.10.8 or 4.0.5.")]
ConsumerTimeout = Annotated[
    float,
    typer.Option(min=0, metavar="SECONDS", help="Close channels that acknowledge later than this; 0 for no limit."),
]
TLSPort = Annotated[int, port_option(help="The port for TLS, with --tls-cert.")]
TLSCert = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="The certificate and its chain (PEM); listen for TLS, too.", show_default=False),
]
TLSKey = Annotated[
    Path | None, typer.Option(metavar="FILE", help="The certificate's key, if not in --tls-cert.", show_default=False)
]
TLSCA = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="The authority of client certificates (EXTERNAL login).", show_default=False),
]


@app.callback(invoke_without_command=True)
def serve(
    context: typer.Context,
    host: Host = "127.0.0.1",
    port: Port = 5672,
    user: User = None,
    password_file: PasswordFile = None,
    vhost: VirtualHosts = None,
    data: Data = None,
    *,
    memory: Memory = False,
    management_port: ManagementPort = None,
    no_management: NoManagement = False,
    compat: Compat = "3.10",
    consumer_timeout: ConsumerTimeout = 1800,
    tls_port: TLSPort = 5671,
    tls_cert: TLSCert = None,
    tls_key: TLSKey = None,
    tls_ca: TLSCA = None,
    log_level: LogLevel = Level.INFO,
    log_json: LogJson = False,
) -> None:
    """Run the embedded AMQP broker until SIGTERM or Ctrl-C.

    Example: rabbitry broker --port 0 --memory
    """
    if context.invoked_subcommand is not None:
        return
    start_logging(log_level, as_json=log_json)
    from rabbitry.broker import Broker, BrokerConfig

    gc.set_threshold(_YOUNG, 1, _OLD)
    sys.setswitchinterval(_SWITCH_INTERVAL)
    tls = _tls(tls_cert, tls_key, tls_ca)
    listeners = inherit_or_listen(host, port)
    _check_reach(host, listeners[0], user)
    users = _users(user, password_file)
    management = [] if no_management else _management_listeners(host, management_port)
    config = BrokerConfig(
        host=host,
        port=port,
        users=users,
        vhosts=list(dict.fromkeys(["/", *(vhost or [])])),
        listeners=listeners,
        data=data_folder(data, memory=memory),
        tls=tls,
        tls_listeners=() if tls is None else listen(host, tls_port),
        compat=compat,
        consumer_timeout=consumer_timeout or None,
    )
    raise typer.Exit(run_service(partial(_serve, Broker(config), management)))


async def _serve(broker: Broker, management: list[socket.socket], stop: asyncio.Event) -> int:
    """Run the broker until it is told to stop or its store fails; print its address once it accepts connections.

    management: the sockets of the management API, which is loaded once AMQP clients are served; empty for none.
    """
    with contextlib.ExitStack() as listening:
        for listener in management:
            listening.enter_context(listener)
        async with broker:
            name = in_url(broker.host)
            page = f" http://{name}:{management[0].getsockname()[1]}/" if management else ""
            print(f"rabbitry broker ready amqp://{name}:{broker.port}/{page}", flush=True)
            if broker.has_tls:
                _logger.info("TLS on amqps://%s:%d/", name, broker.tls_port)
            if management:
                await broker.start_management(management)
            ready()
            return await _until(stop, broker)


def check_data(data: Path | None, *, memory: bool) -> None:
    """Raise UsageError if both `--data` and `--memory` are given."""
    if memory and data is not None:
        raise UsageError("--data keeps messages on disk and --memory does not: give one of them")


def data_folder(data: Path | None, *, memory: bool) -> Path | None:
    """Return the folder for durable data; None for memory. Raises UsageError if both options are given."""
    check_data(data, memory=memory)
    if memory:
        return None
    return usual_folder() if data is None else data


def usual_folder() -> Path:
    """Return the broker's default folder for durable data, in the user's data folder."""
    import platformdirs

    return Path(platformdirs.user_data_dir("rabbitry", appauthor=False)) / "broker"


async def _until(stop: asyncio.Event, broker: Broker) -> int:
    """Wait for the signal, or for the end of a broker whose store failed."""
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((stopping, broker.failed), return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
    return ExitCode.FAILED if broker.failed.done() else ExitCode.DONE


def _users(user: str | None, password_file: Path | None) -> dict[str, str] | None:
    if user is None:
        if password_file is not None:
            raise UsageError("--password-file needs --user, which says whose password it is")
        return None
    given = os.environ.get("RABBITMQ_PASSWORD", "")
    password = given if password_file is None else read_password(password_file)
    if not password:
        raise UsageError(f"missing password for user {user!r}: set RABBITMQ_PASSWORD or pass --password-file FILE")
    return {user: password}


def _check_reach(host: str, listener: socket.socket, user: str | None) -> None:
    """Raise UsageError if other machines can reach the address but no user could log in from them."""
    from rabbitry.broker.config import GUEST

    if is_loopback(str(listener.getsockname()[0])) or user not in (None, GUEST):
        return
    why = "needs a user" if user is None else f"needs another user than {GUEST!r}, which may log in from here only"
    raise UsageError(
        f"--host {host!r} can be reached from other machines, so the broker {why}: give --user NAME and its password, "
        "in RABBITMQ_PASSWORD or with --password-file FILE"
    )


def _tls(cert: Path | None, key: Path | None, ca: Path | None) -> ssl.SSLContext | None:
    """Return the context of the TLS listener; None if no certificate is given. Clients need not show one."""
    if cert is None:
        if key is not None or ca is not None:
            raise UsageError("--tls-key and --tls-ca go with --tls-cert")
        return None
    import ssl

    from rabbitry.runtime.tls import load_authorities, load_certificate

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    load_certificate(context, str(cert), None if key is None else str(key), options=("--tls-cert", "--tls-key"))
    if ca is not None:
        load_authorities(context.load_verify_locations, str(ca), option="--tls-ca")
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


def _management_listeners(host: str, port: int | None) -> list[socket.socket]:
    try:
        return inherit_or_listen(host, MANAGEMENT_PORT if port is None else port, MANAGEMENT_LISTENER)
    except PortTaken as error:
        if port is not None:
            raise
        _logger.warning("no management API: %s (--management-port)", error)
        return []
