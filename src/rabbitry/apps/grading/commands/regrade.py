"""`rabbitry grading regrade`: marks submissions again, or shows what that would change."""

from __future__ import annotations

import os
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from rabbitry._words import counted
from rabbitry.apps.grading.commands.access import CourseRecords, course_records
from rabbitry.apps.grading.commands.options import (
    EXCHANGE,
    Config,
    ExchangeName,
    KeptFiles,
    ModuleName,
    Remark,
    check_exchange,
    time_of,
)
from rabbitry.apps.grading.commands.records import mark_of
from rabbitry.apps.grading.exceptions import FileLost, FilesError, SandboxFailed
from rabbitry.exceptions import UsageError
from rabbitry.runtime.options import Broker, DatabaseURL, Json
from rabbitry.runtime.output import ExitCode, one_line, print_json, say, warn

if TYPE_CHECKING:
    from rabbitry.apps.grading.files import Fetcher
    from rabbitry.apps.grading.modules import Course, Module
    from rabbitry.apps.grading.records import Database
    from rabbitry.apps.grading.records.course import Submission
    from rabbitry.apps.grading.records.regrading import Selection
    from rabbitry.apps.grading.stages import Marker

app: typer.Typer = typer.Typer()
_LOOK: Final = 1.0
"""Seconds between two questions how far a coordinator's run is."""


@app.command("regrade")
def regrade(
    context: typer.Context,
    module: ModuleName,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Only what was submitted since, e.g. 2026-11-01 or 2026-11-01T18:00 (this machine's time).",
            show_default=False,
        ),
    ] = None,
    student: Annotated[
        str | None, typer.Option(metavar="NUMBER", help="Only this student's.", show_default=False)
    ] = None,
    *,
    all_attempts: Annotated[
        bool, typer.Option("--all-attempts", help="All attempts of each student, not only what counts.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Mark here by the module's scheme, and print what would change.")
    ] = False,
    remark: Remark = "marked again",
    config: Config = None,
    exchange: ExchangeName = EXCHANGE,
    files: KeptFiles = None,
    database: DatabaseURL = None,
    broker: Broker = None,
    as_json: Json = False,
) -> None:
    """Mark confirmed submissions of a module again: each goes through the roles once more, and keeps its history.

    A running coordinator publishes the submissions. A command that was interrupted goes on where it stopped when it is
    started again with the same options. If the records are not on this machine, a coordinator is asked over the broker:
    it does the run, also if the command is interrupted. Example:
    rabbitry grading regrade --module cloud_computing --dry-run
    """
    from rabbitry.apps.grading.message import LONGEST_TEXT
    from rabbitry.apps.grading.modules import load_course
    from rabbitry.apps.grading.records.regrading import Selection

    check_exchange(exchange)
    if not remark.strip() or len(remark) > LONGEST_TEXT:
        raise UsageError(f"--remark must have 1 to {LONGEST_TEXT} characters")
    course = load_course(config)
    known = course.module(module)
    selection = Selection(known.name, None if since is None else time_of("--since", since), student, all_attempts)
    with course_records(context, database, broker, course) as records:
        if records is None:
            return
        if dry_run:
            code = _dry_run(records, files, selection, course, known, as_json=as_json)
        elif records.here is None:
            code = _begin(records, selection, remark, as_json=as_json)
        else:
            code = _regrade(records, records.here, files, selection, course, exchange, remark, as_json=as_json)
    raise typer.Exit(code)


def _able(records: CourseRecords, selection: Selection) -> list[Submission]:
    """Return the selected submissions that can be marked again, oldest first. Say which can't."""
    import msgspec

    from rabbitry.apps.grading.looking import Look
    from rabbitry.apps.grading.records.course import Submission

    rows = records.rows(Look("regradable", **asdict(selection)))
    for reason, number in sorted(Counter(row["reason"] for row in rows if row["reason"] is not None).items()):
        warn(f"{counted(number, 'submission')} left out: {reason}")
    able = [msgspec.convert(row, Submission) for row in rows if row["reason"] is None]
    return sorted(able, key=lambda one: (one.submitted_at, one.id))


# -- for good --------------------------------------------------------------------------------------------


def _tell_of_waiting(waiting: int) -> None:
    said = f"{counted(waiting, 'message')} not published: waiting for a coordinator"
    warn(f"{said}; start one: rabbitry grading coordinator")


def _begin(records: CourseRecords, selection: Selection, remark: str, *, as_json: bool) -> int:
    """Have a coordinator do a run, and wait for its end."""
    from rabbitry.apps.grading.changing import Change
    from rabbitry.apps.grading.looking import Look
    from rabbitry.apps.grading.message import sendable, user_name

    _able(records, selection)
    wanted = Change("regrade", user_name(), sendable(remark), **asdict(selection))
    run = records.change(wanted, None, "")
    number = counted(run["submissions"], "submission")
    say(f"run {run['id']} of {number}: the coordinator does it, also if this command ends")
    while run["ended_at"] is None:
        time.sleep(_LOOK)
        run = records.read(Look("run", number=run["id"]))
    if as_json:
        print_json(run)
    if run["lost"]:
        lost = counted(run["lost"], "submission")
        warn(f"{lost} not marked again: the file can't be had, and the coordinator's log says why")
    say(f"{counted(run['reopened'], 'submission')} submitted again")
    return ExitCode.FAILED if run["lost"] else ExitCode.DONE


def _regrade(
    records: CourseRecords,
    here: Database,
    files: str | None,
    selection: Selection,
    course: Course,
    exchange: str,
    remark: str,
    *,
    as_json: bool,
) -> int:
    """Do a run with the records that are here."""
    from rabbitry.apps.grading.exporting import opened_files
    from rabbitry.apps.grading.message import user_name
    from rabbitry.apps.grading.records.regrading import begin
    from rabbitry.apps.grading.regrading import Patience, reopened

    run = here.write_now(partial(begin, selection=selection, course=course, who=user_name(), remark=remark))
    if run.resumed:
        say(f"going on: {counted(run.resumed, 'submission')} of {run.resumed + len(run.left)} reopened before")
    else:
        _able(records, selection)
    failed = done = 0
    kept = opened_files(here, records.url, files)
    for step in reopened(here, kept, run, course, exchange, has_room=Patience(_tell_of_waiting).goes_on):
        found = step.submission
        if step.lost is not None:
            warn(one_line(f"{found.id} of student {found.student} is not marked again: {step.lost}"))
            failed += 1
        if not step.is_reopened:
            continue
        done += 1
        if as_json:
            print_json({"id": found.id, "student": found.student, "mark": found.mark, "out_of": found.out_of})
        else:
            print(one_line(f"{found.id}  student {found.student}  {mark_of(found.mark, found.out_of)}"), flush=True)
    say(f"{counted(done, 'submission')} submitted again")
    return ExitCode.FAILED if failed else ExitCode.DONE


# -- the dry run -----------------------------------------------------------------------------------------


def _dry_run(
    records: CourseRecords,
    files: str | None,
    selection: Selection,
    course: Course,
    module: Module,
    *,
    as_json: bool,
) -> int:
    from rabbitry.apps.grading.marks import marker_of

    if module.scheme is None:
        raise UsageError(f"module {module.name!r} has no marking scheme, and --dry-run marks by it")
    marker, kept = marker_of(module.scheme, course), records.files(files)
    able = _able(records, selection)
    changed = failed = 0
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for found, new in zip(able, threads.map(partial(_marked, kept, marker), able), strict=True):
            if isinstance(new, str):
                warn(one_line(f"{found.id} of student {found.student} can't be marked: {new}"))
                if as_json:
                    print_json({"id": found.id, "student": found.student, "error": new})
                failed += 1
                continue
            is_other = (new["mark"], new["out_of"]) != (found.mark, found.out_of)
            changed += is_other
            if as_json:
                old = {"mark": found.mark, "out_of": found.out_of, "feedback": found.feedback}
                print_json({"id": found.id, "student": found.student, "is_changed": is_other, "old": old, "new": new})
            elif is_other:
                was, would = mark_of(found.mark, found.out_of), mark_of(new["mark"], new["out_of"])
                print(one_line(f"{found.id}  student {found.student}  {was} -> {would}"), flush=True)
    say(f"{changed} of {counted(len(able), 'mark')} would change; nothing was changed")
    return ExitCode.FAILED if failed else ExitCode.DONE


def _marked(files: Fetcher, marker: Marker, found: Submission) -> dict[str, Any] | str:
    from rabbitry.apps.grading.regrading import file_of

    try:
        data = file_of(files, found)
        if isinstance(data, FileLost):
            return str(data)
        decision = marker(data, found.name)
    except (FilesError, SandboxFailed) as error:
        return str(error)
    return {"mark": decision.mark, "out_of": decision.out_of, "feedback": decision.feedback}
