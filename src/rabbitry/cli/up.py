"""`rabbitry up`: broker, this machine's agent, the roles of grading and the dashboard, in one command."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from dataclasses import dataclass
from typing import Annotated, Final

import typer

from rabbitry.apps._listening import PortTaken, by_whom, listen
from rabbitry.cli._children import Child, lifeline
from rabbitry.cli._common import Broker, ExitCode, LogJson, LogLevel, Plain, Strict, broker_url, start_logging
from rabbitry.cli._logging import Level
from rabbitry.cli._service import run_service
from rabbitry.cli.broker import LISTENER, Data, Memory
from rabbitry.cli.grading import ExchangeType, People, Type
from rabbitry.exceptions import UsageError

HOST: Final = "127.0.0.1"
_ANSWER_WITHIN: Final = 1.0
_PAGE_WITHIN: Final = 60.0
_ROLES: Final = "the roles of grading"

log = logging.getLogger("rabbitry.cli.up")
app = typer.Typer()


@app.command("up")
def up(
    context: typer.Context,
    broker: Broker = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="The broker's port; 0 takes a free one.")] = 5672,
    web_port: Annotated[int, typer.Option(min=0, max=65535, help="The page's port; 0 takes a free one.")] = 8003,
    http_port: Annotated[int, typer.Option(min=0, max=65535, help="The port of /publish; 0 takes a free one.")] = 8000,
    management_port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            help="The port of the broker's management API, 15672 otherwise; 0 takes a free one.",
            show_default=False,
        ),
    ] = None,
    person: People = None,
    exchange_type: Type = ExchangeType.DIRECT,
    plain: Plain = False,
    strict: Strict = False,
    data: Data = None,
    memory: Memory = False,
    log_level: LogLevel = Level.INFO,
    log_json: LogJson = False,
) -> None:
    """Run broker, this machine's agent, the roles of grading and the dashboard until Ctrl-C.

    With --broker it runs agent and dashboard on that broker: who decides there is not this machine's to say.
    With --plain the original programs can join, whether they start before it or after it (docs/originals.md).

    Example: rabbitry up --port 0 --web-port 9000
    """
    start_logging(log_level, log_json)
    listener = _broker_listener(port) if broker is None else None
    url = f"amqp://guest:guest@{HOST}:{listener.getsockname()[1]}/" if listener else broker_url(context, broker)
    page = listen(HOST, web_port)
    # The agent takes this port itself; here it is only seen to be free, so that the error comes at once.
    with listen(HOST, http_port) as http:
        http_port = http.getsockname()[1]
    verbosity = ["--log-level", log_level.value, *(["--log-json"] if log_json else [])]
    kept = ["--memory"] if memory else ["--data", str(data)] if data else []
    if management_port is not None:
        kept += ["--management-port", str(management_port)]
    people = [word for choice in person or () for word in ("--person", choice.value)]
    if people and listener is None:
        raise UsageError("with --broker no roles are run here, so --person is for: rabbitry grading run --person ROLE")
    declaring = _Declaring(exchange_type, plain, strict)
    children = _children(listener, page, url, http_port, kept, people, declaring, verbosity)

    async def service(stop: asyncio.Event) -> int:
        return await _run(children, page, listener, stop)

    raise typer.Exit(run_service(service, deadline=30.0))


@dataclass(frozen=True, slots=True)
class _Declaring:
    """How the children declare exchanges and queues, as options of their commands."""

    exchange_type: ExchangeType
    plain: bool
    strict: bool

    @property
    def agent(self) -> list[str]:
        return [*self._plain, *self._strict]

    @property
    def roles(self) -> list[str]:
        return ["--exchange-type", self.exchange_type.value, *self._plain, *self._strict]

    @property
    def page(self) -> list[str]:
        # A queue that the broker names leaves the name of contract system_info to a program that expects it.
        return ["--queue", "", "--exchange-type", self.exchange_type.value, *self._plain]

    @property
    def _plain(self) -> list[str]:
        return ["--plain"] if self.plain else []

    @property
    def _strict(self) -> list[str]:
        return ["--strict"] if self.strict else []


def _children(
    listener: socket.socket | None,
    page: socket.socket,
    url: str,
    http_port: int,
    kept: list[str],
    people: list[str],
    declaring: _Declaring,
    verbosity: list[str],
) -> list[Child]:
    """The children in the order in which they are ended: who publishes and reads before the broker."""
    pipe, environment = lifeline()
    environment["RABBITRY_BROKER"] = url
    web = environment | {LISTENER: str(page.fileno())}
    # The page may start later than the agent; a sample that came too early must not cost it 5 s.
    agent = ["monitor", "publish", "--http", str(http_port), "--probe-interval", "1", *declaring.agent, *verbosity]
    children = [
        Child("the agent", agent, environment, (pipe,)),
        Child("the dashboard", ["web", *declaring.page, *verbosity], web, (pipe, page.fileno())),
    ]
    if listener is not None:
        own = environment | {LISTENER: str(listener.fileno())}
        children.insert(
            0, Child(_ROLES, ["grading", "run", *people, *declaring.roles, *verbosity], environment, (pipe,))
        )
        children.append(Child("the broker", ["broker", *kept, *verbosity], own, (pipe, listener.fileno())))
    return children


async def _run(children: list[Child], page: socket.socket, listener: socket.socket | None, stop: asyncio.Event) -> int:
    if listener is not None:
        log.info("broker on amqp://%s:%d/", HOST, listener.getsockname()[1])
    # The broker first: its socket listens already, so the others may connect before it has begun to accept.
    announcing = asyncio.create_task(_announce(page.getsockname()[1]), name="announce")
    kept = [asyncio.create_task(_keep(child, announcing), name=child.name) for child in reversed(children)]
    stopping = asyncio.create_task(stop.wait(), name="stop")
    code = ExitCode.DONE
    try:
        done, _ = await asyncio.wait((*kept, stopping), return_when=asyncio.FIRST_COMPLETED)
        for task in done - {stopping}:
            code = ExitCode(task.result()) if task.result() in (ExitCode.USAGE, ExitCode.BROKER) else ExitCode.FAILED
            log.error("%s ended for good, so all of it stops; its own last line says why", task.get_name())
    finally:
        announcing.cancel()
        stopping.cancel()
        for child in children:
            await child.end()
        for task in kept:
            task.cancel()
        await asyncio.gather(*kept, announcing, stopping, return_exceptions=True)
    return code


async def _keep(child: Child, announcing: asyncio.Task[None]) -> int:
    if child.name == _ROLES:
        # Whoever waits for the page is served first: on a small machine one more start would take its processors.
        await asyncio.wait([announcing])
    return await child.keep()


async def _announce(port: int) -> None:
    """Say where the page is, once it answers."""
    try:
        async with asyncio.timeout(_PAGE_WITHIN):
            reader, writer = await asyncio.open_connection(HOST, port)
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            await reader.read()
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
    except (TimeoutError, OSError) as error:
        log.warning("the page does not answer on port %d: %s", port, error or "too slow")
        return
    print(f"\n  Your machines, live: http://{HOST}:{port}/   (Ctrl-C stops everything)\n", flush=True)


def _broker_listener(port: int) -> socket.socket:
    try:
        return listen(HOST, port)
    except PortTaken as error:
        if _speaks_amqp(port):
            text = (
                f"port {port} is taken{by_whom(port)}: an AMQP broker answers there. "
                f"Use it: rabbitry up --broker amqp://{HOST}:{port}/ , or take a free port: rabbitry up --port 0"
            )
        else:
            text = f"port {port} is taken{by_whom(port)}, and no AMQP broker answers there. Take another: --port 0"
        raise UsageError(text) from error


def _speaks_amqp(port: int) -> bool:
    """Whether what listens there greets with connection.start."""
    try:
        with socket.create_connection((HOST, port), timeout=_ANSWER_WITHIN) as peer:
            peer.sendall(b"AMQP\x00\x00\x09\x01")
            answer = b""
            while len(answer) < 11 and (chunk := peer.recv(11 - len(answer))):
                answer += chunk
    except OSError:
        return False
    return answer[:3] == b"\x01\x00\x00" and answer[7:11] == b"\x00\x0a\x00\x0a"
