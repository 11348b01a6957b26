"""`rabbitry up`: broker, this machine's agent, the roles of grading and crawl, and the dashboard, in one command."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Final

import typer

from rabbitry.apps._listening import PortTaken, by_whom, listen
from rabbitry.apps.grading.commands.options import ExchangeType, People, Type
from rabbitry.cli.broker import LISTENER, MANAGEMENT_PORT, Memory, check_data, usual_folder
from rabbitry.exceptions import UsageError
from rabbitry.runtime.children import Child
from rabbitry.runtime.logging import Level
from rabbitry.runtime.options import LogJson, LogLevel, Plain, Strict, broker_url, start_logging
from rabbitry.runtime.output import ExitCode
from rabbitry.runtime.service import run_service

HOST: Final = "127.0.0.1"
PORT: Final = 5672
WEB_PORT: Final = 8003
HTTP_PORT: Final = 8000
DATABASE: Final = "RABBITRY_DATABASE"
"""Environment variable with the URL of the apps' records, which may share a database."""
RECORDS: Final = "{app}.sqlite3"
"""The file of an app's records where none is named: each writes to its own, so that they do not wait for each other."""
CRAWL_MODULES: Final = (
    "ada_url",
    "brotli",
    "protego",
    "pycurl",
    "resiliparse",
    "selectolax",
    "stopwordsiso",
    "warcio",
    "webencodings",
    "zstandard",
)
"""What the extra `crawl` brings: without all of it a crawl is not run."""
_ANSWER_WITHIN: Final = 5.0
"""Seconds that another program's broker has to answer: while it starts, it accepts connections but reads nothing."""

log = logging.getLogger("rabbitry.cli.up")
app = typer.Typer()


class App(StrEnum):
    """The values of `--apps`."""

    MONITOR = "monitor"
    GRADING = "grading"
    CRAWL = "crawl"


Broker = Annotated[
    str | None,
    typer.Option(
        "--broker",
        envvar="RABBITRY_BROKER",
        metavar="URL",
        help="Use this broker, amqp[s]://user:password@host:port/vhost, in place of one of its own.",
        show_default=False,
    ),
]
Port = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=65535,
        help="The broker's port. 0 takes a free one, also for the other ports where they are not given and taken.",
        show_default=str(PORT),
    ),
]
WebPort = Annotated[
    int | None,
    typer.Option(min=0, max=65535, help="The page's port; 0 takes a free one.", show_default=str(WEB_PORT)),
]
HTTPPort = Annotated[
    int | None,
    typer.Option(min=0, max=65535, help="The port of /publish; 0 takes a free one.", show_default=str(HTTP_PORT)),
]
ManagementPort = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=65535,
        help="The port of the broker's management API; 0 takes a free one.",
        show_default=str(MANAGEMENT_PORT),
    ),
]
Apps = Annotated[
    str | None,
    typer.Option(
        metavar="NAME,…",
        help="The apps to run, of monitor (this machine's agent), grading and crawl (their roles).",
        show_default="all; with --broker, monitor",
    ),
]
Data = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Where the broker and the apps keep what is durable; else the user's data folder.",
        show_default=False,
    ),
]


@app.command("up")
def up(
    context: typer.Context,
    broker: Broker = None,
    port: Port = None,
    web_port: WebPort = None,
    http_port: HTTPPort = None,
    management_port: ManagementPort = None,
    apps: Apps = None,
    person: People = None,
    exchange_type: Type = ExchangeType.DIRECT,
    plain: Plain = False,
    strict: Strict = False,
    data: Data = None,
    memory: Memory = False,
    log_level: LogLevel = Level.INFO,
    log_json: LogJson = False,
) -> None:
    """Run broker, this machine's agent, the roles of grading and crawl, and the dashboard until Ctrl-C.

    With --broker it runs agent and dashboard on that broker: who decides there is not this machine's to say.
    With --plain the original programs can join, whether they start before it or after it (docs/originals.md).

    Example: rabbitry up --port 0 --web-port 9000
    """
    start_logging(log_level, log_json)
    wanted = _apps(apps, has_broker=broker is not None)
    people = [word for choice in person or () for word in ("--person", choice.value)]
    if people and App.GRADING not in wanted:
        raise UsageError(
            "--person is for the roles of grading, which are not run here: add --apps monitor,grading, "
            "or run them with: rabbitry grading run --person ROLE"
        )
    check_data(data, memory)
    # Beside another `rabbitry up`, which has the usual ports, the next best will do.
    beside = broker is not None or port == 0
    listener = _broker_listener(PORT if port is None else port) if broker is None else None
    url = f"amqp://guest:guest@{HOST}:{listener.getsockname()[1]}/" if listener else broker_url(context, broker)
    page = _listen(web_port, WEB_PORT, "--web-port", beside)
    declaring = _Declaring(exchange_type, plain, strict)
    plan = _Plan(listener, page, url, wanted, people, declaring, log_level, log_json)
    if App.MONITOR in wanted:
        # The agent takes this port itself; here it is only seen to be free, so that the error comes at once.
        with _listen(http_port, HTTP_PORT, "--http-port", beside) as http:
            plan.http_port = http.getsockname()[1]
    if listener is not None:
        plan.broker = ["--memory"] if memory else _folder(data, plain)
        if management_port is not None:
            plan.broker += ["--management-port", str(management_port)]
        elif beside:
            with _listen(None, MANAGEMENT_PORT, "--management-port", beside) as management:
                plan.broker += ["--management-port", str(management.getsockname()[1])]

    async def service(stop: asyncio.Event) -> int:
        with _records(data, memory) as databases:
            plan.databases = databases
            return await _run(plan, stop)

    raise typer.Exit(run_service(service, deadline=30.0))


def _folder(data: Path | None, plain: bool) -> list[str]:
    """Return the folder of the broker's data, as an option of `broker`.

    The original programs would be refused (406) by what a start without --plain left durable, so --plain has a folder
    of its own, unless one is named.
    """
    if data is None and plain:
        data = usual_folder().with_name("broker-plain")
    return [] if data is None else ["--data", str(data)]


@dataclass(frozen=True, slots=True)
class _Declaring:
    """The options by which the children declare exchanges and queues."""

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
    def crawl(self) -> list[str]:
        return [*self._plain, *self._strict]

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


@dataclass
class _Plan:
    """The children that are to be run, and their addresses."""

    listener: socket.socket | None
    """The socket of a broker of our own."""
    page: socket.socket
    url: str
    apps: frozenset[App]
    people: list[str]
    """Options of `grading run`."""
    declaring: _Declaring
    level: Level
    as_json: bool
    http_port: int = HTTP_PORT
    broker: list[str] = field(default_factory=list)
    """Options of `broker`."""
    databases: Mapping[App, str] = field(default_factory=dict)
    """URLs of the apps' records, where they are not the usual ones."""

    def children(self) -> list[Child]:
        """Make the children in the order in which they are ended: those that publish and read before the broker."""
        environment = {"RABBITRY_BROKER": self.url}
        grading = environment | self._database(App.GRADING)
        # Only the records of grading are read by the dashboard; it asks a crawl's keeper over the broker.
        web = grading | {LISTENER: str(self.page.fileno())}
        # A healthy start is quiet: of these three only what is wrong is of interest.
        quiet = self._verbosity(Level.WARNING if self.level is Level.INFO else self.level)
        children = []
        if App.CRAWL in self.apps:
            roles = ["crawl", "run", *self.declaring.crawl, *quiet]
            children.append(Child("crawl", roles, environment | self._database(App.CRAWL)))
        if App.GRADING in self.apps:
            roles = ["grading", "run", *self.people, *self.declaring.roles, *self._verbosity(self.level)]
            children.append(Child("grading", roles, grading))
        if App.MONITOR in self.apps:
            # The page may start later than the agent; a sample that came too early must not cost it 5 s.
            agent = ["monitor", "publish", "--http", str(self.http_port), "--probe-interval", "1"]
            children.append(Child("the agent", [*agent, *self.declaring.agent, *quiet], environment))
        children.append(Child("the dashboard", ["web", *self.declaring.page, *quiet], web, (self.page.fileno(),)))
        if self.listener is not None:
            own = environment | {LISTENER: str(self.listener.fileno())}
            broker = ["broker", *self.broker, *quiet]
            children.append(Child("the broker", broker, own, (self.listener.fileno(),)))
        return children

    def _database(self, app: App) -> dict[str, str]:
        return {DATABASE: self.databases[app]} if app in self.databases else {}

    def _verbosity(self, level: Level) -> list[str]:
        return ["--log-level", level.value, *(["--log-json"] if self.as_json else [])]


async def _run(plan: _Plan, stop: asyncio.Event) -> int:
    children = plan.children()
    names = ", ".join(child.name for child in reversed(children))
    where = "" if plan.listener is None else f"broker on amqp://{HOST}:{plan.listener.getsockname()[1]}/; "
    log.info("%sstarting %s", where, names)
    dashboard = next(child for child in children if child.name == "the dashboard")
    announcing = asyncio.create_task(_announce(dashboard, plan.page.getsockname()[1]), name="announce")
    # The broker first: its socket listens already, so the others may connect before it has begun to accept.
    kept = {asyncio.create_task(_keep(child, announcing)): child for child in reversed(children)}
    stopping = asyncio.create_task(stop.wait(), name="stop")
    ended: tuple[Child, int] | None = None
    try:
        done, _ = await asyncio.wait((*kept, stopping), return_when=asyncio.FIRST_COMPLETED)
        if stopping in done:
            log.info("stopping %s; a second Ctrl-C ends them at once", names)
        else:
            task = next(iter(done))
            ended = kept[task], task.result()
    finally:
        announcing.cancel()
        stopping.cancel()
        for child in children:
            await child.end()
        for task in kept:
            task.cancel()
        await asyncio.gather(*kept, announcing, stopping, return_exceptions=True)
    if ended is None:
        return ExitCode.DONE
    child, code = ended
    child.say_end(code)
    return code if code > 0 else ExitCode.FAILED


async def _keep(child: Child, announcing: asyncio.Task[None]) -> int:
    if child.name in (App.GRADING, App.CRAWL):
        # Whoever waits for the page is served first: on a small machine one more start would take its processors.
        await asyncio.wait([announcing])
    return await child.keep()


async def _announce(dashboard: Child, port: int) -> None:
    """Print where the page is, once it is served."""
    await dashboard.ready.wait()
    bold, plain = ("\x1b[1m", "\x1b[0m") if sys.stdout.isatty() and not os.environ.get("NO_COLOR") else ("", "")
    print(f"\n  Your machines, live: {bold}http://{HOST}:{port}/{plain}   (Ctrl-C stops everything)\n", flush=True)


def _apps(text: str | None, *, has_broker: bool) -> frozenset[App]:
    """Read `--apps`. Raises UsageError for what is no app, and for a crawl without what it needs."""
    lacking = next((name for name in CRAWL_MODULES if find_spec(name) is None), None)
    if text is None:
        if has_broker:
            return frozenset([App.MONITOR])
        if lacking is None:
            return frozenset(App)
        log.info("without the roles of a crawl: %s", _how_to_crawl(lacking))
        return frozenset(App) - {App.CRAWL}
    names = [name for name in (part.strip() for part in text.split(",")) if name]
    for name in names:
        if name not in set(App):
            raise UsageError(f"--apps {name!r} is no app: choose among {', '.join(App)}")
    if App.CRAWL in names and lacking is not None:
        raise UsageError(f"--apps {App.CRAWL}: {_how_to_crawl(lacking)}")
    return frozenset(App(name) for name in names)


def _how_to_crawl(lacking: str) -> str:
    from rabbitry._installing import missing

    return missing("`rabbitry crawl run`", ModuleNotFoundError(name=lacking), "crawl")


@contextlib.contextmanager
def _records(data: Path | None, memory: bool) -> Iterator[dict[App, str]]:
    """Yield the URLs of the apps' records, where they are not the usual ones.

    The pages and the roles are processes of their own, so what is in memory is a folder that goes at the end.
    A database that RABBITRY_DATABASE names is used beside --data. Raises UsageError for one beside --memory.
    """
    if memory:
        if os.environ.get(DATABASE):
            raise UsageError(f"--memory keeps nothing, and {DATABASE} names a database: unset one of them")
        with tempfile.TemporaryDirectory(prefix="rabbitry-") as folder:
            yield _files(Path(folder))
    elif data is not None and not os.environ.get(DATABASE):
        yield _files(data.absolute())
    else:
        yield {}


def _files(folder: Path) -> dict[App, str]:
    return {app: f"sqlite:///{folder / RECORDS.format(app=app)}" for app in (App.GRADING, App.CRAWL)}


def _listen(port: int | None, default: int, option: str, beside: bool) -> socket.socket:
    """Return a socket that listens on a port, or on the default one; on a free one where `beside` and that is taken."""
    try:
        return listen(HOST, default if port is None else port)[0]
    except PortTaken as error:
        if port is None and beside:
            return listen(HOST, 0)[0]
        beside_another = "" if port is not None else "; beside another rabbitry up: --port 0 --data DIR"
        raise UsageError(f"{error} ({option} 0 takes a free one{beside_another})") from error


def _broker_listener(port: int) -> socket.socket:
    try:
        return listen(HOST, port)[0]
    except PortTaken as error:
        greeting = _greeting(port)
        if greeting is None:
            text = (
                f"port {port} is taken{by_whom(port)}, and nothing answered there within {_ANSWER_WITHIN:g} s. "
                "Try again where that is a broker that starts, or take another port: --port 0"
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
    """Return the first bytes (11 at most) of a server's answer to the AMQP protocol header; None where none comes."""
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
