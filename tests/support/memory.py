"""A folder in memory for the files of a test run.

Servers, stores and databases write, sync and delete files in most tests, and a file system on a disk takes CPU for
each: RabbitMQ takes a third less without one. No test cuts the power, so none needs a disk.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import psutil

_SHARED: Final = Path("/dev/shm")  # noqa: S108 - the file system in memory that Linux has
_NAME: Final = "rabbitry-run-"
_ENOUGH: Final = 6 << 30
"""Bytes that must be free: all tests together write less than a tenth of it."""


def use(at_the_end: Callable[[Callable[[], None]], None]) -> None:
    """Make a folder in memory the one of temporary files, here and in all processes that are started from now on.

    Nothing is changed where TMPDIR names another one, or where memory is short. at_the_end: registers a function to be
    called at the end of the run, which deletes the folder.
    """
    if "TMPDIR" in os.environ or not _has_room():
        return
    stack = contextlib.ExitStack()
    with _locked(_SHARED, wait=True):  # no other run takes the new folder for one that was left
        for left in _SHARED.glob(f"{_NAME}*"):
            with contextlib.suppress(OSError), _locked(left):  # a run that was killed has deleted nothing
                shutil.rmtree(left, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix=_NAME, dir=_SHARED))
        stack.enter_context(_locked(folder))
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    at_the_end(stack.close)
    folder.chmod(0o1777)  # PostgreSQL runs as another user
    os.environ["TMPDIR"] = str(folder)
    tempfile.tempdir = None  # it may have been looked up already


@contextlib.contextmanager
def _locked(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Lock a folder, as a run has locked its own while it lives. Raises BlockingIOError if it is locked."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(descriptor)


def _has_room() -> bool:
    if not _SHARED.is_dir():
        return False
    found = os.statvfs(_SHARED)
    free = min(found.f_bavail * found.f_frsize, psutil.virtual_memory().available)
    return free >= _ENOUGH and not found.f_flag & os.ST_NOEXEC
