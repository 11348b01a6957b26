"""`rabbitry grading`: the roles, and what students need; records and inboxes are in grading_records.py."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rabbitry.cli import grading_inbox, grading_records
from rabbitry.cli.grading_records import DatabaseURL, database_url
from rabbitry.exceptions import RequestTimeout, UsageError
from rabbitry.runtime.logging import Level
from rabbitry.runtime.options import (
    Broker,
    ConnectAttempts,
    Json,
    LogJson,
    LogLevel,
    Plain,
    Strict,
    broker_url,
    start_logging,
)
from rabbitry.runtime.output import ExitCode, fail, one_line, print_json, warn
from rabbitry.runtime.parent import ready
from rabbitry.runtime.service import GRACE, run_once, run_service

if TYPE_CHECKING:
    from rabbitry.apps.grading.stages import Seat, Wiring
    from rabbitry.apps.grading.students import Entry

app = typer.Typer()
grading_records.add_to(app)
app.add_typer(grading_inbox.app, name="inbox", help="What waits for people to decide.", no_args_is_help=True)

DEADLINE = 10.0
WATCH = 0.5
"""Seconds between two questions of `status --watch`."""
LOOK = 5.0
"""Seconds between two looks whether anybody takes a submission whose status does not change."""


class ExchangeType(StrEnum):
    """The values of `--exchange-type`."""

    DIRECT = "direct"
    FANOUT = "fanout"


class RoleChoice(StrEnum):
    """The values of `--person`."""

    DEMONSTRATOR = "demonstrator"
    ASSISTANT = "assistant"
    COORDINATOR = "coordinator"


Config = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="The modules (TOML, see docs/grading.md); RABBITRY_GRADING and the user's grading.toml otherwise.",
        show_default=False,
    ),
]
ExchangeName = Annotated[str, typer.Option("--exchange", metavar="NAME", help="The exchange.")]
Type = Annotated[ExchangeType, typer.Option("--exchange-type", help="fanout: every role sees every message.")]
Person = Annotated[
    bool, typer.Option("--person", help="What arrives waits in this role's inbox for a person to decide.")
]
People = Annotated[
    list[RoleChoice] | None,
    typer.Option("--person", help="A role in which people decide; may be repeated.", show_default=False),
]
EXCHANGE = "assignment_exchange"


def _wiring(config: Path | None, exchange: str, type_: ExchangeType, plain: bool) -> Wiring:
    from rabbitry.apps.grading.modules import load_course
    from rabbitry.apps.grading.stages import Wiring

    if not exchange:
        raise UsageError("the default exchange can't be bound to; give another one's name")
    return Wiring(load_course(config), exchange, type_.value, plain)


# -- students --------------------------------------------------------------------------------------------


@app.command("submit")
def submit(
    context: typer.Context,
    path: Annotated[str, typer.Argument(metavar="FILE|DIR", help="A file, or a folder with a file for each.")],
    module: Annotated[str, typer.Option("--module", metavar="NAME", help="The module, e.g. cloud_computing.")],
    student: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBER", help="The student's number; without, the one that a file's name begins with.",
            show_default=False,
        ),
    ] = None,
    config: Config = None,
    exchange: ExchangeName = EXCHANGE,
    exchange_type: Type = ExchangeType.DIRECT,
    plain: Plain = False,
    strict: Strict = False,
    broker: Broker = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Hand in a file, or all files of a folder; prints the id of each once the broker has confirmed it.

    Example: rabbitry grading submit solution.py --student 23200858 --module cloud_computing
    """
    from rabbitry.apps.grading.students import entries, submit_all

    url = broker_url(context, broker)
    wiring = _wiring(config, exchange, exchange_type, plain)
    if not path:  # an empty variable of a script, which as a Path would be the folder it runs in
        raise UsageError("the file's name is empty")
    wanted = entries(Path(path), student, module, wiring.course)

    def tell(entry: Entry, identity: str) -> None:
        if as_json:
            print_json({"id": identity, "student": entry.student, "module": entry.module.name, "file": str(entry.path)})
        elif len(wanted) == 1:
            print(identity, flush=True)
        else:
            print(f"{identity}  {one_line(entry.path.name)}", flush=True)

    async def work() -> int:
        with _progress(len(wanted)) as advance:

            def told(entry: Entry, identity: str) -> None:
                advance()
                tell(entry, identity)

            await submit_all(wiring, url, wanted, told, strict=strict)
        return ExitCode.DONE

    raise typer.Exit(run_once(work()))


@contextlib.contextmanager
def _progress(total: int) -> Iterator[Any]:
    """Yield a function to call for each file that is done; it moves a bar where stderr is a terminal."""
    if total == 1 or not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import Progress

    # On a terminal the ids go above the bar; what goes into a pipe or file must stay there.
    above = sys.stdout.isatty()
    with Progress(console=Console(stderr=True), transient=True, redirect_stdout=above) as bar:
        task = bar.add_task("submitting", total=total)
        yield lambda: bar.advance(task)


@app.command("status")
def status(
    context: typer.Context,
    id: Annotated[
        str, typer.Argument(metavar="ID", help="What submit printed, or a unique beginning of 4 letters or more.")
    ],
    watch: Annotated[bool, typer.Option("--watch", help="Go on until it is confirmed; print each change.")] = False,
    database: DatabaseURL = None,
    broker: Broker = None,
    as_json: Json = False,
) -> None:
    """Show what became of a submission: asks the coordinator over the broker, or the course's database where named.

    Exit code 1 where nothing is known of it. Example: rabbitry grading status 3f2a --watch
    """
    named = grading_records.named_database(context, database)
    url = broker_url(context, broker)

    async def work() -> int:
        from rabbitry.apps.grading.modules import load_course
        from rabbitry.apps.grading.waiting import missing_role

        course = load_course(None) if watch else None
        async with grading_records.asking(named, url) as ask:
            shown: dict[str, Any] | None = None
            wanted = id
            is_told = False
            missing, look_at = "", 0.0
            clock = asyncio.get_running_loop().time
            while True:
                try:
                    found = await ask(wanted)
                except RequestTimeout as error:
                    if not watch:
                        raise
                    found = None
                    if not is_told:
                        warn(f"{error}; waiting")
                        is_told = True
                wanted = id if found is None else found["id"]  # a beginning may become that of another, too
                if found is not None and (shown is None or found["history"] != shown["history"]):
                    _show_status(found, shown, as_json)
                    shown = found
                    look_at = clock()
                if not watch and found is None:
                    fail(f"nothing is recorded of {id!r} (yet)")
                if not watch or (found is not None and found["status"] == "confirmed"):
                    return ExitCode.DONE
                if found is not None and course is not None and clock() >= look_at:
                    said = await missing_role(url, found, course) or ""
                    if said != missing and said:
                        warn(said)
                    missing, look_at = said, clock() + LOOK
                await asyncio.sleep(WATCH)

    raise typer.Exit(run_once(work(), is_endless=watch))


def _show_status(found: Mapping[str, Any], before: Mapping[str, Any] | None, as_json: bool) -> None:
    if as_json:
        print_json(dict(found))
        return
    if before is None:
        late = "" if found["latest"] else ", and there is a newer one"
        module = found["module"] or "no module"
        print(one_line(f"student {found['student']}, {module}, attempt {found['attempt']}{late}"))
    for hop in found["history"][len(before["history"]) if before else 0 :]:
        mark = "" if hop["mark"] is None else f"  {hop['mark']:g}"
        mark += "" if not mark or hop["out_of"] is None else f" of {hop['out_of']:g}"
        text = hop["remark"] or hop["feedback"] or ""
        print(one_line(f"{hop['at'][:19]}  {hop['status']:10} by {hop['role']} {hop['who']}{mark}  {text}"), flush=True)
    if not found["history"]:
        print(one_line(found["status"]))


# -- roles -----------------------------------------------------------------------------------------------


@app.command("demonstrator")
def demonstrator(
    context: typer.Context,
    module: Annotated[
        str | None, typer.Option("--module", metavar="NAME", help="The module; without, the queue for all.")
    ] = None,
    person: Person = False,
    config: Config = None,
    exchange: ExchangeName = EXCHANGE,
    exchange_type: Type = ExchangeType.DIRECT,
    plain: Plain = False,
    strict: Strict = False,
    connect_attempts: ConnectAttempts = None,
    database: DatabaseURL = None,
    broker: Broker = None,
    log_level: LogLevel = Level.INFO,
    log_json: LogJson = False,
) -> None:
    """Correct what is submitted, by the module's marking scheme or a person, until SIGTERM or Ctrl-C.

    Example: rabbitry grading demonstrator --module cloud_computing
    """
    from rabbitry.apps.grading.stages import Seat

    start_logging(log_level, log_json)
    wiring = _wiring(config, exchange, exchange_type, plain)
    seat = Seat("demonstrator", None if module is None else wiring.course.module(module), person)
    _serve(wiring, [seat], broker_url(context, broker), database_url(context, database), strict, connect_attempts)


@app.command("assistant")
def assistant(
    context: typer.Context,
    person: Person = False,
    config: Config = None,
    exchange: ExchangeName = EXCHANGE,
    exchange_type: Type = ExchangeType.DIRECT,
    plain: Plain = False,
    strict: Strict = False,
    connect_attempts: ConnectAttempts = None,
    database: DatabaseURL = None,
    broker: Broker = None,
    log_level: LogLevel = Level.INFO,
    log_json: LogJson = False,
) -> None:
    """Validate what is corrected, until SIGTERM or Ctrl-C; a person may also send it back.

    Example: rabbitry grading assistant --person
    """
    from rabbitry.apps.grading.stages import Seat

    start_logging(log_level, log_json)
    wiring = _wiring(config, exchange, exchange_type, plain)
    seats = [Seat("assistant", person=person)]
    _serve(wiring, seats, broker_url(context, broker), database_url(context, database), strict, connect_attempts)


@app.command("coordinator")
def coordinator(
    context: typer.Context,
    person: Person = False,
    config: Config = None,
    exchange: ExchangeName = EXCHANGE,
    exchange_type: Type = ExchangeType.DIRECT,
    plain: Plain = False,
    strict: Strict = False,
    connect_attempts: ConnectAttempts = None,
    database: DatabaseURL = None,
    broker: Broker = None,
    log_level: LogLevel = Level.INFO,
    log_json: LogJson = False,
) -> None:
    """Confirm what is validated and keep the records of the course, until SIGTERM or Ctrl-C.

    Example: rabbitry grading coordinator
    """
    from rabbitry.apps.grading.stages import Seat

    start_logging(log_level, log_json)
    wiring = _wiring(config, exchange, exchange_type, plain)
    seats = [Seat("coordinator", person=person)]
    _serve(wiring, seats, broker_url(context, broker), database_url(context, database), strict, connect_attempts)


@app.command("run")
def run_all(
    context: typer.Context,
    person: People = None,
    config: Config = None,
    exchange: ExchangeName = EXCHANGE,
    exchange_type: Type = ExchangeType.DIRECT,
    plain: Plain = False,
    strict: Strict = False,
    connect_attempts: ConnectAttempts = None,
    database: DatabaseURL = None,
    broker: Broker = None,
    log_level: LogLevel = Level.INFO,
    log_json: LogJson = False,
) -> None:
    """Run all roles in one process, until SIGTERM or Ctrl-C.

    Example: rabbitry grading run --person assistant
    """
    from rabbitry.apps.grading.stages import Seat

    start_logging(log_level, log_json)
    wiring = _wiring(config, exchange, exchange_type, plain)
    people = {choice.value for choice in person or ()}
    modules = [*wiring.course.modules.values(), None]
    seats = [Seat("demonstrator", module, "demonstrator" in people) for module in modules]
    seats += [Seat("assistant", person="assistant" in people), Seat("coordinator", person="coordinator" in people)]
    _serve(wiring, seats, broker_url(context, broker), database_url(context, database), strict, connect_attempts)


def _serve(
    wiring: Wiring, seats: list[Seat], url: str, database: str, strict: bool, connect_attempts: int | None
) -> None:
    """Run roles until a signal; ends the command."""
    from rabbitry.apps.grading.marks import markers_for
    from rabbitry.apps.grading.records import Database
    from rabbitry.apps.grading.service import run
    from rabbitry.apps.grading.stages import Office

    markers = markers_for(wiring.course, seats)

    async def service(stop: asyncio.Event) -> int:
        # A role that keeps nothing needs no database.
        keeps = any(seat.person or seat.role == "coordinator" for seat in seats)
        with contextlib.ExitStack() as stack:
            opened = stack.enter_context(Database(database)) if keeps else None
            office = Office(wiring, seats, opened, markers)
            is_done = await run(
                office, url, stop,
                strict=strict, connect_attempts=connect_attempts, deadline=DEADLINE, started=ready,
            )  # fmt: skip
        return ExitCode.DONE if is_done else ExitCode.FAILED

    raise typer.Exit(run_service(service, deadline=DEADLINE + 4 * GRACE))
