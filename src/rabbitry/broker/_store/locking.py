"""The lock of a data folder, held by one broker at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from rabbitry.broker._store.room import is_no_room
from rabbitry.broker.exceptions import StoreFailed
from rabbitry.runtime.files import BINARY, lock_file


def lock_folder(folder: Path, address: str) -> FileIO:
    """Lock a data folder, created if missing. Return the open file, which holds the lock until its close.

    Args:
        folder: The data folder.
        address: The broker's URL, named in the error of a second broker on the folder.

    Raises:
        StoreFailed: Another broker holds the lock, or the folder can't be used.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | BINARY, 0o666)
        lock = open(descriptor, "r+b", buffering=0)  # noqa: SIM115 # the caller closes it
    except OSError as error:
        why = "it is not a folder" if isinstance(error, FileExistsError) else error.strerror
        raise StoreFailed(f"the data folder {folder} can't be used: {why}") from error
    _acquire(
        lock,
        lambda process, url: (
            f"another broker uses the data folder {folder} (process {process}): give another one "
            f"(--port 0 --data DIR), or use that broker (--broker {url})"
        ),
    )
    try:
        lock.seek(0)
        written = lock.write(f"{os.getpid()} {address}\n".encode())  # in place: it needs no room
        lock.truncate(written)
    except OSError as error:
        if not is_no_room(error):  # otherwise the file lacks the process that holds the folder
            lock.close()
            raise StoreFailed(f"the data folder {folder} can't be written to: {error.strerror}") from error
    return lock


@contextmanager
def lock_stopped(folder: Path) -> Iterator[None]:
    """Lock a stopped broker's data folder without changing it. A folder without a lock file is not locked.

    Raises:
        StoreFailed: A broker holds the lock, or it can't be read.
    """
    try:
        lock = open(folder / "lock", "rb", buffering=0)  # noqa: SIM115 # closed below
    except FileNotFoundError:
        yield
        return
    except OSError as error:
        raise StoreFailed(f"the data folder {folder} can't be read: {error.strerror}") from error
    with lock:
        _acquire(lock, lambda process, _: f"a broker uses the data folder {folder} (process {process}): stop it first")
        yield


def _acquire(lock: FileIO, refusal: Callable[[str, str], str]) -> None:
    """Lock an open lock file; close it and raise StoreFailed if another process holds the lock.

    refusal: returns the error text, given the contents of the lock file: the holder's process and its broker's URL.
    """
    try:
        lock_file(lock.fileno(), waits=False)
    except OSError as error:
        lock.seek(0)
        process, _, url = lock.read(200).decode(errors="replace").strip().partition(" ")
        lock.close()
        raise StoreFailed(refusal(process or "unknown", url or "URL")) from error
