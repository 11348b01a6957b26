"""Reading everything readable from a damaged store, and rebuilding the store from it."""

from __future__ import annotations

import base64
import json
import os
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import unquote
from zlib import crc32

from rabbitry.amqp.protocol.tables import decode_table
from rabbitry.broker._store.files import log_path, mark_path, new_folder_aside
from rabbitry.broker._store.locking import lock_stopped
from rabbitry.broker._store.mark import missing, read_log, read_note
from rabbitry.broker._store.pages import Image, Malformed, Row, Value
from rabbitry.broker._store.schema import (
    APPLICATION,
    BODY_KEY,
    ENTRY_KEY,
    IN_USE,
    SCHEMA,
    SHARED,
    VERSION,
    record_checksum,
)
from rabbitry.broker.exceptions import StoreFailed
from rabbitry.exceptions import RabbitryError, UsageError
from rabbitry.runtime.files import exists, sync

NAME: Final = "broker.sqlite"
_REBUILT: Final = f"{NAME}-rebuilt"
"""A complete database that is about to replace the damaged one."""
_MANY: Final = 500
"""Most rows written in one statement."""
_MOST_KEPT: Final = 4 << 20
"""Bytes of messages above which pending rows are written: the memory of a repair, besides one message."""
_MOST_NOTED: Final = 10_000
_HEAD: Final = 600
"""Bytes of a stored message that contain its size: two short strings and the start of its header."""
_SPARE: Final = 8 << 20
"""Free bytes that a repair needs in addition to the new database."""


@dataclass(slots=True)
class Survey:
    """The contents of a store, and its damage.

    queues: name (or number) → messages. damage: a line for each damaged part. lost: by queue, the messages whose body
    can't be read. unplaced: messages whose queue is unknown; unplaced_queue: the number of the queue that they go to.
    records: the unreadable ones, as (kind, key, value).
    """

    queues: dict[str, int] = field(default_factory=dict)
    damage: list[str] = field(default_factory=list)
    lost: dict[str, int] = field(default_factory=dict)
    unplaced: int = 0
    unplaced_queue: int = 0
    records: list[tuple[str, str, bytes]] = field(default_factory=list)
    log_damage: str = ""
    rows: int = 0
    further: int = 0
    """Number of damaged parts that are not listed."""

    @property
    def is_whole(self) -> bool:
        """Whether there is no damage."""
        return not (self.damage or self.lost or self.unplaced or self.records)

    def lines(self) -> list[str]:
        """Return one line of text for each damaged part, record or queue."""
        lines = list(self.damage)
        if self.further:
            lines.append(f"{self.further:,} more damaged parts")
        lines += [f"record {kind} {unquote(key)!r} can't be read" for kind, key, _ in self.records]
        lines += [f"queue {name}: {count:,} messages can't be read" for name, count in self.lost.items()]
        if self.unplaced:
            lines.append(
                f"{self.unplaced:,} messages have lost their place in a queue: they are in the queue "
                f"rabbitry.recovered.{self.unplaced_queue} of the virtual host /"
            )
        return lines


class _Reader:
    """Reads an image into an empty database, each row once."""

    def __init__(
        self, image: Image, target: sqlite3.Connection, progress: Callable[[int, int], None], *, keeps_bodies: bool
    ) -> None:
        """keeps_bodies: whether to store the contents of messages in the database, or only that they are readable."""
        self._image = image
        self._target = target
        self._keeps_bodies = keeps_bodies
        self._progress = progress
        self._rows: dict[str, list[tuple[Value, ...]]] = {"records": [], "bodies": [], "entries": []}
        self._seen = bytearray(image.pages + 1)
        """A byte for each page, by number: 1 if it was read."""
        self._count = 0
        self._kept = 0
        """Bytes of the bodies waiting to be written."""
        self.survey = Survey()

    def read(self) -> Survey:
        image, damage = self._image, self.survey.damage
        if image.log_damage:
            self.survey.log_damage = image.log_damage
            damage.append(f"the log: {image.log_damage}")
        try:
            free = image.free_pages()
        except (Malformed, ValueError) as error:
            free = bytearray(image.pages + 1)
            damage.append(str(error))
        for root in self._roots():
            self._walk(root)
        if damage:  # pages below a damaged one can't be reached from any tree
            for number in range(2, image.pages + 1):
                if not self._seen[number] and not free[number]:
                    self._take(number, is_expected=False)
        self._flush()
        self._conclude()
        return self.survey

    def _roots(self) -> list[int]:
        roots: list[int] = []
        try:
            if not self._image.has_header:
                raise Malformed("the header (page 1) is damaged")
            for row in self._image.rows(1):
                if isinstance(row, Malformed):
                    raise row
                kind, *_, root, _ = row.values
                if kind == "table" and isinstance(root, int):
                    roots.append(root)
        except (Malformed, ValueError) as error:
            self.survey.damage.append(str(error))
        return roots

    def _walk(self, root: int) -> None:
        waiting = [root]
        while waiting:
            number = waiting.pop()
            if not 0 < number <= self._image.pages:
                self._note(f"page {number} is not in the file")
                continue
            if self._seen[number]:
                self._note(f"page {number} is referenced twice")
                continue
            try:
                waiting += reversed(self._image.children(number))
            except Malformed as error:
                self._seen[number] = 1
                self._note(str(error))
                continue
            self._take(number, is_expected=True)

    def _take(self, number: int, *, is_expected: bool) -> None:
        self._seen[number] = 1
        self._count += 1
        self._progress(self._count, self._image.pages)
        try:
            for row in self._image.rows(number):
                if isinstance(row, Row):
                    self._keep(row, is_expected=is_expected)
                elif is_expected:
                    self._note(str(row))
        except Malformed as error:
            if is_expected:
                self._note(str(error))

    def _note(self, damage: str) -> None:
        """Record damage; beyond the first _MOST_NOTED parts it is only counted."""
        if len(self.survey.damage) < _MOST_NOTED:
            self.survey.damage.append(damage)
        else:
            self.survey.further += 1

    def _keep(self, row: Row, *, is_expected: bool) -> None:
        """Keep a row with a correct checksum. Its table is recognised by the types of its values."""
        match row.values:
            case (None, int(refs), bytes(content), int(crc)):
                self._keep_body(row.number, refs, content, crc)
            case (None, int(refs), bytes(exchange), bytes(header), bytes(body), int(crc)):  # version 1
                self._keep_body(row.number, refs, exchange + header + body, crc)
            case (int(queue), int(priority), int(position), int(body), int(), int() | float(), int(size), int(crc)):
                expires = float(row.values[5] or 0)
                try:
                    key = ENTRY_KEY.pack(queue, priority, position, body, expires, size)
                except Exception as error:  # such as struct.error for a damaged number
                    raise Malformed(str(error)) from error
                if crc32(key) == crc:
                    self._add("entries", row.values)
                elif is_expected:
                    self._note(f"position {position} of queue number {queue} has a wrong checksum")
            case (str(kind), str(key), bytes(value), int(crc)):
                if record_checksum(kind, key, value) == crc and _decodes(value):
                    self._add("records", row.values)
                elif is_expected:
                    self.survey.records.append((kind, key, value))

    def _keep_body(self, number: int, refs: int, content: bytes, crc: int) -> None:
        if number >= 0 and crc32(content, crc32(BODY_KEY.pack(number))) == crc:
            if not self._keeps_bodies:
                content = b""
            self._kept += len(content)
            self._add("bodies", (number, refs, content, crc))

    def _add(self, table: str, values: tuple[Value, ...]) -> None:
        self.survey.rows += 1
        rows = self._rows[table]
        rows.append(values)
        if len(rows) >= _MANY or self._kept >= _MOST_KEPT:
            self._write(table)

    def _write(self, table: str) -> None:
        rows = self._rows[table]
        if rows:
            places = ", ".join("?" * len(rows[0]))
            self._target.executemany(f"INSERT OR IGNORE INTO {table} VALUES ({places})", rows)  # noqa: S608 # no text from outside
            rows.clear()
            if table == "bodies":
                self._kept = 0

    def _flush(self) -> None:
        for table in self._rows:
            self._write(table)

    def _conclude(self) -> None:
        """Count each queue's messages and the lost ones; put messages without an entry into a separate queue."""
        target, survey = self._target, self.survey
        names = {}
        deleted: set[int] = set()
        for kind, key, value in target.execute(
            "SELECT kind, key, value FROM records WHERE kind IN ('queue', 'deleted')"
        ):
            if kind == "deleted":
                deleted.add(int(key))
            else:
                vhost, _, name = key.partition("/")
                number = decode_table(value)[0].get("id")
                names[number] = f"{unquote(name)!r} of {unquote(vhost)!r}"
        missing = "NOT EXISTS (SELECT 1 FROM bodies WHERE id = body)"
        lost: Counter[str] = Counter()
        held: Counter[str] = Counter()
        for queue, is_lost, count in target.execute(f"SELECT queue, {missing}, COUNT(*) FROM entries GROUP BY 1, 2"):  # noqa: S608 # no text from outside
            if queue in deleted:
                continue
            (lost if is_lost else held)[names.get(queue, f"number {queue}, which has no record")] += count
            if queue not in names:
                survey.damage.append(f"queue number {queue} has no record, and {count:,} messages")
        survey.lost, survey.queues = dict(lost), dict.fromkeys(names.values(), 0) | dict(held)
        target.execute("CREATE TEMP TABLE placed AS SELECT body AS id, COUNT(*) AS refs FROM entries GROUP BY body")
        target.execute("CREATE UNIQUE INDEX temp.by_id ON placed (id)")
        shared = "SELECT body FROM entries WHERE flags & ?"
        target.execute(
            f"UPDATE bodies SET refs = (SELECT refs FROM placed WHERE placed.id = bodies.id) WHERE id IN ({shared})",  # noqa: S608 # no text from outside
            (SHARED,),
        )
        number = max([0, *(key for key in names if isinstance(key, int)), *deleted]) + 1
        (used,) = target.execute("SELECT COALESCE(MAX(queue), 0) FROM entries").fetchone()
        survey.unplaced_queue = max(number, used + 1)
        queue = survey.unplaced_queue
        unplaced = target.execute(
            "SELECT id, substr(content, 1, ?) FROM bodies WHERE id NOT IN (SELECT id FROM placed)", (_HEAD,)
        )
        while bodies := unplaced.fetchmany(_MANY):
            survey.unplaced += len(bodies)
            rows = [(queue, body, body, _body_size(head)) for body, head in bodies]
            target.executemany(
                "INSERT INTO entries VALUES (?, 0, ?, ?, 0, 0.0, ?, ?)",
                [(*row, crc32(ENTRY_KEY.pack(queue, 0, row[1], row[2], 0.0, row[3]))) for row in rows if row[3] >= 0],
            )


def _body_size(content: bytes) -> int:
    """Return the body size in bytes of a stored message, as its content header states (AMQP 0-9-1, 4.2.6.1)."""
    try:
        key = 1 + content[0]
        header = key + 1 + content[key]
        return int.from_bytes(content[header + 4 : header + 12], "big")
    except IndexError:
        return -1


def _decodes(value: bytes) -> bool:
    try:
        decode_table(value)
    except RabbitryError:
        return False
    return True


def _no_progress(done: int, total: int) -> None:
    """Ignore progress: the default of `survey` and `rebuild`."""


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Lock an existing data folder, so that no broker uses it.

    Raises:
        StoreFailed: A broker uses it.
        UsageError: The folder is not a broker's.
    """
    try:
        is_store = any(exists(file) and file.is_file() for file in (folder / NAME, log_path(folder / NAME)))
    except OSError as error:
        raise StoreFailed(f"the data folder {folder} can't be read: {error.strerror}") from error
    if not is_store:
        why = "it holds no broker.sqlite" if folder.is_dir() else "there is no such folder"
        raise UsageError(f"{folder} is not a data folder of a broker: {why}")
    with lock_stopped(folder):
        yield


def survey(folder: Path, progress: Callable[[int, int], None] = _no_progress) -> Survey:
    """Read everything in a store without changing it.

    Raises:
        StoreFailed: The store failed; the text says why.
    """
    rebuilt = folder / _REBUILT
    target = sqlite3.connect("", isolation_level=None)  # a temporary database
    try:
        return _read(
            rebuilt if exists(rebuilt) else folder / NAME, target, progress, keeps_bodies=False, despite_errors=True
        )
    finally:
        target.close()


def _read(
    path: Path,
    target: sqlite3.Connection,
    progress: Callable[[int, int], None],
    *,
    keeps_bodies: bool,
    despite_errors: bool,
) -> Survey:
    try:
        image = Image(path)
    except OSError as error:
        raise StoreFailed(f"the store {path} can't be read: {error.strerror}") from error
    try:
        note = read_note(path)
        lacking = missing(note, read_log(path), image.log_frames) if note is not None else ""
        if image.has_header and image.application == APPLICATION and image.version > VERSION:
            raise StoreFailed(
                f"{path} was written by a newer Rabbitry (version {image.version} of the store, this one knows "
                f"{VERSION}); nothing was changed"
            )
        target.executescript(SCHEMA)
        target.execute("BEGIN")
        found = _Reader(image, target, progress, keeps_bodies=keeps_bodies).read()
        is_ours = image.application == APPLICATION if image.has_header else False
        if image.unreadable and not (found.rows and despite_errors):
            raise StoreFailed(
                f"the disk can't read a part of the store {path}: see dmesg, have the disk and file system checked, "
                f"and if that stays so run rabbitry broker repair {path.parent}; nothing was changed"
            )
        if not found.rows and not is_ours:
            raise StoreFailed(f"{path} is not a store of Rabbitry's broker: pass another data folder")
        if lacking and not found.log_damage:
            found.damage.append(lacking)
        target.execute("UPDATE state SET clean = ?", (IN_USE,))
        target.execute("COMMIT")
    except OSError as error:
        raise StoreFailed(f"the store {path} can't be read: {error.strerror}") from error
    except sqlite3.Error as error:
        raise StoreFailed(f"the store {path} can't be rebuilt: {error}") from error
    finally:
        image.close()
    return found


def rebuild(
    folder: Path,
    progress: Callable[[int, int], None] = _no_progress,
    *,
    keep_places: bool = False,
    despite_errors: bool = False,
) -> tuple[Survey, Path]:
    """Rebuild a store from its readable rows. Return the survey, and the folder to which the old files were moved.

    That folder also gets `lost.jsonl`, a list of everything unreadable. The caller must hold the data folder's lock. A
    process that is killed during it leaves the old files unchanged.

    Args:
        folder: The data folder.
        progress: Called with the number of pages read, and the number of all pages.
        keep_places: Whether to keep entries without a body, because queues have counted them.
        despite_errors: Whether pages that the disk fails to read (EIO) count as damaged. Otherwise, and if nothing can
            be read, raises StoreFailed.
    """
    path = folder / NAME
    new = folder / f"{NAME}-new"
    finish(folder)
    try:
        new.unlink(missing_ok=True)
        needed, free = room_for_repair(folder)
        if needed > free:
            raise StoreFailed(
                f"no room in {folder} to rebuild the damaged store: that needs {needed / 1e6:,.1f} MB, and "
                f"{free / 1e6:,.1f} MB are free; free space there, or repair a copy of the folder elsewhere"
            )
        target = sqlite3.connect(new, isolation_level=None)
        try:
            target.execute("PRAGMA journal_mode = OFF")
            found = _read(path, target, progress, keeps_bodies=True, despite_errors=despite_errors)
            if not keep_places:
                target.execute("DELETE FROM entries WHERE NOT EXISTS (SELECT 1 FROM bodies WHERE id = body)")
            target.execute(f"PRAGMA application_id = {APPLICATION}")
            target.execute(f"PRAGMA user_version = {VERSION}")
        except StoreFailed:
            new.unlink(missing_ok=True)
            raise
        finally:
            target.close()
        aside = _set_aside(folder, found)
        sync(new)
        new.rename(folder / _REBUILT)  # from here on the new database is the valid one, even if this process dies
        sync(folder)
    except (OSError, sqlite3.Error) as error:
        raise StoreFailed(f"the store {path} can't be repaired: {error}; the old files are unchanged") from error
    finish(folder)
    return found, aside


def finish(folder: Path) -> None:
    """Move a rebuilt database into place, with an empty log; do nothing if there is none.

    A process that died meanwhile has left the old log, which must not be replayed into the new database.

    Raises:
        StoreFailed: The store failed; the text says why.
    """
    rebuilt, path = folder / _REBUILT, folder / NAME
    try:
        if not exists(rebuilt):
            return
        log = folder / f"{NAME}-wal-new"
        log.write_bytes(bytes(32))  # an empty log, since a start without a log reports a lost one
        sync(log)
        log.replace(log_path(path))
        mark_path(path).unlink(missing_ok=True)  # it is about the old log
        sync(folder)
        rebuilt.replace(path)
        sync(folder)
    except OSError as error:
        raise StoreFailed(f"the repaired store {rebuilt} can't take its place: {error}; try again") from error


def room_for_repair(folder: Path) -> tuple[int, int]:
    """Return the most bytes that `rebuild` needs in a folder, and the free bytes.

    The old files are kept by hard links, which take no space, if the file system supports them.

    Raises:
        StoreFailed: The store failed; the text says why.
    """
    path = folder / NAME
    try:
        image = Image(path)
        try:
            needed = (image.pages - _unused(image)) * image.page_size * 21 // 20 + _SPARE
        finally:
            image.close()
        if not _has_links(path):
            needed += sum(file.stat().st_size for file in (path, log_path(path)) if exists(file))
        return needed, shutil.disk_usage(folder).free
    except OSError as error:
        raise StoreFailed(f"the store {path} can't be read: {error.strerror}") from error


def _unused(image: Image) -> int:
    """Return the number of free pages; 0 if it can't be read."""
    try:
        return sum(image.free_pages())
    except (Malformed, ValueError):
        return 0


def _has_links(path: Path) -> bool:
    """Return whether the file system supports hard links."""
    probe = path.with_name(f"{path.name}-link")
    try:
        probe.unlink(missing_ok=True)
        os.link(path if exists(path) else log_path(path), probe)
        probe.unlink()
    except OSError:
        return False
    return True


def _set_aside(folder: Path, found: Survey) -> Path:
    aside = new_folder_aside(folder, "damaged")
    for file in (folder / NAME, log_path(folder / NAME)):
        if exists(file):
            try:
                os.link(file, aside / file.name)
            except OSError:  # a file system without links
                shutil.copyfile(file, aside / file.name)
                sync(aside / file.name)
    with open(aside / "lost.jsonl", "w", encoding="utf-8") as lost:
        for line in found.lines():
            print(json.dumps({"damage": line}), file=lost)
        for kind, key, value in found.records:
            print(json.dumps({"kind": kind, "key": key, "value": base64.b64encode(value).decode()}), file=lost)
    sync(aside / "lost.jsonl")
    sync(aside)
    return aside


def set_records_aside(folder: Path, records: list[tuple[str, str, bytes]]) -> Path:
    """Append unusable records to a file beside the store, and return its path.

    Raises:
        OSError: The disk or the system failed.
    """
    path = folder / "damaged-records.jsonl"
    with open(path, "a", encoding="utf-8") as file:
        for kind, key, value in records:
            print(json.dumps({"kind": kind, "key": key, "value": base64.b64encode(value).decode()}), file=file)
    sync(path)
    sync(folder)
    return path
