"""Shuts a submission in as well as a machine without bubblewrap can; for submissions that are trusted."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Final

import psutil

from rabbitry.apps.grading.exceptions import SandboxFailed, SandboxUnavailable
from rabbitry.apps.grading.marking import _load_filter
from rabbitry.apps.grading.marking._confine import (
    LAUNCH,
    MAX_FILES,
    PATIENCE,
    Confinement,
    Running,
    as_user,
    limited,
    new_uid,
    run_tool,
    start_process,
)
from rabbitry.apps.grading.marking._seccomp import seccomp_filter
from rabbitry.apps.grading.marking._tools import FOLDER
from rabbitry.apps.grading.marking.scheme import Limits

_OPEN_TO_ALL: Final = ("/tmp", "/var/tmp", "/dev/shm", "/run/lock")  # noqa: S108  # what others leave is not touched
_DISK_PATIENCE: Final = 300.0  # for removing as many files as a part may have from a slow disk


class Weak(Confinement):
    """A user of its own if we are root, other namespaces if the kernel lets us, and the limits.

    The submission sees this machine's files as any user does, and as this user's own if we are
    not root.
    """

    def __init__(self, *, own_user: bool = os.geteuid() == 0) -> None:
        self._own_user = own_user
        try:
            self._filter = seccomp_filter()
        except SandboxUnavailable:  # the numbers of this machine's calls are not known: it goes without
            self._filter = b""

    def inside(self, folder: Path) -> str:
        return str(folder)

    def for_own_programs(self) -> Confinement:
        return Weak(own_user=False)

    def start(self, folder: Path, argv: Sequence[str], limits: Limits, fds: Sequence[int]) -> Running:
        work = folder / "work"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(mode=0o700)
        uid = None
        if self._own_user:
            uid = new_uid()
            os.chown(work, uid, uid)
            folder.chmod(0o711)  # its name can't be guessed
        command = [*(as_user(uid) if uid is not None else []), "sh", "-c", LAUNCH, "sh", str(folder)]
        command += limited(argv, limits)
        theirs, ours = os.pipe()
        try:
            with open(ours, "wb") as filter_:
                filter_.write(self._filter)  # a pipe holds it
            if self._filter:
                command[:0] = [sys.executable, "-I", "-B", _load_filter.__file__, str(theirs)]
            tools = str(folder / "part" / FOLDER)
            process = start_process([*namespaces(), *command], home=str(work), tools=tools, fds=(theirs, *fds))
        finally:
            os.close(theirs)
        return _InGroup(process, work, uid)


@lru_cache(1)
def namespaces() -> list[str]:
    """Return the start of a command that gives it its own network and processes, if the kernel lets us."""
    argv = ["unshare", "--net", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if os.geteuid() != 0:
        argv[1:1] = ["--user", "--map-current-user"]
    argv.append("--")
    return argv if run_tool([*argv, "true"]) is None else []


class _InGroup(Running):
    def __init__(self, process: subprocess.Popen[bytes], work: Path, uid: int | None) -> None:
        super().__init__(process)
        self._work = work
        self._uid = uid

    def end(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE)
        if self._uid is not None:
            self._kill_all_of(self._uid)
        places = [str(self._work), *(entry.path for entry in self._elsewhere())]
        # These take folders that can't be entered, and those nested deeper than a name can say.
        for argv in (["chmod", "-R", "u+rwX", "--", *places], ["rm", "-rf", "--", *places]):
            if (why := run_tool(argv, _DISK_PATIENCE)) is not None:
                raise SandboxFailed(f"what a submission wrote can't be removed: {why}")

    def _kill_all_of(self, uid: int) -> None:
        deadline = time.monotonic() + PATIENCE
        while left := [p for p in psutil.process_iter() if _is_of(p, uid)]:
            if time.monotonic() > deadline:
                raise SandboxFailed(f"processes of a submission do not die: {[p.pid for p in left][:10]}")
            # One system call to all of that user, or a process that forks would always be ahead.
            run_tool([*as_user(uid), "kill", "-KILL", "--", "-1"])

    def usage(self) -> tuple[int, int]:
        size, files = 0, 0
        folders = [str(self._work)]
        for entry in self._elsewhere():
            files += 1
            with suppress(OSError):
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                size += entry.stat(follow_symlinks=False).st_blocks * 512
        while folders and files <= MAX_FILES:
            try:
                entries = list(os.scandir(folders.pop()))
            except OSError as error:  # gone in the meantime, or nested deeper than a name can say
                files += MAX_FILES + 1 if error.errno == errno.ENAMETOOLONG else 0
                continue
            files += len(entries)
            for entry in entries:
                with suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    size += entry.stat(follow_symlinks=False).st_blocks * 512
        return size, files

    def _elsewhere(self) -> Iterator[os.DirEntry[str]]:
        """Return what is the submission's in folders that every user may write to; known by a user of its own."""
        if self._uid is None:
            return
        for place in _OPEN_TO_ALL:
            with suppress(FileNotFoundError), os.scandir(place) as entries:
                for entry in entries:
                    with suppress(OSError):  # gone in the meantime
                        if entry.stat(follow_symlinks=False).st_uid == self._uid:
                            yield entry


def _is_of(process: psutil.Process, uid: int) -> bool:
    try:
        return process.uids().real == uid and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
