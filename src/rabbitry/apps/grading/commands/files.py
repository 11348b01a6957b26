"""`rabbitry grading fetch`, and saving of submitted files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rabbitry._ids import NoSuchID
from rabbitry.apps.grading.commands.access import course_records
from rabbitry.apps.grading.commands.options import KeptFiles
from rabbitry.exceptions import RabbitryError, UsageError
from rabbitry.runtime.options import Broker, DatabaseURL, Json
from rabbitry.runtime.output import one_line, print_json

app: typer.Typer = typer.Typer()
SaveAs = Annotated[
    Path | None,
    typer.Argument(metavar="[FILE]", help="Where to save it. Default: its name when handed in.", show_default=False),
]


@app.command("fetch")
def fetch(
    context: typer.Context,
    id: Annotated[str, typer.Argument(metavar="ID", help="The submission's id, or a unique prefix of it.")],
    file: SaveAs = None,
    files: KeptFiles = None,
    database: DatabaseURL = None,
    broker: Broker = None,
    *,
    as_json: Json = False,
) -> None:
    """Save a submission's file as it was handed in, from the records; an existing file is not overwritten.

    If the records are not on this machine, a coordinator is asked over the broker.

    Example: rabbitry grading fetch 3f2a report.zip
    """
    from rabbitry.apps.grading.files import Kept
    from rabbitry.apps.grading.looking import Look
    from rabbitry.apps.grading.message import sendable
    from rabbitry.apps.grading.modules import load_course

    with course_records(context, database, broker, load_course()) as records:
        if records is None:
            raise NoSuchID(f"no submission with the id {id!r} is recorded")
        found = records.read(Look("submission", submission=sendable(id)))
        if found["sha256"] is None:
            raise RabbitryError(f"the file of {found['id']} is not kept: the coordinator has not received it (yet)")
        data = records.files(files).fetch(Kept(found["sha256"], found["size"]))
    save(data, found["name"], found["id"], file, as_json=as_json, command=f"fetch {id}")


def save(data: bytes, name: str, identity: str, file: Path | None, *, as_json: bool, command: str) -> None:
    """Write a submitted file to a new file, and print its name.

    Args:
        data: The content.
        name: The name that it was handed in with.
        identity: The submission's id.
        file: Where to save it, a file or a folder; None for its own name in the working directory.
        as_json: Print JSON.
        command: The command, for advice.

    Raises:
        UsageError: The file exists.
        RabbitryError: It can't be written.
    """
    from rabbitry.apps.grading.message import file_name

    own = file_name(name, identity)
    path = Path(own) if file is None else file / own if file.is_dir() else file
    is_new = False
    try:
        with path.open("xb") as target:
            is_new = True
            target.write(data)
    except FileExistsError as error:
        raise UsageError(f"{path} exists; name another file: rabbitry grading {command} FILE") from error
    except OSError as error:
        if is_new:
            path.unlink(missing_ok=True)  # part of a file, on a full disk: the next attempt would find it there
        raise RabbitryError(f"{path} can't be written: {error.strerror or error}") from error
    if as_json:
        print_json({"id": identity, "file": str(path), "bytes": len(data)})
    else:
        print(one_line(str(path)))
