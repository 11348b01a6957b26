"""`rabbitry grading similar`: the pairs of solutions of a module that are alike."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rabbitry._words import counted
from rabbitry.apps.grading.commands.options import Config, KeptFiles, ModuleName
from rabbitry.apps.grading.commands.records import database_url, existing
from rabbitry.runtime.options import DatabaseURL, Json
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
    *,
    as_json: Json = False,
) -> None:
    """List the similar solutions of a module, the most similar ones first: of each student what counts.

    Names, numbers, texts, comments and the order of functions make no difference. A hint to look at both, no proof.
    Example: rabbitry grading similar --module cloud_computing --starter starter/
    """
    from rabbitry.apps.grading.exporting import opened_files
    from rabbitry.apps.grading.modules import load_course
    from rabbitry.apps.grading.similar import course as compare

    course = load_course(config)
    known = course.module(module)
    begun = compare.starter_runs(starter if starter is not None else known.starter)
    with existing(context, database) as records:
        if records is None:
            return
        kept = opened_files(records, database_url(context, database), files)
        search = compare.Search(known.name, begun, least / 100, common)
        found = compare.similar(records, kept, search, course)
    for identity, why in found.left_out.items():
        warn(one_line(f"{identity} is not compared, or only in part: {why}"))
    for pair in found.pairs:
        if as_json:
            print_json(pair)
            continue
        one, other = pair["one"], pair["other"]
        print(one_line(
            f"{pair['similarity']:4.0%}  {one['id']}  student {one['student']}  "
            f"{other['id']}  student {other['student']}"
        ))  # fmt: skip
    if not as_json:
        say(f"{counted(len(found.pairs), 'similar pair')} of {counted(found.compared, 'submission')}")
