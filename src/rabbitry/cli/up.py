"""`rabbitry up`: broker, apps and dashboard, in one command."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer

from rabbitry.apps import Service, Services
from rabbitry.cli._app_options import AppOptions, with_app_options
from rabbitry.cli._up_apps import services, wanted
from rabbitry.cli.broker import MANAGEMENT_PORT, check_data, usual_folder
from rabbitry.exceptions import UsageError
from rabbitry.runtime.children import Child
from rabbitry.runtime.listening import PortTaken, by_whom, listen
from rabbitry.runtime.logging import Level
from rabbitry.runtime.options import (
    LOG_JSON,
    LOG_LEVEL,
    LogJson,
    LogLevel,
    Memory,
    Plain,
    Strict,
    as_arguments,
    broker_option,
    broker_url,
    port_option,
    start_logging,
)
from rabbitry.runtime.output import ExitCode
from rabbitry.runtime.parent import DATABASE, LISTENER, MANAGEMENT_LISTENER, RECORDS_FOLDER
from rabbitry.runtime.service import run_service

HOST: Final = "127.0.0.1"
MANAGEMENT: Final = "RABBITRY_MANAGEMENT"
"""The environment variable of the option --management."""
PORT: Final = 5672
WEB_PORT: Final = 8003
_ANSWER_WITHIN: Final = 5.0
"""Seconds that another program's broker has to answer: while it starts, it accepts connections but reads nothing."""

_logger = logging.getLogger(__name__)

Broker = Annotated[
    str | None,
    broker_option("Use this broker, amqp[s]://user:password@host:port/vhost, and start none."),
]
Port = Annotated[
    int | None,
    port_option(
        help="The broker's port. 0 takes a free one, and free ones for other ports that are taken and not given.",
        show_default=str(PORT),
    ),
]
WebPort = Annotated[
    int | None,
    port_option(help="The page's port; 0 takes a free one.", show_default=str(WEB_PORT)),
]
ManagementPort = Annotated[
    int | None,
    port_option(help="The port of the broker's management API; 0 takes a free one.", show_default=str(MANAGEMENT_PORT)),
]
Apps = Annotated[
    str | None,
    typer.Option(
        metavar="NAME,…",
        help="The apps to run; `rabbitry apps` lists them.",
        show_default="all; with --broker, those that join another's broker",
    ),
]
Data = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="The folder for durable data of the broker and the apps; else the user's data folder.",
        show_default=False,
    ),
]


def app() -> typer.Typer:
    """Return the command, with the options of the apps that are installed."""
    made = typer.Typer()
    made.command("up")(with_app_options(up, "services"))
    return made


def up(
    context: typer.Context,
    app_options: AppOptions,
    broker: Broker = None,
    port: Port = None,
    web_port: WebPort = None,
    management_port: ManagementPort = None,
    apps: Apps = None,
    *,
    plain: Plain = False,
    strict: Strict = False,
    data: Data = None,
    memory: Memory = False,
    log_level: LogLevel = Level.INFO,
    log_json: LogJson = False,
) -> None:
    """Run the broker, the services of the apps, and the dashboard until Ctrl-C.

    With --broker it uses that broker, and runs only the apps that are meant to join an existing one; others run only if
    --apps names them. With --plain the original programs can join, whether they start before or after this command
    (docs/originals.md).

    Example: rabbitry up --port 0 --web-port 9000
    """
    start_logging(log_level, as_json=log_json)
    _check_system()
    chosen = wanted(apps, has_broker=broker is not None)
    check_data(data, memory=memory)
    # Beside another `rabbitry up`, which has the usual ports, the next best will do.
    beside = broker is not None or port == 0
    listener = _broker_listener(PORT if port is None else port) if broker is None else None
    url = f"amqp://guest:guest@{HOST}:{listener.getsockname()[1]}/" if listener else broker_url(context, broker)
    page = _listen(web_port, WEB_PORT, "--web-port", beside=beside)

    def free_port(given: int | None, usual: int, option: str) -> int:
        with _listen(given, usual, option, beside=beside) as found:
            number: int = found.getsockname()[1]
            # Any other number is one that this machine chose, and may choose for somebody else before a child uses it.
            return number if number in (given, usual) else 0

    brought = services(chosen, app_options, plain=plain, strict=strict, free_port=free_port)
    own: tuple[str, ...] = ()
    management: socket.socket | None = None
    if listener is not None:
        management = _management_listener(management_port, beside=beside)
        folder = None if memory else _folder(data, plain=plain)
        own = as_arguments(memory=memory, data=folder, no_management=management is None)
    plan = _Plan(listener, management, page, url, brought, plain, own, log_level, log_json)

    async def service(stop: asyncio.Event) -> int:
        with _records(data, memory=memory) as folder:
            return await _run(plan, plan.children(folder), stop)

    raise typer.Exit(run_service(service, deadline=30.0))


def _check_system() -> None:
    """Raise UsageError on Windows, whose child processes inherit no sockets as those of POSIX do."""
    if sys.platform == "win32":
        raise UsageError(
            "`rabbitry up` does not run on Windows: start `rabbitry broker`, `rabbitry web` and `rabbitry worker` "
            "each by itself"
        )


def _folder(data: Path | None, *, plain: bool) -> Path | None:
    """Return the broker's data folder; None for the usual one.

    Durable queues left by a start without --plain would make the broker refuse the original programs (406). Therefore
    --plain has its own folder, unless the user names one.
    """
    if data is None and plain:
        return usual_folder().with_name("broker-plain")
    return data


@dataclass(frozen=True, slots=True)
class _Plan:
    """The child processes to run, and their addresses."""

    listener: socket.socket | None
    """The socket of a broker of our own."""
    management: socket.socket | None
    """The socket of that broker's management API."""
    page: socket.socket
    url: str
    apps: Mapping[str, Services]
    """What each app brings, in the order in which they are started."""
    plain: bool
    broker: Sequence[str]
    """Options of `broker`."""
    level: Level
    as_json: bool

    def children(self, records: Path | None) -> list[_Kept]:
        """Return the children in the order in which they are ended: those that publish and consume before the broker.

        records: the folder of the apps' records; None for the default one.
        """
        environment = {"RABBITRY_BROKER": self.url}
        if records is not None:
            environment[RECORDS_FOLDER] = str(records)
        children: list[_Kept] = []
        for brought in reversed([*self.apps.values()]):
            for service in reversed(brought.children):
                child = Child(
                    service.name, [*service.arguments], environment | self._logging(is_quiet=service.is_quiet)
                )
                children.append(_Kept(child, service))
        of_apps = [word for brought in self.apps.values() for word in brought.web]
        web = ["web", *of_apps, *as_arguments(plain=self.plain)]
        of_page = {LISTENER: self.page}
        if self.management is not None:
            environment[MANAGEMENT] = f"http://{HOST}:{self.management.getsockname()[1]}"
        children.append(_Kept(self._listening("the dashboard", web, of_page, environment)))
        if self.listener is not None:
            listeners = {LISTENER: self.listener}
            if self.management is not None:
                listeners[MANAGEMENT_LISTENER] = self.management
            own = self._listening("the broker", ["broker", *self.broker], listeners, environment)
            children.append(_Kept(own))
        return children

    def _listening(
        self, name: str, arguments: list[str], listeners: Mapping[str, socket.socket], environment: Mapping[str, str]
    ) -> Child:
        """Return a child that inherits sockets; `listeners` has them by the variables that name them."""
        numbers = {variable: listener.fileno() for variable, listener in listeners.items()}
        named = {variable: str(number) for variable, number in numbers.items()}
        return Child(name, arguments, {**environment, **self._logging(is_quiet=True), **named}, (*numbers.values(),))

    def _logging(self, *, is_quiet: bool) -> dict[str, str]:
        # A healthy start is quiet: of most children only what is wrong is of interest.
        level = Level.WARNING if is_quiet and self.level is Level.INFO else self.level
        return {LOG_LEVEL: level.value, LOG_JSON: "1" if self.as_json else "0"}


@dataclass(frozen=True, slots=True)
class _Kept:
    """A child, and the app's service that it runs; None for the broker and the dashboard."""

    child: Child
    service: Service | None = None

    @property
    def is_needed(self) -> bool:
        """Whether its end ends all of it."""
        return self.service is None or self.service.is_needed


async def _run(plan: _Plan, children: list[_Kept], stop: asyncio.Event) -> int:
    names = ", ".join(kept.child.name for kept in reversed(children))
    where = "" if plan.listener is None else f"broker on amqp://{HOST}:{plan.listener.getsockname()[1]}/; "
    _logger.info("%sstarting %s", where, names)
    dashboard = next(kept.child for kept in children if kept.child.name == "the dashboard")
    announcing = asyncio.create_task(_announce(dashboard, plan.page.getsockname()[1]), name="announce")
    # The broker first: its socket listens already, so the others may connect before it has begun to accept.
    running = {asyncio.create_task(_keep(kept, announcing)): kept for kept in reversed(children)}
    stopping = asyncio.create_task(stop.wait(), name="stop")
    ended: tuple[Child, int] | None = None
    try:
        ended = await _first_end(running, stopping)
        if ended is None:
            _logger.info("stopping %s; a second Ctrl-C ends them at once", names)
    finally:
        announcing.cancel()
        stopping.cancel()
        for kept in children:
            await kept.child.end()
        for task in running:
            task.cancel()
        await asyncio.gather(*running, announcing, stopping, return_exceptions=True)
    if ended is None:
        return ExitCode.DONE
    child, code = ended
    child.say_end(code)
    return code if code > 0 else ExitCode.FAILED


async def _first_end(
    running: Mapping[asyncio.Task[int], _Kept], stopping: asyncio.Task[bool]
) -> tuple[Child, int] | None:
    """Wait for the end of a needed child, and return it with its exit code; None if a signal came first.

    An app's service that is not needed and ends for good is reported and left out, as long as others run.
    """
    waiting = {*running}
    while True:
        done, _ = await asyncio.wait((*waiting, stopping), return_when=asyncio.FIRST_COMPLETED)
        if stopping in done:
            return None
        task = next(task for task in waiting if task in done)
        waiting.remove(task)
        kept, code = running[task], task.result()
        if kept.is_needed or not any(running[other].service is not None for other in waiting):
            return kept.child, code
        _logger.warning("%s is left out: %s", kept.child.name, kept.child.why(code))


async def _keep(kept: _Kept, announcing: asyncio.Task[None]) -> int:
    if kept.service is not None and kept.service.after_page:
        # Whoever waits for the page is served first: on a small machine one more start would take its processors.
        await asyncio.wait([announcing])
    return await kept.child.keep()


async def _announce(dashboard: Child, port: int) -> None:
    """Print the page's address once it is served."""
    await dashboard.ready.wait()
    bold, plain = ("\x1b[1m", "\x1b[0m") if sys.stdout.isatty() and not os.environ.get("NO_COLOR") else ("", "")
    print(f"\n  Your machines, live: {bold}http://{HOST}:{port}/{plain}   (Ctrl-C stops everything)\n", flush=True)


@contextlib.contextmanager
def _records(data: Path | None, *, memory: bool) -> Iterator[Path | None]:
    """Yield the folder of the apps' records; None for the default one.

    The pages and the roles are separate processes, so `--memory` is a temporary folder, removed at the end. A database
    named by RABBITRY_DATABASE is used together with --data. Raises UsageError for one together with --memory.
    """
    if not memory:
        yield None if data is None else data.absolute()
        return
    if os.environ.get(DATABASE):
        raise UsageError(f"--memory keeps nothing, and {DATABASE} names a database: unset one of them")
    with tempfile.TemporaryDirectory(prefix="rabbitry-") as folder:
        yield Path(folder)


def _listen(port: int | None, default: int, option: str, *, beside: bool) -> socket.socket:
    """Return a socket that listens on `port` or the default; if `beside` and the default is taken, on a free port."""
    try:
        return listen(HOST, default if port is None else port)[0]
    except PortTaken as error:
        if port is None and beside:
            return listen(HOST, 0)[0]
        beside_another = "" if port is not None else "; beside another rabbitry up: --port 0 --data DIR"
        raise UsageError(f"{error} ({option} 0 takes a free one{beside_another})") from error


def _management_listener(port: int | None, *, beside: bool) -> socket.socket | None:
    """Return a socket for the broker's management API; None if its usual port is taken, which is logged."""
    try:
        return _listen(port, MANAGEMENT_PORT, "--management-port", beside=beside)
    except UsageError as error:
        if port is not None:
            raise
        _logger.warning("no management API, so the dashboard shows less of the broker: %s", error)
        return None


def _broker_listener(port: int) -> socket.socket:
    try:
        return listen(HOST, port)[0]
    except PortTaken as error:
        greeting = _greeting(port)
        if greeting is None:
            text = (
                f"port {port} is taken{by_whom(port)}, and nothing answered there within {_ANSWER_WITHIN:g} s. "
                "Try again if that is a broker that starts, or take another port: --port 0"
            )
        elif greeting[:3] == b"\x01\x00\x00" and greeting[7:] == b"\x00\x0a\x00\x0a":  # connection.start
            text = (
                f"port {port} is taken{by_whom(port)}: an AMQP broker answers there. "
                f"Use it: rabbitry up --broker amqp://{HOST}:{port}/ , or run one more: rabbitry up --port 0 --data DIR"
            )
        else:
            text = f"port {port} is taken{by_whom(port)}, and no AMQP broker answers there. Take another: --port 0"
        raise UsageError(text) from error


def _greeting(port: int) -> bytes | None:
    """Return at most 11 bytes of a server's answer to the AMQP protocol header; None if no answer comes."""
    deadline = time.monotonic() + _ANSWER_WITHIN
    answer = b""
    try:
        with socket.create_connection((HOST, port), timeout=_ANSWER_WITHIN) as peer:
            peer.sendall(b"AMQP\x00\x00\x09\x01")
            while len(answer) < 11 and (left := deadline - time.monotonic()) > 0:
                peer.settimeout(left)
                if not (chunk := peer.recv(11 - len(answer))):
                    return answer
                answer += chunk
    except TimeoutError:
        pass
    except OSError:
        return answer
    return answer or None
