"""`rabbitry grading results|export`."""

from __future__ import annotations

import csv
import io
import os
import re
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from rabbitry._words import counted
from rabbitry.apps.grading.commands.access import course_records
from rabbitry.apps.grading.commands.options import EXCHANGE, Config, ExchangeName, ExchangeType, Type, check_exchange
from rabbitry.exceptions import UsageError
from rabbitry.runtime.options import Broker, DatabaseURL, Json, Offset, Plain, Strict, broker_url
from rabbitry.runtime.output import ExitCode, one_line, print_json, say, warn
from rabbitry.runtime.service import run_once

if TYPE_CHECKING:
    from rabbitry.apps.grading.files import Fetcher
    from rabbitry.apps.grading.looking import Look

Find = Annotated[
    str, typer.Option(metavar="TEXT", help="Only those whose student number or id begins with it.", show_default=False)
]
OfModule = Annotated[
    str | None, typer.Option("--module", metavar="NAME", help="Only those of this module.", show_default=False)
]
Limit = Annotated[int | None, typer.Option(min=1, help="At most so many.", show_default=False)]
app: typer.Typer = typer.Typer()


class Format(StrEnum):
    """The values of `export --format`."""

    CSV = "csv"
    JSON = "json"


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

    If the records are not on this machine, a coordinator is asked over the broker for the recorded ones.

    Example: rabbitry grading results --follow
    """
    if not follow:
        from rabbitry.apps.grading.looking import MOST, Look
        from rabbitry.apps.grading.message import sendable
        from rabbitry.apps.grading.records.course import CONFIRMED

        # The first ones are read as the page reads them; of all, none is missed that changes in between.
        is_page = limit is not None and limit <= MOST
        asked = Look("submissions" if is_page else "rows", sendable(find), module, CONFIRMED)
        asked.limit, asked.offset = min(limit or MOST, MOST), offset
        _print_kept(context, database, broker, asked, limit, as_json=as_json)
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
    broker: str | None,
    asked: Look,
    limit: int | None,
    *,
    as_json: bool,
) -> None:
    import msgspec

    from rabbitry.apps.grading.modules import load_course
    from rabbitry.apps.grading.records.course import Submission

    with course_records(context, database, broker, load_course()) as records:
        if records is None:
            return
        if asked.what == "submissions":
            rows = records.read(asked)["submissions"]
        else:
            last = None if limit is None else asked.offset + limit
            rows = _last_changed_first(records.rows(asked))[asked.offset : last]
    for row in rows:
        found = msgspec.convert(row, Submission)
        if as_json:
            print_json(found.as_dict())
        else:
            _print_result(found.id, found.student, found.module, found.mark, found.out_of)
    if not rows and not as_json:
        say("no results")


def _last_changed_first(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows in the order of the page."""
    return sorted(rows, key=lambda one: (str(one["updated_at"]), str(one["id"])), reverse=True)


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
    broker: Broker = None,
) -> None:
    """Print the submissions of the records: student, module, attempt, mark, deadlines; as JSON, their histories.

    With --files, write the files into a new folder, as MOSS and JPlag want them; what can't be written is named on
    stderr (exit code 1). If the records are not on this machine, a coordinator is asked over the broker. Examples:
    rabbitry grading export --format csv > course.csv
    rabbitry grading export --files handed-in --module cloud_computing
    """
    from rabbitry.apps.grading.deadlines import Judged
    from rabbitry.apps.grading.files import VARIABLE
    from rabbitry.apps.grading.looking import Look
    from rabbitry.apps.grading.modules import load_course
    from rabbitry.apps.grading.records.course import Submission

    asked = Look("rows", module=module, with_history=files is None and format_ is Format.JSON)
    with course_records(context, database, broker, load_course(config)) as records:
        rows = [] if records is None else _last_changed_first(records.rows(asked))
        if files is not None:
            if records is not None:
                _write_files(records.files(os.environ.get(VARIABLE)), rows, files)
            return
    if records is not None and not rows:
        say("no submissions")
    if format_ is Format.JSON:
        for row in rows:
            print_json(row)
        return
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")  # whatever the terminal's encoding
    sys.stdout.write(_BOM)
    # All text in quotes: a spreadsheet that splits at `;` would find a formula after one.
    names = [*Submission.__dataclass_fields__, *Judged.__dataclass_fields__]
    writer = csv.DictWriter(sys.stdout, names, quoting=csv.QUOTE_NONNUMERIC)
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _cell(value) for name, value in row.items()})


def _write_files(files: Fetcher, rows: list[dict[str, Any]], folder: Path) -> None:
    """Write the files of the submissions that count. Name those that can't be written."""
    import msgspec

    from rabbitry.apps.grading.exporting import write_files
    from rabbitry.apps.grading.records.course import Submission

    found = [msgspec.convert(row, Submission) for row in rows if row["counts"]]
    failed = 0
    for row in found:
        if (why := write_files(files, row, folder)) is not None:
            warn(one_line(f"{row.id} of student {row.student}: {why}"))
            failed += 1
    say(f"{counted(len(found) - failed, 'submission')} in {folder}")
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
