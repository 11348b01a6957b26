"""Checks of a store's files before SQLite opens them: damage that SQLite would not notice, and replaced files."""

from __future__ import annotations

import logging
from pathlib import Path

from rabbitry.broker._store.files import head_of, log_path, new_folder_aside
from rabbitry.broker._store.mark import Note, read_identity, read_log
from rabbitry.broker._store.room import Room
from rabbitry.broker._store.schema import APPLICATION, VERSION
from rabbitry.broker.exceptions import StoreFailed
from rabbitry.runtime.files import exists

_logger = logging.getLogger(__name__)


def look(path: Path, room: Room) -> str:
    """Return a description of damage to a store; "" for none.

    Raises:
        StoreFailed: A person must look at the damage first.
    """
    size = path.stat().st_size if exists(path) else 0
    if not size:
        if room.has_log() and not room.is_log_empty():
            return "the database is empty or gone, and its log is not"
        if room.has_log() or room.has_reserve():
            _logger.error(
                "the store %s is empty or gone, though a broker used this data folder before: the broker starts"
                "with nothing; to have it back stop the broker and restore the folder from a copy",
                path,
            )
        return ""
    header = head_of(path, 105)  # the file's own header, since SQLite would write beside it
    if header is None:
        return "its header can't be read"
    version, application = int.from_bytes(header[60:64], "big"), int.from_bytes(header[68:72], "big")
    is_new = header[103:105] == b"\0\0"  # no table yet
    is_known = application == APPLICATION or (application == 0 and (version or is_new))
    if not header.startswith(b"SQLite format 3\0") or not is_known:
        return "its header is not that of a store"
    if version > VERSION:
        raise StoreFailed(
            f"{path} was written by a newer Rabbitry (version {version} of the store, this one knows "
            f"{VERSION}); nothing was changed"
        )
    return "the header of its log is damaged" if room.is_log_damaged() else ""


def part_from_foreign_log(path: Path, note: Note | None) -> None:
    """Log that a database is not the one of the note, and move the other database's log out of its way.

    SQLite would replay the log into any database.

    Raises:
        OSError: The disk or the system failed.
    """
    identity = read_identity(path) if note is not None else b""
    if note is None or not identity or identity == note.identity:
        return
    where = ""
    if note.frames and read_log(path)[1] == note.salts:
        aside = new_folder_aside(path.parent, "replaced")
        log_path(path).rename(aside / log_path(path).name)
        where = f"; the previous database's log is in {aside}"
    _logger.error(
        "the database %s is not the one that the last broker used here: it was replaced, and messages confirmed "
        "here are not in it%s; to restore them, stop the broker and restore the whole data folder",
        path, where,
    )  # fmt: skip
