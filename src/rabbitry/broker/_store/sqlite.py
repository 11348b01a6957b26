"""The store in SQLite: write-ahead log, an fdatasync before each commit returns.

A message's body is one row, and each queue that holds it has an entry row. A body in one queue only (every body except
those that a fanout routed to several) is deleted with its entry; other bodies count their entries.
"""

from __future__ import annotations

import ctypes
import functools
import logging
import shutil
import sqlite3
import sys
import time
from collections.abc import Callable, Sequence
from io import FileIO
from itertools import islice
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import unquote

from rabbitry.broker._store import rows
from rabbitry.broker._store.batch import Batch, Contents, Dropped, Found, StoredLane, StoreFull, Unusable, Wanted
from rabbitry.broker._store.errors import code, failure, is_damage, is_full
from rabbitry.broker._store.locking import lock_folder
from rabbitry.broker._store.looking import look, part_from_foreign_log
from rabbitry.broker._store.mark import (
    Mark,
    Note,
    make_identity,
    missing,
    read_log,
    read_note,
    stored_identity,
)
from rabbitry.broker._store.records import read_records
from rabbitry.broker._store.rescue import Survey, finish, rebuild, set_records_aside
from rabbitry.broker._store.room import RESERVE, Room, is_no_room
from rabbitry.broker._store.schema import (
    APPLICATION,
    COMPLETE,
    FROM_VERSION_1,
    IN_USE,
    INCOMPLETE,
    SCHEMA,
    VERSION,
)
from rabbitry.broker.exceptions import StoreFailed
from rabbitry.runtime.files import exists

_logger = logging.getLogger(__name__)
_MOST_LINES: Final = 50
"""Most log lines about damage; lost.jsonl lists all of it."""
_PIECE: Final = 250
"""Entries in a transaction that may use only the log's reserve: each may need two pages of its own."""
_MOST_DROPPED: Final = 10_000
"""Most entries deleted without loading in one transaction: other channels' confirms wait for it."""
_DROP_COSTS: Final = 10
"""Cost of one search for such entries, in deleted entries."""
_READS_FOR: Final = 0.05
"""Seconds of reading after which the rest is left for the next batch: confirms of this one wait for it."""
_LONGEST_LOG: Final = 64 << 20
"""Bytes that the log may keep while the disk has space."""
_COUNTED_FOR: Final = 0.05
"""Seconds after which a batch measures free space again; one that made the database's file grow always does."""
_WORTH_SHRINKING: Final = 8 << 20
"""Bytes of free pages above which the database is shrunk."""
_T = TypeVar("_T")


class SQLiteStore:
    """A store in a folder. A second broker on the same folder is refused."""

    def __init__(self, folder: Path, address: str = "") -> None:
        """address: The broker's URL, named in the error of a second broker on the folder."""
        self.path = folder / "broker.sqlite"
        self._address = address
        self._lock: FileIO | None = None
        self._connection: sqlite3.Connection | None = None
        self._room = Room(self.path)
        self._mark: Mark | None = None
        self._page_size = 4096
        self._was_busy = False
        self._ended = IN_USE
        """How the store was closed before it was opened."""
        self._had_log = False
        self._checkpoint_failed = self._has_failed = False
        self._gone: list[tuple[int, int, int]] = []
        self.free = self.reusable = 0
        self._counted_size = 0
        self._counts_at = 0.0

    # -- opening and closing ---------------------------------------------------------------------------

    def open(self) -> Contents:
        """Open it, and mark it as in use until `close`. Raises StoreFailed, with the file unchanged."""
        self._lock = lock_folder(self.path.parent, self._address)
        try:
            finish(self.path.parent)
            self._had_log = self._room.has_log() or not exists(self.path)
            damage = look(self.path, self._room)
            if damage:
                self._rebuild(damage)
            try:
                return self._open_files()
            except sqlite3.Error as error:
                if not is_damage(error) and code(error) != sqlite3.SQLITE_ERROR:  # such as a missing table
                    raise
                self._leave()
                self._let_go()
                self._rebuild(str(error))
                return self._open_files()
        except OSError as error:
            self._abandon()
            raise StoreFailed(f"the store {self.path} can't be read: {error.strerror}") from error
        except sqlite3.Error as error:
            if code(error) & 0xFF == sqlite3.SQLITE_IOERR:
                self._leave()
            self._abandon()
            if is_full(error):
                raise StoreFailed(f"no room in {self.path.parent} for a store: {error}; free 5 MB there") from error
            if code(error) & 0xFF == sqlite3.SQLITE_IOERR:
                raise StoreFailed(failure(error, self.path)) from error
            raise StoreFailed(f"the store {self.path} can't be opened: {error}") from error
        except BaseException:
            self._abandon()
            raise

    def _open_files(self) -> Contents:
        note = read_note(self.path)
        part_from_foreign_log(self.path, note)
        self._room.bring_back()
        log = read_log(self.path)
        self._connect()
        self._compare(note, log)
        self._room.take()
        self._begin_mark()
        contents = self._contents()
        self._count_free()
        return contents

    def _compare(self, note: Note | None, log: tuple[int, bytes]) -> None:
        """Log if commits in the note are missing. log: number and salts of the log as it was found."""
        connection = self._open_connection()
        _, frames, _ = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        if note is None or note.identity != stored_identity(connection):
            return
        text = missing(note, log, frames)
        if text:
            self._had_log = True  # logged here
            _logger.error(
                "the store %s lacks the last confirmed messages: %s; check the disk, or restore the data folder from a "
                "copy",
                self.path, text,
            )  # fmt: skip

    def _begin_mark(self) -> None:
        """Start to note how far the log is committed."""
        connection = self._open_connection()
        (self._page_size,) = connection.execute("PRAGMA page_size").fetchone()
        identity = stored_identity(connection)
        try:
            if not identity:
                identity = make_identity(connection)
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)")  # so that the identity is in the file itself
            self._mark = Mark(self.path, identity, self._page_size)
            self._mark.note()
        except (OSError, sqlite3.Error) as error:
            if not self._is_no_room(error):
                raise
            _logger.warning("no room in %s to note how far its log is committed", self.path.parent)

    # -- damage ----------------------------------------------------------------------------------------

    def _rebuild(self, why: str, *, keep_places: bool = False) -> Survey:
        """Rebuild the store from its readable rows, and log what is lost.

        Raises StoreFailed, with the files unchanged, also if the disk fails to read them: SQLite reports that as damage
        too, but the data may be readable again once the disk is checked.
        """
        found, aside = rebuild(self.path.parent, keep_places=keep_places)
        _logger.error(
            "the store %s was damaged (%s) and has been rebuilt from all rows that can be read", self.path, why
        )
        lines = found.lines()
        for line in lines[:_MOST_LINES]:
            _logger.error("the store %s: %s", self.path, line)
        _logger.error(
            "the damaged files of the store are in %s, with a list of the losses (lost.jsonl): look at it, check "
            "the disk, then delete that folder",
            aside,
        )
        self._had_log = True
        return found

    def _mend(self, error: Exception) -> None:
        """Rebuild the store while the broker runs. Raises StoreFailed if queues then hold different messages."""
        self._room.check_files()
        self._leave()
        self._let_go()
        found = self._rebuild(str(error), keep_places=True)
        if found.unplaced or found.log_damage:
            raise StoreFailed(f"the store {self.path} was damaged, and is repaired: start the broker again") from error
        self._connect()
        self._room.take()
        self._begin_mark()

    def _surviving(self, act: Callable[[], _T]) -> _T:
        """Call a function that changes nothing if it raises. On damage, rebuild the store and call it again."""
        try:
            return act()
        except sqlite3.Error as error:
            if not is_damage(error):
                raise
            self._mend(error)
            return act()

    def _connect(self) -> None:
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, cached_statements=256)
        self._connection = connection  # if the rest fails, the caller closes it, or leaves it without a checkpoint
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA fullfsync = ON")  # macOS leaves it in the disk's cache otherwise
        connection.execute(f"PRAGMA journal_size_limit = {_LONGEST_LOG}")
        connection.execute("PRAGMA wal_autocheckpoint = 4096")
        connection.execute("PRAGMA cache_size = -16384")
        connection.execute("PRAGMA secure_delete = OFF")  # ON would write zeros over deleted rows, through the log
        connection.execute("PRAGMA temp_store = MEMORY")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version < VERSION:
            changes = f"PRAGMA application_id = {APPLICATION}; {SCHEMA}" if version == 0 else FROM_VERSION_1
            connection.executescript(f"BEGIN; {changes} PRAGMA user_version = {VERSION}; COMMIT;")
            connection.execute("PRAGMA wal_checkpoint")  # so that the version is in the file itself

    def _contents(self) -> Contents:
        connection = self._open_connection()
        (self._ended,) = connection.execute("SELECT clean FROM state").fetchone()
        if self._ended == IN_USE and not self._had_log:
            _logger.error(
                "%s has no log (%s-wal) beside it, though the last broker did not end in order: it was removed; "
                "messages confirmed since its last checkpoint are lost",
                self.path,
                self.path.name,
            )
        try:
            self._in_transaction(self._begin_life)
        except StoreFull as error:
            # An older version, which reserved no blocks, has closed this folder. Serve its messages nevertheless.
            _logger.warning("%s; transient messages of the last run are still there", error)
        records, damaged = read_records(connection)
        if damaged:
            self.set_aside(damaged)
        backlogs = [
            StoredLane(*row)
            for row in connection.execute(
                "SELECT queue, priority, COUNT(*), SUM(size), MAX(position) FROM entries GROUP BY queue, priority"
            )
        ]
        (last,) = connection.execute("SELECT COALESCE(MAX(id), 0) FROM bodies").fetchone()
        return Contents(records, backlogs, last, self._ended == COMPLETE)

    def set_aside(self, records: Sequence[Unusable]) -> None:
        """Move unusable records to a file, and log each.

        Raises:
            StoreFailed: The store failed; the text says why.
        """
        connection = self._open_connection()
        rows: list[tuple[str, str, bytes]] = []
        for kind, key, _ in records:
            found = "SELECT value FROM records WHERE kind = ? AND key = ?"
            rows += [(kind, key, bytes(value)) for (value,) in connection.execute(found, (kind, key))]
        try:
            path = set_records_aside(self.path.parent, rows)
            self._in_transaction(
                lambda: connection.executemany(
                    "DELETE FROM records WHERE kind = ? AND key = ?", [(kind, key) for kind, key, _ in records]
                )
            )
        except (OSError, sqlite3.Error) as error:
            raise StoreFailed(f"damaged records of {self.path} can't be set aside: {error}") from error
        except StoreFull as error:
            _logger.warning("%s; damaged records stay in place", error)
        for kind, key, why in records:
            _logger.error(
                "the store %s is damaged: record %s %r can't be used (%s); it is left out, and set aside in %s: "
                "declare it again, or correct it with the management API",
                self.path, kind, unquote(key), why, path,
            )  # fmt: skip

    def _begin_life(self) -> None:
        """Mark the store as in use, and delete the transient messages of the last run."""
        connection = self._open_connection()
        connection.execute("UPDATE state SET clean = ?", (IN_USE,))
        if connection.execute("SELECT EXISTS (SELECT 1 FROM entries WHERE flags & ?)", (rows.TRANSIENT,)).fetchone()[0]:
            rows.delete_entries(connection, f"flags & {rows.TRANSIENT}", ())

    def close(self, *, is_complete: bool = True) -> None:
        """Mark the store as closed in order, and release the folder.

        Args:
            is_complete: Whether it has all changes, as `Store.close` explains.

        Raises:
            StoreFailed: The store failed; the text says why.
        """
        if self._has_failed:
            self._leave()
            self._abandon()
        if self._connection is not None:
            try:
                self._room.check_files()
                state = COMPLETE if is_complete else INCOMPLETE
                self._cut_log(f"UPDATE state SET clean = {state}")  # noqa: S608 # a number
                if self._checkpoint():
                    if self._mark is not None:
                        self._mark.clear()
                    self._room.set_aside()
            except StoreFull as error:
                _logger.warning("%s; it is closed as after a crash, so messages will be marked redelivered", error)
            except sqlite3.Error as error:
                failed = self._failure(error)
                self._leave()
                raise failed from error
            except StoreFailed:
                self._leave()  # closing would delete the log by its name, which now belongs to another file
                raise
            finally:
                self._abandon()

    def give_back(self) -> None:
        """Release an opened but unused store as it was found.

        A store that had been closed in order is closed in order again. One left by a crash keeps its log and its mark,
        so that the next start marks its messages as redelivered.

        Raises:
            StoreFailed: The store failed; the text says why.
        """
        if self._ended != IN_USE:
            self.close(is_complete=self._ended == COMPLETE)
        else:
            self._leave()
            self._abandon()

    def _leave(self) -> None:
        """Close the database without SQLite's checkpoint on close, which deletes the log.

        Python 3.11 can't forbid that checkpoint, so there the connection stays open until the process ends.
        """
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if sys.version_info >= (3, 12):
            connection.setconfig(sqlite3.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, True)
            connection.close()
        else:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))

    def _failure(self, error: Exception) -> StoreFailed:
        """Return the error that stops the broker, with advice. Nothing is written or synced after it.

        After a failed fsync the system may have dropped pending writes, so a checkpoint would copy wrong data into the
        database.
        """
        self._has_failed = True
        return StoreFailed(failure(error, self.path))

    def _let_go(self) -> None:
        if self._mark is not None:  # first: Windows removes no log that is open here
            self._mark.close()
            self._mark = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._room.close()

    def _abandon(self) -> None:
        self._let_go()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _open_connection(self) -> sqlite3.Connection:
        if self._connection is None:
            raise StoreFailed(f"the store {self.path} is closed")
        return self._connection

    # -- writing ---------------------------------------------------------------------------------------

    def apply(self, batch: Batch) -> list[Found]:
        """Write a batch in one transaction, then do its reads.

        Without space for all of it, a batch that adds no messages is written in pieces that fit into the log's reserve.
        Written changes are removed from the batch.
        """
        self._was_busy = True
        try:
            self._surviving(functools.partial(self._write_all, batch))
            self._room.check_files()  # before anything is reported as durable
            found = self._surviving(functools.partial(self._read, batch.wanted))
            if self._gone:
                self._forget_gone()
            if self._room.size > self._counted_size or time.monotonic() > self._counts_at:
                self._count_free()
        except (sqlite3.Error, OSError) as error:
            raise self._failure(error) from error
        return found

    def _read(self, wanted: list[Wanted]) -> list[Found]:
        """Return the results of the first reads: at least one, and as many as there is time for."""
        found: list[Found] = []
        ends_at = time.monotonic() + _READS_FOR
        while len(found) < len(wanted) and (not found or time.monotonic() < ends_at):
            answer, gone = rows.read(self._open_connection(), wanted[len(found)], self.path, ends_at)
            found.append(answer)
            self._gone += gone
        return found

    def _forget_gone(self) -> None:
        """Delete entries whose message is lost and was logged."""
        gone, self._gone = self._gone, []
        statement = "DELETE FROM entries WHERE queue = ? AND priority = ? AND position = ?"
        try:
            self._in_transaction(lambda: self._open_connection().executemany(statement, gone))
        except StoreFull as error:
            _logger.debug("entries without messages stay: %s", error)

    def _write_all(self, batch: Batch) -> None:
        if batch.records or batch.added or batch.changed or batch.removed or batch.dropped:
            try:
                self._in_transaction(
                    functools.partial(rows.write, self._open_connection(), batch), spare=bool(batch.added)
                )
            except StoreFull:
                if batch.added:
                    raise
                self._write_in_pieces(batch)
        if batch.dropped:
            for written in (batch.records, batch.added, batch.changed, batch.removed):
                written.clear()
            self._drop_some(batch.dropped, _MOST_DROPPED)

    def _in_transaction(self, write: Callable[[], object], *, spare: bool = False) -> None:
        """Call a function within one transaction. Raises StoreFull after a rollback.

        spare: whether to leave the space that is reserved for batches that add no messages.
        """
        try:
            self._try(write, spare=spare)
        except StoreFull:
            self._checkpoint()  # the log starts again, in the space that it has
            self._try(write, spare=spare)

    def _try(self, write: Callable[[], object], *, spare: bool) -> None:
        connection = self._open_connection()
        connection.execute("BEGIN IMMEDIATE")
        try:
            write()
            # Otherwise a checkpoint might find the disk full, and the log would grow forever.
            (pages,) = connection.execute("PRAGMA page_count").fetchone()
            self._room.hold(pages * self._page_size, spare=spare)
            connection.execute("COMMIT")
            if self._mark is not None:
                self._mark.note()
        except (sqlite3.Error, OSError) as error:
            if not self._is_no_room(error):
                raise
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            self._count_free()
            raise StoreFull(f"no room in {self.path.parent}: {error}") from error

    def _is_no_room(self, error: Exception) -> bool:
        if isinstance(error, OSError):
            return is_no_room(error)
        # SQLite reports an exhausted quota as a write error.
        return is_full(error) or (code(error) == sqlite3.SQLITE_IOERR_WRITE and not self._room.can_grow())

    def _write_in_pieces(self, batch: Batch) -> None:
        """Write a batch that adds no messages in several transactions. Raises StoreFull."""
        while batch.removed:
            piece = dict(islice(batch.removed.items(), _PIECE))
            self._in_transaction(functools.partial(rows.remove, self._open_connection(), piece))
            for entry in piece:
                del batch.removed[entry]
        self._in_transaction(functools.partial(rows.write, self._open_connection(), Batch(changed=batch.changed)))
        batch.changed.clear()
        rest = Batch(records=batch.records, dropped=batch.dropped, noted=batch.noted)
        self._in_transaction(functools.partial(rows.write, self._open_connection(), rest))
        batch.records.clear()

    def _checkpoint(self) -> bool:
        """Copy the log into the database's file, so that it is reused from its start. Return whether all was copied."""
        try:
            busy, frames, done = self._open_connection().execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
        except sqlite3.Error as error:
            if not self._is_no_room(error):
                raise
            return False
        return not busy and frames == done

    def _watch_checkpoint(self) -> None:
        """Checkpoint and log an error: SQLite hides errors of the checkpoints that follow a commit."""
        try:
            self._open_connection().execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        except sqlite3.Error as error:
            if not self._checkpoint_failed and not self._is_no_room(error):
                self._checkpoint_failed = True
                _logger.error(  # noqa: TRY400 - not a defect of this code
                    "the store %s can't copy its log into the database (%s): confirmed messages are safe in %s-wal, "
                    "which grows; check the disk, and copy the data folder",
                    self.path, error, self.path.name,
                )  # fmt: skip
        else:
            if self._checkpoint_failed:
                _logger.warning("the store %s can copy its log into the database again", self.path)
            self._checkpoint_failed = False

    # -- room ------------------------------------------------------------------------------------------

    def tidy(self, *, is_short: bool) -> None:
        """Free unneeded space, if nothing was written since the last call or the disk is short of space.

        The log is truncated. The database is vacuumed only if its contents fit into the log, so that this is quick.
        """
        is_quiet, self._was_busy = not self._was_busy, False
        self._room.check_files()
        self._watch_checkpoint()
        self._count_free()
        if not is_quiet and not is_short:
            return
        connection = self._open_connection()
        try:
            size = connection.execute("PRAGMA page_count").fetchone()[0] * self._page_size
            if self.reusable >= _WORTH_SHRINKING and size - self.reusable < RESERVE // 2:
                self._surviving(lambda: self._open_connection().execute("VACUUM"))
                self._checkpoint()
            if self._room.log_size() > RESERVE:
                self._cut_log(f"PRAGMA user_version = {VERSION}")
            self._count_free()
        except StoreFull as error:
            _logger.debug("no space can be freed now: %s", error)
        except (sqlite3.Error, OSError) as error:
            if not self._is_no_room(error):
                raise self._failure(error) from error

    def _cut_log(self, write: str) -> None:
        """Truncate the log to its reserve. SQLite does so at the first `write` into a restarted log."""
        connection = self._open_connection()
        connection.execute(f"PRAGMA journal_size_limit = {RESERVE}")
        self._checkpoint()
        self._in_transaction(lambda: connection.execute(write))
        connection.execute(f"PRAGMA journal_size_limit = {_LONGEST_LOG}")
        self._checkpoint()

    def _count_free(self) -> None:
        (pages,) = self._open_connection().execute("PRAGMA freelist_count").fetchone()
        self.reusable = pages * self._page_size
        try:
            self.free = free_bytes(self.path.parent)
        except OSError as error:
            raise StoreFailed(f"the data folder {self.path.parent} is gone: {error.strerror}") from error
        (pages,) = self._open_connection().execute("PRAGMA page_count").fetchone()
        try:
            self._room.hold(pages * self._page_size)  # a checkpoint released the blocks reserved in advance
        except OSError as error:
            if not is_no_room(error):
                raise
        self._counted_size = self._room.size
        self._counts_at = time.monotonic() + _COUNTED_FOR

    def _drop_some(self, waiting: list[Dropped], most: int) -> None:
        """Delete some dropped entries in a separate transaction, and remove finished items. Raises StoreFull."""
        rest: list[Dropped] = []

        def write() -> None:
            rest[:] = waiting
            left = most
            while rest and left > 0:
                left -= _DROP_COSTS + rows.drop(self._open_connection(), rest, left)

        try:
            self._in_transaction(write)
        except StoreFull:
            if most == _PIECE:
                raise
            self._drop_some(waiting, _PIECE)
        else:
            waiting[:] = rest


def free_bytes(folder: Path) -> int:
    """Return the free bytes of a folder's file system."""
    return shutil.disk_usage(folder).free
