"""The files in a submitted archive, for people to read: unpacked as marking unpacks it, and with bounds of its own."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from rabbitry._ids import NoSuchID
from rabbitry._words import reason
from rabbitry.apps.grading.exceptions import FilesError, SandboxFailed, SubmissionRefused
from rabbitry.apps.grading.marking import is_archive
from rabbitry.apps.grading.marking.archives import unpack
from rabbitry.apps.grading.message import file_name, readable
from rabbitry.exceptions import UsageError

MOST_FILES: Final = 500
"""Files of an archive that are listed."""
ROOM: Final = 32 * 1024 * 1024
"""Bytes that an archive may take on disk while a person reads it."""
_HEAD: Final = 8 * 1024
"""Bytes of a file that tell whether it is text, in the list."""


def is_shown_unpacked(data: bytes, name: str) -> bool:
    """Return whether the files in a submission are shown, and not the submission as one file.

    Args:
        data: The file as it was handed in.
        name: Its name.
    """
    return readable(data) is None and is_archive(name, data)


class Contents:
    """The files of a submission, in a folder that is removed when the block of `opened` ends."""

    def __init__(self, folder: Path) -> None:
        # `unpack` makes no links.
        self._files = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}
        self.paths: tuple[str, ...] = tuple(self._files)

    def listed(self) -> list[dict[str, Any]]:
        """Return the first MOST_FILES files as JSON data: each with its path, size and whether it is text."""
        return [
            {"path": name, "size": path.stat().st_size, "is_text": readable(_head(path)) is not None}
            for name, path in list(self._files.items())[:MOST_FILES]
        ]

    def has(self, path: str) -> bool:
        """Return whether there is a file."""
        return path in self._files

    def read(self, path: str) -> bytes:
        """Return a file. Raises NoSuchID if there is none at the path."""
        found = self._files.get(path)
        if found is None:
            raise NoSuchID(f"the submission has no file {path[:200]!r}")
        return found.read_bytes()


@contextmanager
def opened(data: bytes, name: str) -> Iterator[Contents]:
    """Unpack a submission for the block; one that is no archive is one file. Blocks.

    Args:
        data: The file as it was handed in.
        name: Its name.

    Raises:
        UsageError: The archive is not safe or damaged. The text names the reason.
        FilesError: This machine can't unpack it, because a disk is full, for instance.
    """
    with ExitStack() as stack:
        try:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rabbitry-reading-")))
            if is_shown_unpacked(data, name):
                unpack(data, name, folder, room=ROOM)
            else:
                (folder / file_name(name, "solution")).write_bytes(data)
            found = Contents(folder)
        except SubmissionRefused as error:
            raise UsageError(str(error)) from error
        except (SandboxFailed, OSError) as error:
            why = reason(error, is_named=False) if isinstance(error, OSError) else str(error)
            raise FilesError(f"this machine can't unpack the archive now: {why}") from error
        yield found


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEAD)
