"""`rabbitry grading requests`: students ask for another look at a mark, demonstrators and assistants answer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rabbitry._ids import NoSuchID
from rabbitry.apps.grading.commands.access import CourseRecords, asking, course_records
from rabbitry.apps.grading.commands.options import (
    EXCHANGE,
    Config,
    ExchangeName,
    ExchangeType,
    KeyFile,
    Type,
    wiring_of,
)
from rabbitry.apps.grading.commands.records import Find, Limit, OfModule, mark_of
from rabbitry.runtime.options import Broker, DatabaseURL, Json, Offset, Plain, Strict, broker_url, named_database
from rabbitry.runtime.output import ExitCode, one_line, print_json, say
from rabbitry.runtime.service import run_once

if TYPE_CHECKING:
    from rabbitry.apps.grading.stages import Wiring

app: typer.Typer = typer.Typer()
ID = Annotated[str, typer.Argument(metavar="ID", help="The submission's id, or a unique prefix of it.")]
By = Annotated[str, typer.Option("--role", metavar="ROLE", help="Who answers: demonstrator or assistant.")]


@app.command("ask")
def ask(
    context: typer.Context,
    id: Annotated[
        str, typer.Argument(metavar="ID", help="The id that submit printed, or a unique prefix of at least 4 letters.")
    ],
    student: Annotated[str, typer.Option(metavar="NUMBER", help="The student's number.")],
    reason: Annotated[str, typer.Option(metavar="TEXT", help="What should be looked at, and why.")],
    config: Config = None,
    exchange: ExchangeName = EXCHANGE,
    exchange_type: Type = ExchangeType.DIRECT,
    *,
    plain: Plain = False,
    strict: Strict = False,
    broker: Broker = None,
    as_json: Json = False,
) -> None:
    """Ask for another look at a confirmed mark (students). The request goes to the coordinator over the broker.

    Example: rabbitry grading requests ask 3f2a --student 23200858 --reason "Test 3 has a wrong expectation"
    """
    from rabbitry.apps.grading.students import request, student_number

    url = broker_url(context, broker)
    wiring = wiring_of(config, exchange, exchange_type, plain=plain)
    who = student_number(student, wiring.course)

    async def work() -> int:
        number = await request(wiring, url, id, who, reason, strict=strict)
        if as_json:
            print_json({"request": number})
        else:
            print(f"request {number}: waits for a demonstrator or an assistant")
        return ExitCode.DONE

    raise typer.Exit(run_once(work()))


@app.command("list")
def list_(
    context: typer.Context,
    module: OfModule = None,
    find: Find = "",
    limit: Limit = None,
    offset: Offset = 0,
    config: Config = None,
    database: DatabaseURL = None,
    broker: Broker = None,
    *,
    as_json: Json = False,
) -> None:
    """List the requests that wait for an answer, oldest first.

    If the records are not on this machine, a coordinator is asked over the broker.

    Example: rabbitry grading requests list --module cloud_computing
    """
    from rabbitry.apps.grading.modules import load_course

    shown = 0
    with course_records(context, database, broker, load_course(config)) as records:
        if records is None:
            return
        for one in _waiting(records, find, module, limit, offset):
            _print_request(one, as_json=as_json)
            shown += 1
    if not shown and not as_json:
        say("no request waits for an answer")


def _waiting(
    records: CourseRecords, find: str, module: str | None, limit: int | None, offset: int
) -> Iterator[dict[str, Any]]:
    """Yield the requests that wait, a page of them at a time."""
    from rabbitry.apps.grading.looking import MOST, Look

    while limit is None or limit > 0:
        each = MOST if limit is None else min(limit, MOST)
        page = records.read(Look("requests", find, module, None, each, offset))["requests"]
        yield from page
        if len(page) < each:
            return
        offset += each
        limit = None if limit is None else limit - each


def _print_request(one: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(one)
    else:
        mark = mark_of(one["mark"], one["out_of"])
        module = one["module"] or "no module"
        print(one_line(f"{one['submission']}  student {one['student']}  {module}  {mark}  {one['reason']}"))


@app.command("uphold")
def uphold(
    context: typer.Context,
    id: ID,
    role: By = "demonstrator",
    remark: Annotated[str, typer.Option(metavar="TEXT", help="A remark for the history.")] = "",
    config: Config = None,
    exchange: ExchangeName = EXCHANGE,
    exchange_type: Type = ExchangeType.DIRECT,
    *,
    plain: Plain = False,
    strict: Strict = False,
    key: KeyFile = None,
    database: DatabaseURL = None,
    broker: Broker = None,
    as_json: Json = False,
) -> None:
    """Uphold a request: the submission is marked again, by all roles. The answer goes to the coordinator.

    Example: rabbitry grading requests uphold 3f2a --role assistant
    """
    wiring = wiring_of(config, exchange, exchange_type, plain=plain)
    given = _Given(id, "upheld", role, remark)
    _answer(context, given, wiring, key, database, broker, strict=strict, as_json=as_json)


@app.command("refuse")
def refuse(
    context: typer.Context,
    id: ID,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why the mark stays.")],
    role: By = "demonstrator",
    config: Config = None,
    exchange: ExchangeName = EXCHANGE,
    exchange_type: Type = ExchangeType.DIRECT,
    *,
    plain: Plain = False,
    strict: Strict = False,
    key: KeyFile = None,
    database: DatabaseURL = None,
    broker: Broker = None,
    as_json: Json = False,
) -> None:
    """Refuse a request: the mark stays, and the student finds the reason in the history.

    Example: rabbitry grading requests refuse 3f2a --reason "The expectation is right: see the sheet"
    """
    wiring = wiring_of(config, exchange, exchange_type, plain=plain)
    given = _Given(id, "refused", role, reason)
    _answer(context, given, wiring, key, database, broker, strict=strict, as_json=as_json)


@dataclass(frozen=True, slots=True)
class _Given:
    """An answer as it was typed. id: of the submission, or a prefix."""

    id: str
    answer: str
    role: str
    remark: str


def _answer(
    context: typer.Context,
    given: _Given,
    wiring: Wiring,
    key: Path | None,
    database: str | None,
    broker: str | None,
    *,
    strict: bool,
    as_json: bool,
) -> None:
    """Send an answer, and end the command."""
    from rabbitry.apps.grading import staff
    from rabbitry.apps.grading.message import user_name
    from rabbitry.apps.grading.signing import signer_of

    url, named = broker_url(context, broker), named_database(context, database)
    signer = signer_of(key, wiring.course)

    async def work() -> int:
        async with asking(named, url) as ask:
            found = await ask(given.id)
        if found is None:
            raise NoSuchID(f"no submission with the id {given.id!r} is recorded")
        waiting = next((one for one in found["requests"] if one["answer"] is None), None)
        if waiting is None:
            raise NoSuchID(f"no request about submission {found['id']} waits for an answer")
        told = staff.made(found["id"], waiting["id"], given.answer, given.role, user_name(), given.remark)
        done = await staff.answer(wiring, url, told, signer=signer, strict=strict)
        if as_json:
            print_json(done.as_dict())
        else:
            print(one_line(f"{done.submission}  request {done.id} {done.answer} by {done.who} ({done.role})"))
        return ExitCode.DONE

    raise typer.Exit(run_once(work()))
