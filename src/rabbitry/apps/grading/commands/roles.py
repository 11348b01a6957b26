"""`rabbitry grading demonstrator|assistant|coordinator|run`: the roles."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING, Annotated, Final

import typer

from rabbitry.apps.grading.commands.access import database_url
from rabbitry.apps.grading.commands.options import (
    EXCHANGE,
    Config,
    ExchangeName,
    ExchangeType,
    KeptFiles,
    KeyFile,
    People,
    Person,
    Type,
    wiring_of,
)
from rabbitry.runtime.logging import Level
from rabbitry.runtime.options import (
    Broker,
    ConnectAttempts,
    DatabaseURL,
    LogJson,
    LogLevel,
    Plain,
    Strict,
    broker_url,
    start_logging,
)
from rabbitry.runtime.output import ExitCode
from rabbitry.runtime.parent import ready
from rabbitry.runtime.service import GRACE, run_service

if TYPE_CHECKING:
    from pathlib import Path

    from rabbitry.apps.grading.stages import RoleSpec, Wiring

DEADLINE: Final = 10.0
app: typer.Typer = typer.Typer()


@app.command("demonstrator")
def demonstrator(
    context: typer.Context,
    module: Annotated[
        str | None, typer.Option("--module", metavar="NAME", help="The module. Default: the queue for all modules.")
    ] = None,
    *,
    person: Person = False,
    config: Config = None,
    exchange: ExchangeName = EXCHANGE,
    exchange_type: Type = ExchangeType.DIRECT,
    plain: Plain = False,
    strict: Strict = False,
    connect_attempts: ConnectAttempts = None,
    database: DatabaseURL = None,
    key: KeyFile = None,
    broker: Broker = None,
    log_level: LogLevel = Level.INFO,
    log_json: LogJson = False,
) -> None:
    """Correct submissions by the module's marking scheme or in person, until SIGTERM or Ctrl-C.

    Example: rabbitry grading demonstrator --module cloud_computing
    """
    from rabbitry.apps.grading.stages import RoleSpec

    start_logging(log_level, as_json=log_json)
    wiring = wiring_of(config, exchange, exchange_type, plain=plain)
    spec = RoleSpec("demonstrator", None if module is None else wiring.course.module(module), person)
    _serve(
        wiring,
        [spec],
        broker_url(context, broker),
        database_url(context, database),
        key=key,
        strict=strict,
        connect_attempts=connect_attempts,
    )


@app.command("assistant")
def assistant(
    context: typer.Context,
    *,
    person: Person = False,
    config: Config = None,
    exchange: ExchangeName = EXCHANGE,
    exchange_type: Type = ExchangeType.DIRECT,
    plain: Plain = False,
    strict: Strict = False,
    connect_attempts: ConnectAttempts = None,
    database: DatabaseURL = None,
    key: KeyFile = None,
    broker: Broker = None,
    log_level: LogLevel = Level.INFO,
    log_json: LogJson = False,
) -> None:
    """Validate corrected submissions, until SIGTERM or Ctrl-C; a person may also send one back.

    Example: rabbitry grading assistant --person
    """
    from rabbitry.apps.grading.stages import RoleSpec

    start_logging(log_level, as_json=log_json)
    _serve(
        wiring_of(config, exchange, exchange_type, plain=plain),
        [RoleSpec("assistant", person=person)],
        broker_url(context, broker),
        database_url(context, database),
        key=key,
        strict=strict,
        connect_attempts=connect_attempts,
    )


@app.command("coordinator")
def coordinator(
    context: typer.Context,
    *,
    person: Person = False,
    config: Config = None,
    exchange: ExchangeName = EXCHANGE,
    exchange_type: Type = ExchangeType.DIRECT,
    plain: Plain = False,
    strict: Strict = False,
    connect_attempts: ConnectAttempts = None,
    database: DatabaseURL = None,
    key: KeyFile = None,
    files: KeptFiles = None,
    broker: Broker = None,
    log_level: LogLevel = Level.INFO,
    log_json: LogJson = False,
) -> None:
    """Confirm validated submissions and keep the course's records and files, until SIGTERM or Ctrl-C.

    Example: rabbitry grading coordinator
    """
    from rabbitry.apps.grading.stages import RoleSpec

    start_logging(log_level, as_json=log_json)
    _serve(
        wiring_of(config, exchange, exchange_type, plain=plain),
        [RoleSpec("coordinator", person=person)],
        broker_url(context, broker),
        database_url(context, database),
        files=files,
        key=key,
        strict=strict,
        connect_attempts=connect_attempts,
    )


@app.command("run")
def run_all(
    context: typer.Context,
    person: People = None,
    config: Config = None,
    exchange: ExchangeName = EXCHANGE,
    exchange_type: Type = ExchangeType.DIRECT,
    *,
    plain: Plain = False,
    strict: Strict = False,
    connect_attempts: ConnectAttempts = None,
    database: DatabaseURL = None,
    key: KeyFile = None,
    files: KeptFiles = None,
    broker: Broker = None,
    log_level: LogLevel = Level.INFO,
    log_json: LogJson = False,
) -> None:
    """Run all roles in one process, until SIGTERM or Ctrl-C.

    Example: rabbitry grading run --person assistant
    """
    from rabbitry.apps.grading.stages import RoleSpec

    start_logging(log_level, as_json=log_json)
    wiring = wiring_of(config, exchange, exchange_type, plain=plain)
    people = {choice.value for choice in person or ()}
    modules = [*wiring.course.modules.values(), None]
    specs = [RoleSpec("demonstrator", module, "demonstrator" in people) for module in modules]
    specs += [
        RoleSpec("assistant", person="assistant" in people),
        RoleSpec("coordinator", person="coordinator" in people),
    ]
    _serve(
        wiring,
        specs,
        broker_url(context, broker),
        database_url(context, database),
        files=files,
        key=key,
        strict=strict,
        connect_attempts=connect_attempts,
    )


def _serve(
    wiring: Wiring,
    specs: list[RoleSpec],
    url: str,
    database: str,
    *,
    files: str | None = None,
    key: Path | None,
    strict: bool,
    connect_attempts: int | None,
) -> None:
    """Run roles until a signal, and end the command."""
    from rabbitry.apps.grading.files import Bound, Files, default_place
    from rabbitry.apps.grading.marks import markers_for
    from rabbitry.apps.grading.records import Database
    from rabbitry.apps.grading.records.keeping import used
    from rabbitry.apps.grading.service import run
    from rabbitry.apps.grading.signing import signer_for
    from rabbitry.apps.grading.stages import RoleSet

    signer = signer_for(specs, key, wiring.course)
    markers = markers_for(wiring.course, specs)

    async def service(stop: asyncio.Event) -> int:
        # Only roles that store something need a database.
        keeps = any(spec.person or spec.role == "coordinator" for spec in specs)
        with contextlib.ExitStack() as stack:
            opened = stack.enter_context(Database(database)) if keeps else None
            role_set = RoleSet(wiring, specs, opened, markers, signer=signer)
            if opened is not None and any(spec.role == "coordinator" for spec in specs):
                place = files or default_place(database)
                bound = Bound(wiring.course.largest_total, partial(opened.read_now, used))
                files_of = partial(Files, largest=wiring.course.largest_submission, bound=bound)
                role_set.files = await asyncio.to_thread(files_of, place)
            is_done = await run(
                role_set, url, stop,
                strict=strict, connect_attempts=connect_attempts, deadline=DEADLINE, started=ready,
            )  # fmt: skip
        return ExitCode.DONE if is_done else ExitCode.FAILED

    raise typer.Exit(run_service(service, deadline=DEADLINE + 4 * GRACE))
