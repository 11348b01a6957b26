"""Reading a private key with which roles, the page and the commands sign."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rabbitry._words import reason
from rabbitry.apps.grading.modules import Course
from rabbitry.exceptions import UsageError
from rabbitry.runtime.output import warn

if TYPE_CHECKING:
    from rabbitry.apps.grading.signatures import Signer
    from rabbitry.apps.grading.stages import RoleSpec

VARIABLE: Final = "RABBITRY_GRADING_KEY"
"""The environment variable that names the key's file."""
_LARGEST: Final = 10_000
"""Bytes of a key's file."""


def signer_of(file: Path | None, course: Course) -> Signer | None:
    """Return what signs with a key; None if no key is named. Blocks.

    Raises:
        UsageError: The key can't be used, others can read it, or it is not in the course's configuration.
    """
    if file is None:
        return None
    signer = _read(file)
    if course.signatures is None or signer.public not in course.signatures.keys:
        raise UsageError(f"the key {file} is not in the course's configuration: add its public key, {signer.public}")
    return signer


def signer_for(specs: Sequence[RoleSpec], file: Path | None, course: Course) -> Signer | None:
    """Return what signs for roles; None, with a warning if the course has signatures, if no key is named.

    Raises:
        UsageError: The key can't be used, others can read it, or the configuration does not let it sign for a role.
    """
    signer = signer_of(file, course)
    if signer is None or file is None or course.signatures is None:
        if course.signatures is not None:
            _warn_of_unsigned(course)
        return None
    known = course.signatures.keys[signer.public]
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
