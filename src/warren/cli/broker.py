"""`warren broker`: the embedded AMQP broker."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path
from typing import Annotated

import typer

from warren.cli._common import LogJson, LogLevel, start_logging
from warren.cli._logging import Level
from warren.cli._service import run_service
from warren.exceptions import UsageError

LISTENER = "WARREN_LISTENER"
"""Environment variable with the number of a socket that listens already; `warren up` hands it over."""

app = typer.Typer()


@app.command("broker")
def serve(
    host: Annotated[
        str, typer.Option(help="The address to listen on; another than this machine's own needs --user.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 takes a free one.")] = 5672,
    user: Annotated[
        str | None, typer.Option(metavar="NAME", help="Who may log in, in place of guest.", show_default=False)
    ] = None,
    password_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Holds the password; else RABBITMQ_PASSWORD does.", show_default=False),
    ] = None,
    vhost: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A virtual host beside /.", show_default=False)
    ] = None,
    log_level: LogLevel = Level.INFO,
    log_json: LogJson = False,
) -> None:
    """Run the embedded AMQP broker, in memory, until SIGTERM or Ctrl-C.

    Example: warren broker --port 0
    """
    start_logging(log_level, log_json)
    from warren.broker import Broker

    broker = Broker(
        host,
        port,
        users=_users(user, password_file),
        vhosts=list(dict.fromkeys(["/", *(vhost or [])])),
        listener=_listener(host, port),
    )

    async def service(stop: asyncio.Event) -> int:
        async with broker:
            name = f"[{host}]" if ":" in host else host
            print(f"warren broker ready amqp://{name}:{broker.port}/", flush=True)
            await stop.wait()
        return 0

    raise typer.Exit(run_service(service))


def _users(user: str | None, password_file: Path | None) -> dict[str, str] | None:
    if user is None:
        if password_file is not None:
            raise UsageError("--password-file is whose password? give --user too")
        return None
    if password_file is not None:
        try:
            password = password_file.read_text().split("\n", 1)[0].rstrip("\r")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"the password file {password_file} can't be read: {error}") from error
    else:
        password = os.environ.get("RABBITMQ_PASSWORD", "")
    if not password:
        raise UsageError(f"the password of {user}? --password-file or RABBITMQ_PASSWORD in the environment says it")
    return {user: password}


def _listener(host: str, port: int) -> socket.socket:
    inherited = os.environ.pop(LISTENER, None)
    if inherited is not None:
        return socket.socket(fileno=int(inherited))
    from warren.apps._listening import listen

    return listen(host, port)
