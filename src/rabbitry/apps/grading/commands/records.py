"""`rabbitry grading results|export`, and access to a course's records for all commands of grading."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias

import typer

from rabbitry._ids import NoSuchID
from rabbitry._words import counted
from rabbitry.apps.exceptions import NoRecords
from rabbitry.apps.grading.commands.options import EXCHANGE, Config, ExchangeName, ExchangeType, Type, check_exchange
from rabbitry.exceptions import UsageError
from rabbitry.runtime.options import Broker, DatabaseURL, Json, Offset, Plain, Strict, broker_url, named_database
from rabbitry.runtime.output import ExitCode, one_line, print_json, say, warn
from rabbitry.runtime.service import run_once

if TYPE_CHECKING:
    from rabbitry.apps.grading.looking import Look
    from rabbitry.apps.grading.modules import Course
    from rabbitry.apps.grading.records import Database
    from rabbitry.apps.grading.records.course import Filter

Find = Annotated[
    str, typer.Option(metavar="TEXT", help="Only those whose student number or id begins with it.", show_default=False)
]
OfModule = Annotated[
    str | None, typer.Option("--module", metavar="NAME", help="Only those of this module.", show_default=False)
]
Limit = Annotated[int | None, typer.Option(min=1, help="At most so many.", show_default=False)]
app: typer.Typer = typer.Typer()
LookAt: TypeAlias = "Callable[[Look], Awaitable[Any]]"
Ask: TypeAlias = "Callable[[str], Awaitable[dict[str, Any] | None]]"


class Format(StrEnum):
    """The values of `export --format`."""

    CSV = "csv"
    JSON = "json"


def database_url(context: typer.Context, url: str | None) -> str:
    """Return the database's URL, by default that of a file in the user's data folder."""
    named = named_database(context, url)
    if named is not None:
        return named
    from rabbitry.apps.grading.records import default_url

    return default_url()


@contextlib.contextmanager
def existing(context: typer.Context, url: str | None) -> Iterator[Database | None]:
    """Open existing records; None, with a note on stderr, if there are none yet. Creates nothing."""
    from rabbitry.apps.grading.records import Database

    with contextlib.ExitStack() as stack:
        opened = None
        try:
            opened = stack.enter_context(Database(database_url(context, url), existing=True))
        except NoRecords as error:
            say(str(error))
        yield opened


@contextlib.asynccontextmanager
async def asking(database: str | None, broker: str) -> AsyncIterator[Ask]:
    """Return a function that looks up a submission: in the database if one is named, else by asking a coordinator."""
    if database is None:
        from rabbitry.apps.grading.asking import Asking

        async with Asking(broker) as asked:
            yield asked.ask
        return
    from rabbitry.apps.grading.modules import load_course
    from rabbitry.apps.grading.records import Database
    from rabbitry.apps.grading.records.requests import described

    course = load_course()
    with Database(database, existing=True) as records:

        async def ask(identity: str) -> dict[str, Any] | None:
            try:
                return await records.read(partial(described, given=identity, course=course))
            except NoSuchID as error:
                if error.is_ambiguous:
                    raise
                return None

        yield ask


@contextlib.asynccontextmanager
async def looking(database: str | None, broker: str, course: Course) -> AsyncIterator[LookAt]:
    """Return a function that reads a part of the records, of a coordinator if they are not here.

    They are here if a database is named, or if the user's has them. Raises NoRecords if the named one has none.
    """
    from rabbitry.apps.grading import looking
    from rabbitry.apps.grading.asking import Asking
    from rabbitry.apps.grading.records import Database
    from rabbitry.apps.grading.records.course import are_kept

    async with contextlib.AsyncExitStack() as stack:
        records: Database | None = None
        try:
            records = stack.enter_context(Database(database, existing=True))
        except NoRecords:
            if database is not None:
                raise
        if records is None or (database is None and not await records.read(are_kept)):
            yield (await stack.enter_async_context(Asking(broker))).look
            return
        kept = records

        async def look(asked: Look) -> Any:
            return await kept.read(partial(looking.read, asked=asked, course=course))

        yield look


def mark_of(mark: object, out_of: object) -> str:
    """Format a mark received over the wire."""
    from rabbitry.apps.grading.message import number, points

    given = number(mark)
    return "no mark" if given is None else points(given, number(out_of))


# -- records ---------------------------------------------------------------------------------------------


@app.command("results")
def results(
    context: typer.Context,
    *,
    follow: Annotated[bool, typer.Option("--follow", help="Print results as they come over the broker.")] = False,
    exchange: ExchangeName = EXCHANGE,
    exchange_type: Type = ExchangeType.DIRECT,
    plain: Plain = False,
    strict: Strict = False,
    module: OfModule = None,
    find: Find = "",
    limit: Limit = None,
    offset: Offset = 0,
    database: DatabaseURL = None,
    broker: Broker = None,
    as_json: Json = False,
) -> None:
    """Print the recorded results, or with --follow the new ones as they come, until Ctrl-C.

    Example: rabbitry grading results --follow
    """
    if not follow:
        _print_kept(context, database, find, module, limit, offset, as_json=as_json)
        return
    if module is not None or find or limit is not None or offset:
        raise UsageError("--follow can't be combined with --module, --find, --limit or --offset")
    url = broker_url(context, broker)
    check_exchange(exchange)
    coming = _print_coming(url, exchange, exchange_type, plain=plain, strict=strict, as_json=as_json)
    raise typer.Exit(run_once(coming, is_endless=True))


def _print_kept(
    context: typer.Context,
    database: str | None,
    find: str,
    module: str | None,
    limit: int | None,
    offset: int,
    *,
    as_json: bool,
) -> None:
    from rabbitry.apps.grading.records.course import CONFIRMED, Filter, submissions_of

    wanted = Filter(find, module, CONFIRMED, limit, offset)
    with existing(context, database) as records:
        rows = [] if records is None else records.read_now(partial(submissions_of, wanted=wanted))
    for found in rows:
        if as_json:
            print_json(found.as_dict())
        else:
            _print_result(found.id, found.student, found.module, found.mark, found.out_of)
    if records is not None and not rows and not as_json:
        say("no results")


async def _print_coming(
    url: str, exchange: str, exchange_type: ExchangeType, *, plain: bool, strict: bool, as_json: bool
) -> int:
    from rabbitry.apps.grading.stages import Wiring
    from rabbitry.apps.grading.students import results as coming

    wiring = Wiring(exchange=exchange, exchange_type=exchange_type.value, plain=plain)
    async for fields in coming(wiring, url, strict=strict):
        if as_json:
            print_json(fields)
        else:
            _print_result(*(fields.get(name) for name in ("SubmissionID", "StudentID", "Module", "Mark", "OutOf")))
    return ExitCode.DONE


def _print_result(identity: object, student: object, module: object, mark: object, out_of: object) -> None:
    text = f"{identity or '-'}  student {student}  {module or 'no module'}  {mark_of(mark, out_of)}"
    print(one_line(text), flush=True)


@app.command("export")
def export(
    context: typer.Context,
    format_: Annotated[
        Format, typer.Option("--format", help="One row, or one line of JSON, for each submission.")
    ] = Format.CSV,
    files: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Write each student's file that counts instead: FOLDER/MODULE/STUDENT/, archives unpacked.",
            show_default=False,
        ),
    ] = None,
    module: OfModule = None,
    config: Config = None,
    database: DatabaseURL = None,
) -> None:
    """Print the submissions of the records: student, module, attempt, mark, deadlines; as JSON, their histories.

    With --files, write the files into a new folder, as MOSS and JPlag want them; what can't be written is named on
    stderr (exit code 1). Examples:
    rabbitry grading export --format csv > course.csv
    rabbitry grading export --files handed-in --module cloud_computing
    """
    from rabbitry.apps.grading.deadlines import Judged
    from rabbitry.apps.grading.modules import load_course
    from rabbitry.apps.grading.records.course import Filter, Submission, histories, submissions_of
    from rabbitry.apps.grading.records.judging import judged

    course = load_course(config)
    wanted = Filter(module=module)
    if files is not None:
        _export_files(context, database, files, wanted, course)
        return
    with existing(context, database) as records:
        rows = [] if records is None else records.read_now(partial(submissions_of, wanted=wanted))
        judgements = {} if records is None else records.read_now(partial(judged, rows=rows, course=course))
        hops = records.read_now(histories) if records is not None and format_ is Format.JSON else {}
    if records is not None and not rows:
        say("no submissions")
    if format_ is Format.JSON:
        for row in rows:
            told = row.as_dict() | judgements[row.id].as_dict()
            print_json(told | {"history": [hop.as_dict() for hop in hops.get(row.id, [])]})
        return
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")  # whatever the terminal's encoding
    sys.stdout.write(_BOM)
    # All text in quotes: a spreadsheet that splits at `;` would find a formula after one.
    names = [*Submission.__dataclass_fields__, *Judged.__dataclass_fields__]
    writer = csv.DictWriter(sys.stdout, names, quoting=csv.QUOTE_NONNUMERIC)
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _cell(value) for name, value in (row.as_dict() | judgements[row.id].as_dict()).items()})


def _export_files(context: typer.Context, database: str | None, folder: Path, wanted: Filter, course: Course) -> None:
    from rabbitry.apps.grading.exporting import opened_files, write_files
    from rabbitry.apps.grading.files import VARIABLE
    from rabbitry.apps.grading.records.course import submissions_of
    from rabbitry.apps.grading.records.judging import judged

    with existing(context, database) as records:
        if records is None:
            return
        rows = records.read_now(partial(submissions_of, wanted=wanted))
        judgements = records.read_now(partial(judged, rows=rows, course=course))
        rows = [row for row in rows if judgements[row.id].counts]
        files = opened_files(records, database_url(context, database), os.environ.get(VARIABLE))
        failed = 0
        for row in rows:
            if (why := write_files(files, row, folder)) is not None:
                warn(one_line(f"{row.id} of student {row.student}: {why}"))
                failed += 1
    say(f"{counted(len(rows) - failed, 'submission')} in {folder}")
    if failed:
        raise typer.Exit(ExitCode.FAILED)


_BOM: Final = "\ufeff"
"""The byte order mark: without it Excel reads a file in the machine's code page."""
_FORMULA: Final = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")
"""The first characters of a formula; the last four are the first four in full width."""
_DIGITS: Final = 15
"""Digits of a number that a spreadsheet keeps."""
_LIKE_NUMBERS: Final = re.compile(
    r"0\d+|\d+(\.\d+)?[eE][+-]?\d+|\d{1,4}[-/.:]\d{1,4}([-/.:]\d{1,4})?"
    r"|(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]{0,6}[ ./-]?\d{1,4}|true|false",
    re.IGNORECASE,
)
"""Text that a spreadsheet would take for another number, a time or a date: 007, 1e5, 3-4, mar1."""


def _cell(value: object) -> object:
    """Return a value that no spreadsheet reads as a formula or another number, and no terminal as control codes.

    See https://owasp.org/www-community/attacks/CSV_Injection.
    """
    if isinstance(value, float):
        return round(value, 2)
    if not isinstance(value, str):
        return value
    bare = value.strip(f" {_BOM}")
    is_long = len(bare) > _DIGITS and bare.isdigit()
    safe = f"'{value}" if bare.startswith(_FORMULA) or is_long or _LIKE_NUMBERS.fullmatch(bare) else value
    return "".join(letter if letter.isprintable() or letter in "\n\t" else " " for letter in safe)
