"""`rabbitry grading similar`: the pairs of solutions of a module that are alike."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rabbitry._words import counted
from rabbitry.apps.grading.commands.access import course_records
from rabbitry.apps.grading.commands.options import Config, KeptFiles, ModuleName
from rabbitry.runtime.options import Broker, DatabaseURL, Json
from rabbitry.runtime.output import one_line, print_json, say, warn

app: typer.Typer = typer.Typer()


@app.command("similar")
def similar(
    context: typer.Context,
    module: ModuleName,
    starter: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PATH",
            help="A file or folder of code that students began with, which is left out; may be repeated. "
            "Default: the module's `starter` in the configuration.",
            show_default=False,
        ),
    ] = None,
    least: Annotated[float, typer.Option(min=1, max=100, help="Percent of a pair that is listed.")] = 30,
    common: Annotated[
        int | None,
        typer.Option(
            min=2,
            max=10_000,
            metavar="NUMBER",
            help="Passages that more submissions have are left out. Default: a fifth of all, 10 to 200.",
            show_default=False,
        ),
    ] = None,
    config: Config = None,
    files: KeptFiles = None,
    database: DatabaseURL = None,
    broker: Broker = None,
    *,
    as_json: Json = False,
) -> None:
    """List the similar solutions of a module, the most similar ones first: of each student what counts.

    Names, numbers, texts, comments and the order of functions make no difference. A hint to look at both, no proof.
    If the records are not on this machine, a coordinator is asked over the broker, and sends the files.

    Example: rabbitry grading similar --module cloud_computing --starter starter/
    """
    from rabbitry.apps.grading.looking import Look
    from rabbitry.apps.grading.modules import load_course
    from rabbitry.apps.grading.similar import course as compare

    course = load_course(config)
    known = course.module(module)
    begun = compare.starter_runs(starter if starter is not None else known.starter)
    with course_records(context, database, broker, course) as records:
        if records is None:
            return
        search = compare.Search(known.name, begun, least / 100, common)
        rows = compare.counting(records.rows(Look("rows", module=known.name)))
        found = compare.similar(rows, records.files(files), search)
    for identity, why in found.left_out.items():
        warn(one_line(f"{identity} is not compared, or only in part: {why}"))
    for pair in found.pairs:
        if as_json:
            print_json(pair)
        else:
            _print(pair)
    if not as_json:
        say(f"{counted(len(found.pairs), 'similar pair')} of {counted(found.compared, 'submission')}")


def _print(pair: dict[str, Any]) -> None:
    one, other = pair["one"], pair["other"]
    print(one_line(
        f"{pair['similarity']:4.0%}  {one['id']}  student {one['student']}  "
        f"{other['id']}  student {other['student']}"
    ))  # fmt: skip
