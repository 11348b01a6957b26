"""The base of all sandboxes for submissions: limits, user, and resource usage."""

from __future__ import annotations

import random
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import IO, Final

import psutil

from rabbitry._words import reason
from rabbitry.apps.grading.marking._memory import Memory, MemoryWatch
from rabbitry.apps.grading.marking.scheme import Limits

MAX_FILES: Final = 20_000
"""Files and folders that a part may have at the same time."""

PATIENCE: Final = 20.0  # seconds for kernel operations that are immediate unless the machine is overloaded

# Ids outside those of accounts and of systemd's container ranges.
_FIRST_UID: Final = 1_900_000_000
_UIDS: Final = 100_000_000

# $1 is the folder of the submission and of the part; the rest is the command. The copy does not count
# against the limits.
LAUNCH: Final = (
    'mkdir -p "$HOME" && cp -R "$1/submission/." "$HOME" && cd "$HOME" && stdin="$1/part/stdin" && '
    'shift && unset OLDPWD && exec "$@" <"$stdin"'
)


class Running(ABC):
    """A confined command. `end` must always be called."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        if process.stdout is None or process.stderr is None:
            raise ValueError("started without pipes")
        self.process = process
        self.stdout: IO[bytes] = process.stdout
        self.stderr: IO[bytes] = process.stderr
        self._watch = MemoryWatch()

    @abstractmethod
    def end(self) -> None:
        """Kill all its processes and wait until they are gone. Raises SandboxFailed if they stay."""

    @abstractmethod
    def usage(self) -> tuple[int, int]:
        """Return the bytes and the number of its files."""

    def memory(self, bound: int, most_mappings: int) -> Memory:
        """Return the memory of all its processes together; it is exact if more than `bound`."""
        pids: list[int] = []
        with suppress(psutil.NoSuchProcess):
            pids = [process.pid for process in psutil.Process(self.process.pid).children(recursive=True)]
        return self._watch.look(pids, bound, most_mappings)


class Confinement(ABC):
    """A way to confine a command."""

    @abstractmethod
    def inside(self, folder: Path) -> str:
        """Return the path of `folder` inside the sandbox."""

    def for_own_programs(self) -> Confinement:
        """Return the confinement for Rabbitry's own programs, which other users may not be able to read."""
        return self

    @abstractmethod
    def start(self, folder: Path, argv: Sequence[str], limits: Limits, fds: Sequence[int]) -> Running:
        """Start a command in a copy of `folder`/submission, with pipes for stdout and stderr.

        `folder`/part/stdin is its stdin; `fds` stay open in it. Raises SandboxFailed.
        """


def limited(argv: Sequence[str], limits: Limits) -> list[str]:
    """Put a command under the kernel's limits, and first in line for the kernel's out-of-memory killer."""
    return [
        "choom", "-n", "1000", "--",
        "prlimit", f"--cpu={limits.cpu_seconds}:{limits.cpu_seconds + 1}", f"--data={limits.memory}",
        f"--nproc={limits.processes}", f"--fsize={limits.file_size}", "--nofile=256", "--core=0", "--msgqueue=0",
        "--memlock=65536", "--sigpending=1024", "--", *argv,
    ]  # fmt: skip


def as_user(uid: int) -> list[str]:
    """Return the start of a command line that runs a command as another user, without any capability."""
    ids = [f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
    return ["setpriv", *ids, "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs", "--"]


def new_uid() -> int:
    """Return a user id that owns nothing on this machine."""
    return _FIRST_UID + random.randrange(_UIDS)  # noqa: S311  # it only has to differ between runs


@lru_cache(1)
def interpreter() -> Path:
    """Return the path of this Python with every folder in it resolved.

    The file name is not resolved: a virtual environment's Python is a link that must be started by that name.
    """
    started = Path(sys.executable)
    return started.parent.resolve() / started.name


def start_process(argv: list[str], *, home: str, tools: str, fds: Sequence[int]) -> subprocess.Popen[bytes]:
    """Start a command in a session of its own, with pipes for its output and a minimal environment.

    Programs are searched in the folder `tools` before the system's.
    """
    return subprocess.Popen(  # noqa: S603 - this is to run a submission, by the scheme's commands
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        env={
            "PATH": f"{interpreter().parent}:{tools}:/usr/local/bin:/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "HOME": home,
        },
        start_new_session=True,
        pass_fds=tuple(fds),
    )


def run_tool(argv: list[str], patience: float = PATIENCE) -> str | None:
    """Run a system tool; return its error text, or None if it succeeds."""
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    try:
        done = subprocess.run(  # noqa: S603  # no argument comes from a submission
            argv, capture_output=True, env=environment, timeout=patience, check=False, text=True
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return reason(error)
    return None if done.returncode == 0 else done.stderr.strip()[:300] or f"exit code {done.returncode}"
