"""`rabbitry grading keys`: keys with which roles sign, and reading one for a role."""

from __future__ import annotations

import os
import re
import stat
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from rabbitry._words import reason
from rabbitry.apps.grading.commands.options import Config, RoleChoice
from rabbitry.exceptions import UsageError
from rabbitry.runtime.output import say, warn

if TYPE_CHECKING:
    from rabbitry.apps.grading.modules import Course
    from rabbitry.apps.grading.signatures import Signer
    from rabbitry.apps.grading.stages import RoleSpec

_NAME: Final = re.compile(r"[a-z0-9_-]{1,40}")
_LARGEST: Final = 10_000
"""Bytes of a key's file."""
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


def signer_of(file: Path | None, course: Course, specs: Sequence[RoleSpec]) -> Signer | None:
    """Return what signs for roles; None if no key is named.

    Raises:
        UsageError: The key can't be used, others can read it, or the configuration does not let it sign for a role.
    """
    if file is None:
        if course.signatures is not None:
            _warn_of_unsigned(course)
        return None
    signer = _read(file)
    known = None if course.signatures is None else course.signatures.keys.get(signer.public)
    if known is None:
        raise UsageError(f"the key {file} is not in the course's configuration: add its public key, {signer.public}")
    for spec in specs:
        if spec.role not in known.roles:
            raise UsageError(
                f"the key {file} ({known.name!r}) may not sign for the {spec.role}: add the role to its `roles`"
            )
        if spec.module is not None and known.modules is not None and spec.module.name not in known.modules:
            raise UsageError(f"the key {file} ({known.name!r}) may not sign for the module {spec.module.name!r}")
        if spec.module is None and known.modules is not None:  # what it signs of other modules would be refused
            raise UsageError(
                f"the key {file} ({known.name!r}) may sign only for {', '.join(known.modules)}, and this {spec.role} "
                "takes every module, and what has none: use a key without `modules`"
            )
    return signer


def _warn_of_unsigned(course: Course) -> None:
    is_refused = course.signatures is not None and course.signatures.unsigned == "refuse"
    what = "refuse" if is_refused else "flag"
    warn(f"no key: the next roles {what} what these roles publish, since the course has signatures; pass --key FILE")


def _read(file: Path) -> Signer:
    from rabbitry.apps.grading.signatures import Signer

    try:
        with file.open("rb") as opened:
            mode = stat.S_IMODE(os.fstat(opened.fileno()).st_mode)
            text = opened.read(_LARGEST)
    except OSError as error:
        raise UsageError(f"the key {file} can't be read: {reason(error)}") from error
    if mode & 0o077:
        raise UsageError(f"other users can access the key {file} (mode {mode:04o}): run `chmod 600 {file}`")
    try:
        return Signer(text)
    except UsageError as error:
        raise UsageError(f"the key {file} can't be used: {error}") from None
