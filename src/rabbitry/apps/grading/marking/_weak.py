"""Confines trusted submissions as well as possible on a machine without bubblewrap."""

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

_OPEN_TO_ALL: Final = ("/tmp", "/var/tmp", "/dev/shm", "/run/lock")  # noqa: S108  # other users' files stay
_DISK_PATIENCE: Final = 300.0  # to remove the most files that a part may have from a slow disk


class Weak(Confinement):
    """Confinement by a separate user if we are root, by namespaces if the kernel allows them, and by limits.

    The submission can read the same files of this machine as any user; if we are not root, also this user's own.
    """

    def __init__(self, *, own_user: bool = os.geteuid() == 0) -> None:
        self._own_user = own_user
        try:
            self._filter = seccomp_filter()
        except SandboxUnavailable:  # unknown system call numbers: run without the filter
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
                filter_.write(self._filter)  # it fits into the pipe's buffer
            if self._filter:
                command[:0] = [sys.executable, "-I", "-B", _load_filter.__file__, str(theirs)]
            tools = str(folder / "part" / FOLDER)
            process = start_process([*namespaces(), *command], home=str(work), tools=tools, fds=(theirs, *fds))
        finally:
            os.close(theirs)
        return _InGroup(process, work, uid)


@lru_cache(1)
def namespaces() -> list[str]:
    """Return the start of a command line for its own network and processes, if the kernel allows it."""
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
        # These tools also remove folders without permissions, and those nested deeper than a path can be long.
        for argv in (["chmod", "-R", "u+rwX", "--", *places], ["rm", "-rf", "--", *places]):
            if (why := run_tool(argv, _DISK_PATIENCE)) is not None:
                raise SandboxFailed(f"the files of a submission can't be removed: {why}")

    def _kill_all_of(self, uid: int) -> None:
        deadline = time.monotonic() + PATIENCE
        while left := [p for p in psutil.process_iter() if _is_of(p, uid)]:
            if time.monotonic() > deadline:
                raise SandboxFailed(f"processes of a submission do not die: {[p.pid for p in left][:10]}")
            # One system call signals all processes of that user; a process that forks could outrun single signals.
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
            except OSError as error:  # gone in the meantime, or nested deeper than a path can be long
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
        """Return the submission's files in world-writable folders, recognized by the separate user."""
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
