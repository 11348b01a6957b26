"""`rabbitry grading submit|status`: the students' commands."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from rabbitry.apps.grading.commands.access import Ask, asking
from rabbitry.apps.grading.commands.options import (
    EXCHANGE,
    Config,
    ExchangeName,
    ExchangeType,
    Type,
    wiring_of,
)
from rabbitry.apps.grading.commands.records import mark_of
from rabbitry.exceptions import RequestTimeout, UsageError
from rabbitry.runtime.options import (
    Broker,
    DatabaseURL,
    Json,
    Plain,
    Strict,
    broker_url,
    named_database,
)
from rabbitry.runtime.output import ExitCode, fail, one_line, print_json, warn
from rabbitry.runtime.service import run_once

if TYPE_CHECKING:
    from rabbitry.apps.grading.students import Entry

WATCH: Final = 0.5
"""Seconds between two questions of `status --watch`."""
LOOK: Final = 5.0
"""Seconds between two checks for a role that takes a submission whose status does not change."""
app: typer.Typer = typer.Typer()


@app.command("submit")
def submit(
    context: typer.Context,
    path: Annotated[str, typer.Argument(metavar="FILE|DIR", help="A file, or a folder with a file per submission.")],
    module: Annotated[str, typer.Option("--module", metavar="NAME", help="The module, e.g. cloud_computing.")],
    student: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBER", help="The student's number. Default: the number at the start of the file's name.",
            show_default=False,
        ),
    ] = None,
    config: Config = None,
    exchange: ExchangeName = EXCHANGE,
    exchange_type: Type = ExchangeType.DIRECT,
    *,
    plain: Plain = False,
    strict: Strict = False,
    broker: Broker = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Submit a file, or all files of a folder; prints the id of each once the broker has confirmed it.

    Example: rabbitry grading submit solution.py --student 23200858 --module cloud_computing
    """
    from rabbitry.apps.grading.students import entries, submit_all

    url = broker_url(context, broker)
    wiring = wiring_of(config, exchange, exchange_type, plain=plain)
    if not path:  # e.g. an unset variable in a script; Path("") is the working directory
        raise UsageError("the file's name is empty")
    wanted = entries(Path(path), student, module, wiring.course)
    _warn_of_deadlines(wanted)

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


def _warn_of_deadlines(wanted: Sequence[Entry]) -> None:
    """Warn of a module that takes nothing now. This machine's clock may be wrong, so the records decide."""
    refused = {}
    for entry in wanted:
        if (rules := entry.module.deadlines) is not None:
            refused[entry.student] = rules.refusal(str(entry.student), [], datetime.now(UTC))
    for student, why in refused.items():
        if why is not None:
            warn(f"by this machine's clock, the submission of student {student} comes {why}; the records decide")


@contextlib.contextmanager
def _progress(total: int) -> Iterator[Any]:
    """Yield a function to call after each file; it moves a progress bar if stderr is a terminal."""
    if total == 1 or not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import Progress

    # On a terminal the ids are printed above the bar; in a pipe or file they must go to stdout.
    above = sys.stdout.isatty()
    with Progress(console=Console(stderr=True), transient=True, redirect_stdout=above) as bar:
        task = bar.add_task("submitting", total=total)
        yield lambda: bar.advance(task)


@app.command("status")
def status(
    context: typer.Context,
    id: Annotated[
        str, typer.Argument(metavar="ID", help="The id that submit printed, or a unique prefix of at least 4 letters.")
    ],
    *,
    watch: Annotated[bool, typer.Option("--watch", help="Print each change until it is confirmed.")] = False,
    database: DatabaseURL = None,
    broker: Broker = None,
    as_json: Json = False,
) -> None:
    """Show the status of a submission: from a coordinator over the broker, or from the database if one is named.

    Exit code 1 if the submission is unknown. Example: rabbitry grading status 3f2a --watch
    """
    named = named_database(context, database)
    url = broker_url(context, broker)

    async def work() -> int:
        async with asking(named, url) as ask:
            if watch:
                return await _watch_status(id, ask, url, as_json=as_json)
            found = await ask(id)
            if found is None:
                fail(f"no submission {id!r} is recorded (yet)")
            _show_status(found, None, as_json=as_json)
            return ExitCode.DONE

    raise typer.Exit(run_once(work(), is_endless=watch))


async def _watch_status(id: str, ask: Ask, url: str, *, as_json: bool) -> int:
    """Print each change of a submission until it is confirmed, and the role it waits for if that role does not run."""
    from rabbitry.apps.grading.message import DECLINED
    from rabbitry.apps.grading.modules import load_course
    from rabbitry.apps.grading.waiting import missing_role

    course = load_course(None)
    shown: dict[str, Any] | None = None
    wanted = id
    is_told = False
    missing, look_at = "", 0.0
    clock = asyncio.get_running_loop().time
    while True:
        try:
            found = await ask(wanted)
        except RequestTimeout as error:
            found = None
            if not is_told:
                warn(f"{error}; waiting")
                is_told = True
        wanted = id if found is None else found["id"]  # a prefix may come to match another id, too
        if found is not None:
            if shown is None or found["history"] != shown["history"]:
                _show_status(found, shown, as_json=as_json)
                shown = found
                look_at = clock()
            if found["status"] == "confirmed":
                return ExitCode.DONE
            if found["status"] == DECLINED:
                return ExitCode.FAILED
            if clock() >= look_at:
                said = await missing_role(url, found, course) or ""
                if said != missing and said:
                    warn(said)
                missing, look_at = said, clock() + LOOK
        await asyncio.sleep(WATCH)


def _told_apart(hop: Mapping[str, Any]) -> tuple[object, ...]:
    """Return what tells a hop from the others. Later reports may make the time of the first one earlier."""
    return hop["role"], hop["status"], hop["who"], None if hop["role"] == "student" else hop["at"]


def _show_status(found: Mapping[str, Any], before: Mapping[str, Any] | None, *, as_json: bool) -> None:
    from rabbitry.apps.grading.comments import place_of
    from rabbitry.apps.grading.deadlines import said

    if as_json:
        print_json(dict(found))
        return
    if before is None:
        late = "" if found["latest"] else ", and there is a newer one"
        module = found["module"] or "no module"
        print(one_line(f"student {found['student']}, {module}, attempt {found['attempt']}{late}"))
        held = found.get("held_until")  # an older coordinator answers without
        if held is not None:
            print(one_line(f"results are held until {held[:19]} UTC"))
        elif released := found.get("releases"):
            print(one_line(f"results were released at {released[0]['until'][:19]} UTC"))
        if timing := said(found):
            print(one_line(timing))
        for one in found.get("withdrawn", ()):  # an older coordinator answers without, and without `accepted`
            print(
                one_line(
                    f"accepted by {one['who']}: {one['remark']}; withdrawn by {one['withdrawn_by']}: {one['reason']}"
                )
            )
        if accepted := found.get("accepted"):
            print(one_line(f"accepted by {accepted['who']}: {accepted['remark']}"))
    # Reports of two roles may be recorded in either order, so a new hop may come before one that is shown.
    known = [_told_apart(hop) for hop in before["history"]] if before else []
    for hop in found["history"]:
        if _told_apart(hop) in known:
            continue
        mark = "" if hop["mark"] is None else f"  {hop['mark']:g}"
        mark += "" if not mark or hop["out_of"] is None else f" of {hop['out_of']:g}"
        text = hop["remark"] or hop["feedback"] or ""
        print(one_line(f"{hop['at'][:19]}  {hop['status']:10} by {hop['role']} {hop['who']}{mark}  {text}"), flush=True)
        for one in hop.get("comments", ()):  # an older coordinator answers without
            print("   ", one_line(f"{place_of(one)}: {one['text']}"), flush=True)
        for given in hop.get("marks", ()):
            points = mark_of(given["mark"], given["out_of"])
            print("   ", one_line(f"{given['who']}  {points}  {given['feedback'] or ''}"), flush=True)
            for one in given["comments"]:
                print("       ", one_line(f"{place_of(one)}: {one['text']}"), flush=True)
    if not found["history"]:
        print(one_line(found["status"]))
