"""`rabbitry grading keys`: makes keys with which roles sign."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import Annotated, Final

import typer

from rabbitry._words import reason
from rabbitry.apps.grading.commands.options import Config, RoleChoice
from rabbitry.exceptions import UsageError
from rabbitry.runtime.output import say

_NAME: Final = re.compile(r"[a-z0-9_-]{1,40}")
app: typer.Typer = typer.Typer()


@app.command("keys")
def keys(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The key's name in the configuration and the records.")],
    roles: Annotated[list[RoleChoice], typer.Option("--role", help="A role that signs with it; may be repeated.")],
    modules: Annotated[
        list[str] | None,
        typer.Option("--module", metavar="NAME", help="Only for this module; may be repeated.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="The private key's file.", show_default="NAME.key"),
    ] = None,
    config: Config = None,
) -> None:
    """Make a key with which roles sign: a private file, and lines for the course's configuration with the public key.

    Examples:
    rabbitry grading keys lab --role demonstrator --module cloud_computing
    rabbitry grading keys office --role assistant --role coordinator --out office.key
    """
    import json

    from rabbitry.apps.grading.modules import load_course
    from rabbitry.apps.grading.signatures import new_key

    if not _NAME.fullmatch(name):
        raise UsageError(f"a key can't be called {name!r}: use 1 to 40 of a-z, 0-9, - and _")
    course = load_course(config)
    for module in modules or ():
        course.module(module)
    file = out or Path(f"{name}.key")
    private, public = new_key()
    try:
        _write(file, private)
    except OSError as error:
        raise UsageError(f"the key can't be written to {file}: {reason(error, is_named=False)}") from error
    print(f"[signatures.keys.{name}]")
    print(f'public = "{public}"')
    print(f"roles = {json.dumps([role.value for role in roles])}")
    if modules:
        print(f"modules = {json.dumps(modules, ensure_ascii=False)}")
    say(f"the private key is in {file}: pass it with --key; add these lines to the course's configuration everywhere")


def _write(file: Path, private: bytes) -> None:
    """Write a new file that only its owner can read; it has its name once it is whole. Raises OSError."""
    number, aside = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")  # with mode 0600
    try:
        with open(number, "wb") as opened:
            opened.write(private)
            opened.flush()
            os.fsync(number)
        os.link(aside, file)  # unlike a rename, it never replaces another key
    finally:
        os.unlink(aside)
