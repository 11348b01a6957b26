"""`rabbitry grading requests`: students ask for another look at a mark, demonstrators and assistants answer."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from rabbitry._ids import NoSuchID
from rabbitry.apps.grading.commands.options import (
    EXCHANGE,
    Config,
    ExchangeName,
    ExchangeType,
    KeptFiles,
    Type,
    check_exchange,
    wiring_of,
)
from rabbitry.apps.grading.commands.records import Find, Limit, OfModule, database_url, existing, mark_of
from rabbitry.runtime.options import Broker, DatabaseURL, Json, Offset, Plain, Strict, broker_url
from rabbitry.runtime.output import ExitCode, one_line, print_json, say
from rabbitry.runtime.service import run_once

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
    database: DatabaseURL = None,
    *,
    as_json: Json = False,
) -> None:
    """List the requests that wait for an answer, oldest first.

    Example: rabbitry grading requests list --module cloud_computing
    """
    from rabbitry.apps.grading.records.course import Filter
    from rabbitry.apps.grading.records.requests import waiting

    wanted = Filter(find, module, None, limit, offset)
    with existing(context, database) as records:
        found = [] if records is None else records.read_now(partial(waiting, wanted=wanted))
    for one in found:
        if as_json:
            print_json(one.as_dict())
        else:
            mark = mark_of(one.mark, one.out_of)
            print(
                one_line(f"{one.submission}  student {one.student}  {one.module or 'no module'}  {mark}  {one.reason}")
            )
    if records is not None and not found and not as_json:
        say("no request waits for an answer")


@app.command("uphold")
def uphold(
    context: typer.Context,
    id: ID,
    role: By = "demonstrator",
    remark: Annotated[str, typer.Option(metavar="TEXT", help="A remark for the history.")] = "",
    config: Config = None,
    exchange: ExchangeName = EXCHANGE,
    files: KeptFiles = None,
    database: DatabaseURL = None,
    *,
    as_json: Json = False,
) -> None:
    """Uphold a request: the submission is marked again, by all roles; a running coordinator publishes it.

    Example: rabbitry grading requests uphold 3f2a --role assistant
    """
    check_exchange(exchange)
    kept = True, files
    _answer(context, id, "upheld", role, remark, config, exchange, kept, database, as_json=as_json)


@app.command("refuse")
def refuse(
    context: typer.Context,
    id: ID,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why the mark stays.")],
    role: By = "demonstrator",
    config: Config = None,
    database: DatabaseURL = None,
    *,
    as_json: Json = False,
) -> None:
    """Refuse a request: the mark stays, and the student finds the reason in the history.

    Example: rabbitry grading requests refuse 3f2a --reason "The expectation is right: see the sheet"
    """
    kept = False, None
    _answer(context, id, "refused", role, reason, config, EXCHANGE, kept, database, as_json=as_json)


def _answer(
    context: typer.Context,
    id: str,
    given: str,
    role: str,
    remark: str,
    config: Config,
    exchange: str,
    kept: tuple[bool, str | None],
    database: str | None,
    *,
    as_json: bool,
) -> None:
    """Record an answer. kept: whether the file is needed, and the place that was named for it."""
    from rabbitry.apps.grading.exporting import opened_files
    from rabbitry.apps.grading.message import Decision, user_name
    from rabbitry.apps.grading.modules import load_course
    from rabbitry.apps.grading.records.course import submission_of
    from rabbitry.apps.grading.records.requests import answer, request_of

    course = load_course(config)
    with existing(context, database) as records:
        if records is None:
            raise NoSuchID(f"no submission with the id {id!r} is recorded")
        found = records.read_now(partial(request_of, given=id))
        data = None
        if kept[0]:
            one = records.read_now(partial(submission_of, given=found.submission))
            files = opened_files(records, database_url(context, database), kept[1])
            data = None if one.kept is None else files.fetch(one.kept)
        decision = Decision(user_name(), remark=remark)
        work = partial(answer, number=found.id, given=given, role=role, decision=decision, data=data, course=course)
        done = records.write_now(partial(work, exchange=exchange))
    if as_json:
        print_json(done.as_dict())
    else:
        print(one_line(f"{done.submission}  request {done.id} {done.answer} by {done.who} ({done.role})"))
