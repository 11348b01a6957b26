"""The files of pages: scripts, style sheets and pictures, at addresses that a browser requests once.

Such an address ends with a version, which the file's content gives. Modules import each other without versions: the
import map of each page adds these (HTML Standard, 8.1.6.2), so that a browser requests no module again that it has.
"""

from __future__ import annotations

import asyncio
import hashlib
import stat
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from starlette.datastructures import MutableHeaders
from starlette.middleware.gzip import GZipMiddleware
from starlette.staticfiles import StaticFiles

if TYPE_CHECKING:
    from pathlib import Path

    from starlette.types import Message, Receive, Scope, Send

_KEPT: Final = "private, max-age=31536000, immutable"
_DIGITS: Final = 16


class Files:
    """The files of a folder, as an ASGI application. A request with a file's version may be kept for good."""

    def __init__(self, folder: Path) -> None:
        self._files = StaticFiles(directory=folder)
        # Scripts shrink to a third. Only files are compressed: what a response that holds a secret shrinks to could
        # reveal the secret (BREACH).
        self._compressed = GZipMiddleware(self._files)
        self._versions: dict[str, tuple[int, int, str]] = {}

    def version(self, name: str) -> str | None:
        """Return the version of a file's content; None if it can't be read. Reads the disk.

        Args:
            name: The file, relative to the folder.
        """
        try:
            path, found = self._files.lookup_path(name)
            if found is None or not stat.S_ISREG(found.st_mode):
                return None
            time, size, version = self._versions.get(path, (0, 0, ""))
            if (time, size) != (found.st_mtime_ns, found.st_size) or not version:
                with open(path, "rb") as file:
                    version = hashlib.file_digest(file, "sha256").hexdigest()[:_DIGITS]
                self._versions[path] = (found.st_mtime_ns, found.st_size, version)
        except (OSError, ValueError):  # who requests the file gets the error
            return None
        return version

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a file. Cancelling drops the response."""
        asked: bytes = scope["query_string"]
        if asked.startswith(b"v="):
            version = await asyncio.to_thread(self.version, self._files.get_path(scope))
            # A page made before an upgrade names other versions: what it gets instead is not kept under these.
            if version is not None and asked == f"v={version}".encode():
                send = _kept(send)
        await self._compressed(scope, receive, send)


def address(folders: Mapping[str, Files], place: str) -> str:
    """Return the address of a file with its version, relative to the dashboard's root. Reads the disk.

    Args:
        folders: The files by the place of their folder, which ends with `static/`.
        place: The file's place. It is the address of what is no file, such as a module that the dashboard makes.
    """
    where, static, name = place.partition("static/")
    files = folders.get(where + static)
    version = None if files is None else files.version(name)
    return place if version is None else f"{place}?v={version}"


def _kept(send: Send) -> Send:
    async def wrapped(message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] in (200, 304):
            MutableHeaders(scope=message)["Cache-Control"] = _KEPT
        await send(message)

    return wrapped
