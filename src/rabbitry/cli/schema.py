"""`rabbitry schema export|check`: the messages of an app, and what a new version can't read of an old one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from rabbitry._decode import decode_json
from rabbitry.cli._apps import AppPath, load_app
from rabbitry.exceptions import Undecodable, UsageError
from rabbitry.runtime.options import Json
from rabbitry.runtime.output import ExitCode, print_json, say

app: typer.Typer = typer.Typer()

_SOURCE = "A file that `rabbitry schema export` wrote, or MODULE:APP."


@app.command("export")
def export(path: AppPath) -> None:
    """Print an app's messages as an AsyncAPI 3 document, with a JSON Schema for each stage.

    Example: rabbitry schema export shop.flow:app > shop.json
    """
    from rabbitry.flow.schemas import document

    print_json(document(load_app(path).spec()))


@app.command("check")
def check(
    old: Annotated[str, typer.Argument(metavar="OLD", help=_SOURCE)],
    new: Annotated[str, typer.Argument(metavar="NEW", help=_SOURCE)],
    *,
    as_json: Json = False,
) -> None:
    """List what programs of one version of an app can't read of the other's messages.

    While workers are replaced one after the other, old and new ones take messages of both. Exit code 1 if there is a
    difference. Example: rabbitry schema check shop.json shop.flow:app
    """
    from rabbitry.flow.schemas import changes

    found = list(changes(_read(old), _read(new)))
    for change in found:
        if as_json:
            print_json(change._asdict())
        else:
            print(change)
    if not found and not as_json:
        say("each version reads the messages of the other")
    raise typer.Exit(ExitCode.FAILED if found else ExitCode.DONE)


def _read(source: str) -> dict[str, Any]:
    """Return the document of a file or an app. Raises UsageError for a file that has none."""
    from rabbitry.flow.schemas import check_document, document

    path = Path(source)
    if ":" in source and not os.path.exists(path):  # Path.exists raises for a name that is too long
        return document(load_app(source).spec())
    try:
        found = decode_json(path.read_bytes(), dict[str, Any])
    except OSError as error:
        raise UsageError(f"can't read '{source}': {error.strerror}; give a file, or MODULE:APP") from error
    except Undecodable as error:
        raise UsageError(f"'{source}' is no document of `rabbitry schema export`: {error}") from error
    check_document(found, source)
    return found
