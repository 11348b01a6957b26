"""`rabbitry grading stats`: marks, durations and waits of the modules."""

from __future__ import annotations

from typing import Any

import typer

from rabbitry._words import counted
from rabbitry.apps.exceptions import RecordsError
from rabbitry.apps.grading.commands.access import CourseRecords, course_records
from rabbitry.apps.grading.commands.options import Config
from rabbitry.apps.grading.commands.records import OfModule
from rabbitry.exceptions import RequestTimeout
from rabbitry.runtime.options import Broker, DatabaseURL, Json
from rabbitry.runtime.output import one_line, print_json, warn

app: typer.Typer = typer.Typer()


@app.command("stats")
def stats(
    context: typer.Context,
    module: OfModule = None,
    config: Config = None,
    database: DatabaseURL = None,
    broker: Broker = None,
    *,
    as_json: Json = False,
) -> None:
    """Show of each module the marks, how long each role takes, what waits for whom, and who waits longest.

    If the records are not on this machine, a coordinator is asked over the broker.

    Example: rabbitry grading stats --module cloud_computing
    """
    from rabbitry.apps.grading.looking import Look
    from rabbitry.apps.grading.modules import load_course

    course = load_course(config)
    names = list(course.modules) if module is None else [course.module(module).name]
    with course_records(context, database, broker, course) as records:
        if records is None:
            return
        for name in names:
            found = records.read(Look("statistics", module=name))
            if as_json:
                print_json(found)
            else:
                _print(found)
        if not as_json:
            _print_files(records)


def _print_files(records: CourseRecords) -> None:
    """Print how full the place of the files is, if a coordinator keeps any."""
    from rabbitry.apps.grading.looking import Look

    try:
        room = records.read(Look("room"))
    except (RecordsError, RequestTimeout) as error:
        warn(str(error))
        return
    used, total = room["used"], room["total"]
    if used is not None:
        print(f"kept files: {used / total:.1%} of largest_total ({used} of {total} bytes)")


def _print(found: dict[str, Any]) -> None:
    marks = found["marks"]
    handed_in = f"{counted(found['submissions'], 'submission')} of {counted(found['students'], 'student')}"
    declined = f", {found['declined']} of them declined" if found["declined"] else ""
    print(one_line(f"{found['module']}: {handed_in}{declined}"))
    if marks["mean"] is not None:
        print(
            f"  marks: {marks['given']}, mean {marks['mean']:.0%}, median {marks['median']:.0%}, "
            f"{marks['least']:.0%} to {marks['most']:.0%}; without a mark: {marks['without']}"
        )
        most = max(marks["classes"])
        for place, number in enumerate(marks["classes"]):
            bar = "#" * round(40 * number / most)
            print(f"  {place * 10:3} to {place * 10 + 10:3} %  {number:6}  {bar}".rstrip())
    for stage in found["stages"]:
        if stage["number"]:
            name = "all roles" if stage["stage"] == "all" else stage["stage"]
            took = f"median {_shown(stage['p50'])}, 95 % within {_shown(stage['p95'])}"
            print(f"  {name:12}  {stage['number']:6} times, {took}")
    for one in found["work"]:
        print(one_line(f"  {_work(one)}"))
    for one in found["waiting"]:
        role = f"the {one['role']}" if one["role"] else "nobody"
        print(one_line(f"  {one['id']}  student {one['student']} waits for {role} since {_shown(one['seconds'])}"))


def _work(one: dict[str, Any]) -> str:
    """Describe what waits for a person, or for anybody of a role, and what they have decided."""
    who = f"{one['role']} {one['who']}" if one["who"] is not None else f"any {one['role']}"
    waits = counted(one["waiting"], "submission")
    if one["requests"]:
        waits += f" and {counted(one['requests'], 'request')}"
    since = "" if one["seconds"] is None else f" since {_shown(one['seconds'])}"
    decided = f"; {one['decided']} decided, the last {one['last_at'][:19]} UTC" if one["decided"] else ""
    return f"{who}: {waits} to do{since}{decided}"


def _shown(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} s"
