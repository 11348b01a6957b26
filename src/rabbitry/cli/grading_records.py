"""`rabbitry grading inbox|results|export`: what people decide, and what the records of a course hold."""

from __future__ import annotations

import contextlib
import csv
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias, cast

import typer

from rabbitry.cli._common import (
    Broker,
    ExitCode,
    Json,
    Plain,
    Strict,
    broker_url,
    many_lines,
    one_line,
    print_json,
    warn,
)
from rabbitry.cli._service import run_once
from rabbitry.exceptions import UsageError

if TYPE_CHECKING:
    from rabbitry.apps.grading.records import Database
    from rabbitry.apps.grading.records.inbox import Item
    from rabbitry.apps.grading.roles import RoleName

DatabaseURL = Annotated[
    str | None,
    typer.Option(
        "--database",
        envvar="RABBITRY_DATABASE",
        metavar="URL",
        help="sqlite:///FILE or postgresql://user@host/name; a file in the user's data folder otherwise.",
        show_default=False,
    ),
]
RoleOption = Annotated[
    str | None, typer.Option("--role", metavar="ROLE", help="demonstrator, assistant or coordinator.")
]
ItemId = Annotated[str, typer.Argument(metavar="ID", help="The submission's id.")]
Ask: TypeAlias = "Callable[[str], Awaitable[dict[str, Any] | None]]"

inbox_app = typer.Typer()


class Format(StrEnum):
    """The values of `export --format`."""

    CSV = "csv"
    JSON = "json"


def add_to(app: typer.Typer) -> None:
    """Add these commands to those of `rabbitry grading`."""
    app.add_typer(inbox_app, name="inbox", help="What waits for people to decide.", no_args_is_help=True)
    app.command("results")(results)
    app.command("export")(export)


def named_database(context: typer.Context, url: str | None) -> str | None:
    """Give the database's URL where one was named, with a warning about a password on the command line."""
    source = context.get_parameter_source("database")
    if url is not None and source is not None and source.name == "COMMANDLINE" and _has_password(url):
        warn(
            "other users of this machine can see a password in --database; "
            "put the URL into the environment as RABBITRY_DATABASE instead"
        )
    return url


def database_url(context: typer.Context, url: str | None) -> str:
    """Give the database's URL, by default that of a file in the user's data folder."""
    named = named_database(context, url)
    if named is not None:
        return named
    from rabbitry.apps.grading.records import default_url

    return default_url()


def _has_password(url: str) -> bool:
    authority = url.partition("://")[2].partition("/")[0]
    return "@" in authority and ":" in authority.rpartition("@")[0]


@contextlib.contextmanager
def _opened(context: typer.Context, url: str | None) -> Iterator[Database]:
    from rabbitry.apps.grading.records import Database

    with Database(database_url(context, url)) as database:
        yield database


@contextlib.asynccontextmanager
async def asking(database: str | None, broker: str) -> AsyncIterator[Ask]:
    """Give what tells of a submission: the course's database where one is named, else a coordinator."""
    if database is None:
        from rabbitry.apps.grading.students import Asking

        async with Asking(broker) as asked:
            yield asked.ask
        return
    from rabbitry.apps.grading.records import Database
    from rabbitry.apps.grading.records.course import submission

    with Database(database) as records:

        async def ask(identity: str) -> dict[str, Any] | None:
            found = await records.read(partial(submission, identity=identity))
            return None if found is None else found[0].as_dict() | {"history": [hop.as_dict() for hop in found[1]]}

        yield ask


# -- inbox -----------------------------------------------------------------------------------------------


@inbox_app.command("list")
def list_(context: typer.Context, role: RoleOption = None, database: DatabaseURL = None, as_json: Json = False) -> None:
    """List what waits for a decision, oldest first.

    Example: rabbitry grading inbox list --role assistant
    """
    from rabbitry.apps.grading.records.inbox import waiting
    from rabbitry.apps.grading.roles import ROLES

    wanted = [_role(role)] if role is not None else list(ROLES)
    with _opened(context, database) as records:
        for name in wanted:
            for item in records.read_now(partial(waiting, role=name)):
                found = item.assignment
                if as_json:
                    print_json(_described(item))
                    continue
                mark = _mark(found.get("Mark"), found.get("OutOf"))
                student, module = f"student {found.student}", found.module or "no module"
                print(
                    one_line(f"{found.id}  {item.role:12}  {student}  {module}  {mark}  since {item.arrived_at[:19]}")
                )


@inbox_app.command("show")
def show(
    context: typer.Context, id: ItemId, role: RoleOption = None, database: DatabaseURL = None, as_json: Json = False
) -> None:
    """Show what waits with an id: the solution, and its history.

    Example: rabbitry grading inbox show 3f2a
    """
    from rabbitry.apps.grading.records.inbox import item

    with _opened(context, database) as records:
        found = records.read_now(partial(item, identity=id, role=None if role is None else _role(role)))
    if as_json:
        print_json(_described(found) | {"solution": found.assignment.solution_text()})
        return
    assignment = found.assignment
    for name, value in (
        ("id", assignment.id),
        ("role", found.role),
        ("student", assignment.student),
        ("module", assignment.module),
        ("file", assignment.name),
        ("arrived", found.arrived_at[:19]),
        ("mark", _mark(assignment.get("Mark"), assignment.get("OutOf"))),
        ("feedback", assignment.get("Feedback") or ""),
        *(("remark", remark) for remark in assignment.remarks),
    ):
        if value:
            print(f"{name:10}{one_line(str(value))}")
    print(many_lines(assignment.solution_text()))


@inbox_app.command("decide")
def decide(
    context: typer.Context,
    id: ItemId,
    role: RoleOption = None,
    mark: Annotated[float | None, typer.Option(help="The demonstrator's mark.", show_default=False)] = None,
    out_of: Annotated[float | None, typer.Option(help="What the mark is out of.", show_default=False)] = None,
    feedback: Annotated[str | None, typer.Option(metavar="TEXT", help="Why that mark.", show_default=False)] = None,
    send_back: Annotated[
        str | None, typer.Option(metavar="REMARK", help="The assistant's no, and why.", show_default=False)
    ] = None,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="The modules.", show_default=False)] = None,
    database: DatabaseURL = None,
    as_json: Json = False,
) -> None:
    """Decide: the demonstrator corrects, the assistant validates or sends back, the coordinator confirms.

    It is recorded, and published by the role that runs with --person. Example:
    rabbitry grading inbox decide 3f2a --mark 8 --out-of 10 --feedback "Good, but slow"
    """
    from rabbitry.apps.grading.message import Decision, user_name
    from rabbitry.apps.grading.modules import load_course
    from rabbitry.apps.grading.records.inbox import item, settle
    from rabbitry.apps.grading.roles import role_named

    course = load_course(config)
    decision = Decision(user_name(), mark, out_of, feedback, send_back)
    wanted = None if role is None else _role(role)
    with _opened(context, database) as records:
        found = records.read_now(partial(item, identity=id, role=wanted))
        action = "send-back" if send_back is not None else role_named(found.role).actions[0]
        done = records.write_now(partial(settle, found=found, action=action, decision=decision, course=course))
    if as_json:
        print_json({"id": done.id, "role": found.role, "status": done.status})
    else:
        print(f"{done.id}  {done.status}")


def _role(name: str) -> RoleName:
    from rabbitry.apps.grading.roles import role_named

    return role_named(name).name


def _mark(mark: object, out_of: object) -> str:
    from rabbitry.apps.grading.message import number

    given, total = number(mark), number(out_of)
    if given is None:
        return "no mark"
    return f"{given:g}" if total is None else f"{given:g} of {total:g}"


def _described(item: Item) -> dict[str, Any]:
    assignment = item.assignment
    return {
        "id": assignment.id,
        "role": item.role,
        "arrived_at": item.arrived_at,
        "student": assignment.student,
        "module": assignment.module,
        "file": assignment.name,
        "mark": assignment.get("Mark"),
        "out_of": assignment.get("OutOf"),
        "feedback": assignment.get("Feedback"),
        "remarks": assignment.remarks,
        "history": assignment.history,
    }


# -- records ---------------------------------------------------------------------------------------------


def results(
    context: typer.Context,
    follow: Annotated[bool, typer.Option("--follow", help="Print results as they come over the broker.")] = False,
    exchange: Annotated[str, typer.Option(metavar="NAME", help="The exchange.")] = "assignment_exchange",
    exchange_type: Annotated[str, typer.Option(metavar="TYPE", help="direct or fanout.")] = "direct",
    plain: Plain = False,
    strict: Strict = False,
    database: DatabaseURL = None,
    broker: Broker = None,
    as_json: Json = False,
) -> None:
    """Print the results that the records hold, or with --follow those that come, until Ctrl-C.

    Example: rabbitry grading results --follow
    """
    if not follow:
        from rabbitry.apps.grading.records.course import submissions_of

        with _opened(context, database) as records:
            for found in records.read_now(partial(submissions_of, status="confirmed")):
                if as_json:
                    print_json(found.as_dict())
                else:
                    _print_result(found.id, found.student, found.module, found.mark, found.out_of)
        return
    url = broker_url(context, broker)
    if exchange_type not in ("direct", "fanout"):
        raise UsageError(f"--exchange-type is direct or fanout, and not {exchange_type!r}")
    if not exchange:
        raise UsageError("the default exchange can't be bound to; give another one's name")

    async def work() -> int:
        from rabbitry.apps.grading.stages import Wiring
        from rabbitry.apps.grading.students import results as coming

        kind = cast("Any", exchange_type)  # one of the two, as was just seen
        async for fields in coming(Wiring(exchange=exchange, exchange_type=kind, plain=plain), url, strict=strict):
            if as_json:
                print_json(fields)
                continue
            _print_result(*(fields.get(name) for name in ("SubmissionID", "StudentID", "Module", "Mark", "OutOf")))
        return ExitCode.DONE

    raise typer.Exit(run_once(work()))


def _print_result(identity: object, student: object, module: object, mark: object, out_of: object) -> None:
    text = f"{identity or '-'}  student {student}  {module or 'no module'}  {_mark(mark, out_of)}"
    print(one_line(text), flush=True)


def export(
    context: typer.Context,
    format_: Annotated[Format, typer.Option("--format", help="One row, or one JSON object a line, each.")] = Format.CSV,
    database: DatabaseURL = None,
) -> None:
    """Print all submissions of the records: student, module, attempt, status, mark, feedback; as JSON, their histories.

    Example: rabbitry grading export --format csv > course.csv
    """
    from rabbitry.apps.grading.records.course import Submission, histories, submissions_of

    with _opened(context, database) as records:
        rows = records.read_now(submissions_of)
        hops = records.read_now(histories) if format_ is Format.JSON else {}
    if format_ is Format.JSON:
        for row in rows:
            print_json(row.as_dict() | {"history": [hop.as_dict() for hop in hops.get(row.id, [])]})
        return
    # All text in quotes: a spreadsheet that divides at `;` would find a formula behind one.
    writer = csv.DictWriter(sys.stdout, list(Submission.__dataclass_fields__), quoting=csv.QUOTE_NONNUMERIC)
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _cell(value) for name, value in row.as_dict().items()})


_FORMULA: Final = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")
"""What a formula begins with; the last four are the first four in full width."""


def _cell(value: object) -> object:
    """Keep a spreadsheet from taking a student's text for a formula (OWASP, CSV injection), and a terminal from
    acting on it.
    """
    if not isinstance(value, str):
        return value
    safe = f"'{value}" if value.lstrip(" \ufeff").startswith(_FORMULA) else value
    return "".join(letter if letter.isprintable() or letter in "\n\t" else " " for letter in safe)
