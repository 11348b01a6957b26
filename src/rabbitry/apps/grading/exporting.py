"""Writing the files of a course as a tree: a folder for each student in a folder for each module."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rabbitry.apps.grading.exceptions import FilesError, SandboxFailed, SubmissionRefused
from rabbitry.apps.grading.files import Fetcher, Files, default_place
from rabbitry.apps.grading.marking import is_archive
from rabbitry.apps.grading.marking.archives import unpack
from rabbitry.apps.grading.message import file_name
from rabbitry.apps.grading.records.course import Submission, place_of_files

if TYPE_CHECKING:
    from rabbitry.apps.grading.records import Database

_ROOM: Final = 256 * 1024 * 1024
"""Bytes that an unpacked archive may take."""


def opened_files(records: Database, url: str, named: str | None) -> Files:
    """Return the kept files: of the named place, else where the coordinator noted that it keeps them. Blocks.

    Args:
        records: The open records.
        url: Their URL.
        named: A place; None for the coordinator's.
    """
    return Files(named or records.read_now(place_of_files) or default_place(url))


def write_files(files: Fetcher, found: Submission, top: Path) -> str | None:
    """Write a submission's file into MODULE/STUDENT/ below a folder, unpacked if it is an archive. Blocks.

    An archive that can't be unpacked safely is written as it is.

    Args:
        files: The kept files.
        found: The submission.
        top: The folder.

    Returns:
        What is wrong, and what was written none the less; None if all is well.
    """
    if found.kept is None:
        return "its file is not kept: the coordinator has not received it"
    folder = top / folder_name(found.module or "no module") / folder_name(found.student)
    name = file_name(found.name, found.id)
    try:
        data = files.fetch(found.kept)
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir()
        if is_archive(found.name, data):
            return _unpacked(data, found.name, folder, name)
        (folder / name).write_bytes(data)
    except FileExistsError:
        return f"{folder} exists: export into a new folder"
    except OSError as error:
        return f"{folder} can't be written: {error.strerror or error}"
    except FilesError as error:
        return str(error)
    return None


def _unpacked(data: bytes, given: str, folder: Path, name: str) -> str | None:
    try:
        unpack(data, given, folder, room=_ROOM)
    except (SubmissionRefused, SandboxFailed) as error:
        shutil.rmtree(folder)  # what was unpacked; it follows no link
        folder.mkdir()
        (folder / name).write_bytes(data)
        return f"{error}; the archive is in {folder} as it was handed in"
    return None


def folder_name(text: str) -> str:
    """Return a safe name for a folder that differs for different texts: a changed one ends in a digest of the text."""
    safe = file_name(text, "unnamed")
    return safe if safe == text else f"{safe}-{hashlib.sha256(text.encode(errors='replace')).hexdigest()[:12]}"
