"""`rabbitry grading release`: holds the results of a module until a date, releases them, or tells what holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from rabbitry.apps.grading.commands.access import course_records
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
from rabbitry.exceptions import UsageError
from rabbitry.runtime.options import Broker, DatabaseURL, Json
from rabbitry.runtime.output import one_line, print_json, say

app: typer.Typer = typer.Typer()


@app.command("release")
def release(
    context: typer.Context,
    module: ModuleName,
    until: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Hold the results until then, e.g. 2026-12-01 or 2026-12-01T09:00 (this machine's time).",
            show_default=False,
        ),
    ] = None,
    *,
    is_now: Annotated[bool, typer.Option("--now", help="Release them now.")] = False,
    remark: Remark = "set by command",
    config: Config = None,
    exchange: ExchangeName = EXCHANGE,
    files: KeptFiles = None,
    database: DatabaseURL = None,
    broker: Broker = None,
    as_json: Json = False,
) -> None:
    """Hold the results of a module until a date, or release them; without either, list what was set.

    Until then students see no marks and no feedback, and a running coordinator publishes no results; it publishes them
    at the date. If the records are not on this machine, a coordinator is asked over the broker.

    Example: rabbitry grading release --module cloud_computing --until 2026-12-01T09:00
    """
    from rabbitry.apps.grading.changing import Change
    from rabbitry.apps.grading.looking import Look
    from rabbitry.apps.grading.message import sendable, user_name
    from rabbitry.apps.grading.modules import load_course

    check_exchange(exchange)
    if until is not None and is_now:
        raise UsageError("--until and --now exclude each other")
    time, course = "" if until is None else time_of("--until", until), load_course(config)
    name = course.module(module).name
    with course_records(context, database, broker, course) as records:
        if records is None:
            return
        if until is not None or is_now:
            wanted = Change("release", user_name(), sendable(remark), module=name, until=time)
            _print([records.change(wanted, files, exchange)], as_json=as_json)
        elif found := records.read(Look("releases", module=name)):
            _print(found, as_json=as_json)
        else:
            say(f"the results of module {name!r} were never held")


def _print(found: Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
    for place, one in enumerate(found):
        if as_json:
            print_json(dict(one))
        else:
            what = "before: until" if place > 0 else "held until" if one["is_ahead"] else "released"
            set_ = f"set {one['at'][:19]} by {one['who']}: {one['remark']}"
            print(one_line(f"{what} {one['until'][:19]} UTC  {set_}"))
