"""The audit log: what people changed through the dashboard, in SQLite beside the apps' records.

An entry is written before the change is made, and completed after it: a change that was cut off is still in the log.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any, Final, TypeVar

import platformdirs
from fastapi import APIRouter, Response

from rabbitry._words import remedy
from rabbitry.apps import Role, needs
from rabbitry.apps.api import answers, json_response, route_class
from rabbitry.apps.exceptions import RecordsError
from rabbitry.exceptions import RabbitryError
from rabbitry.runtime.parent import RECORDS_FOLDER
from rabbitry.web.answers import Entry

MOST_KEPT: Final = 10_000
"""Entries in the log; older ones are removed."""
MOST_SHOWN: Final = 200
DONE: Final = "done"
_LONGEST: Final = 500
"""Characters of a result."""
_TABLE: Final = (
    "CREATE TABLE IF NOT EXISTS entries (id INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, who TEXT NOT NULL, "
    "action TEXT NOT NULL, vhost TEXT NOT NULL, queue TEXT NOT NULL, result TEXT NOT NULL)"
)
_INSERT: Final = "INSERT INTO entries (at, who, action, vhost, queue, result) VALUES (?, ?, ?, ?, ?, ?)"
_SELECT: Final = "SELECT at, who, action, vhost, queue, result FROM entries ORDER BY id DESC LIMIT ?"
_COLUMNS: Final = ("at", "who", "action", "vhost", "queue", "result")

T = TypeVar("T")
_lock: Final = threading.Lock()
"""Held while the file is used, by all logs of this process: closing it would release the locks of another one."""


def default_file() -> Path:
    """Return the log's file: in the folder of `rabbitry up`, or in the user's data folder."""
    return Path(os.environ.get(RECORDS_FOLDER) or platformdirs.user_data_path("rabbitry")) / "audit.sqlite3"


class Audit:
    """The log. The file is made when it is first used.

    Args:
        file: Its SQLite file.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self.router: APIRouter = APIRouter(route_class=route_class(), tags=["audit"])
        self.router.add_api_route("/entries", self.show, responses=answers(list[Entry]))

    async def begin(self, who: str, action: str, vhost: str, queue: str) -> int:
        """Write that a change begins. Return the entry's number. Raises RecordsError."""

        def write(connection: sqlite3.Connection) -> int:
            values = (time.time(), who, action, vhost, queue, "begun; its end is not known")
            number = connection.execute(_INSERT, values).lastrowid
            connection.execute("DELETE FROM entries WHERE id <= ?", ((number or 0) - MOST_KEPT,))
            return number or 0

        return await asyncio.to_thread(self._do, write)

    async def end(self, number: int, result: str = DONE) -> None:
        """Write the result of a change. Raises RecordsError."""

        def write(connection: sqlite3.Connection) -> None:
            connection.execute("UPDATE entries SET result = ? WHERE id = ?", (result[:_LONGEST], number))

        await asyncio.to_thread(self._do, write)

    async def logged(self, who: str, action: str, vhost: str, queue: str, change: Coroutine[None, None, T]) -> T:
        """Make a change that is logged before and after, and return its result. It is not made if it can't be logged.

        Args:
            who: The user, see `User.who`.
            action: The action, in a few words.
            vhost: The virtual host.
            queue: The queue, or another thing that is changed.
            change: Makes the change.
        """
        with closing(change):
            async with self.entry(who, action, vhost, queue):
                return await change

    @asynccontextmanager
    async def entry(self, who: str, action: str, vhost: str, queue: str) -> AsyncIterator[None]:
        """Log the change that the block makes, before and after it. The arguments are those of `logged`."""
        number = await self.begin(who, action, vhost, queue)
        try:
            yield
        except RabbitryError as error:
            await self.end(number, str(error))
            raise
        await self.end(number)

    async def newest(self) -> list[dict[str, Any]]:
        """Return the newest entries, the last one first. Raises RecordsError."""

        def read(connection: sqlite3.Connection) -> list[dict[str, Any]]:
            found = connection.execute(_SELECT, (MOST_SHOWN,))
            return [dict(zip(_COLUMNS, row, strict=True)) for row in found]

        return await asyncio.to_thread(self._do, read)

    @needs(Role.VIEWER)
    async def show(self) -> Response:
        """Return the newest entries."""
        return json_response(await self.newest())

    def _do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do work in a transaction of its own, in a thread."""
        try:
            with _lock:
                self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                # Only this user may read it. No connection of this process is open, whose locks closing would release.
                os.close(os.open(self._file, os.O_RDWR | os.O_CREAT, 0o600))
                with closing(sqlite3.connect(self._file)) as connection, connection:
                    connection.execute(_TABLE)
                    return work(connection)
        except (OSError, sqlite3.Error) as error:
            raise RecordsError(f"the audit log {self._file} can't be used: {error}{remedy(error)}") from error
