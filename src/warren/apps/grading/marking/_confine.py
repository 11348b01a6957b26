"""What a submission is shut into: bubblewrap's namespaces, or where that is allowed, something weaker."""

import errno
import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from functools import lru_cache
from io import FileIO
from pathlib import Path
from typing import Final

import psutil

from warren.apps.grading.marking._seccomp import seccomp_filter
from warren.apps.grading.marking.scheme import Limits
from warren.exceptions import SandboxFailed, SandboxUnavailable

MAX_FILES: Final = 20_000
"""Files and folders that a part may have at a time."""

_PATIENCE: Final = 20.0  # seconds for what the kernel does at once on a machine that is not overloaded
_DISK_PATIENCE: Final = 300.0  # for removing as many files as a part may have from a slow disk
_SYSTEM: Final = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
_ETC: Final = ("alternatives", "ld.so.cache", "localtime")
# Ids that no account and no container range of systemd's has.
_FIRST_UID: Final = 1_900_000_000
_UIDS: Final = 100_000_000

# $1 is the folder of the submission and of the part; the rest is the command. Copying does not count
# against the limits.
_LAUNCH: Final = (
    'mkdir -p "$HOME" && cp -R "$1/submission/." "$HOME" && cd "$HOME" && stdin="$1/part/stdin" && '
    'shift && unset OLDPWD && exec "$@" <"$stdin"'
)
_NOT_CONFINED: Final = (
    "submissions can't be held in bounds on this machine: {why}. Install bubblewrap (Debian: apt-get install "
    "bubblewrap) and let it make namespaces (sysctl kernel.unprivileged_userns_clone, user.max_user_namespaces and "
    "kernel.apparmor_restrict_unprivileged_userns; in a container, its seccomp profile), or allow weak bounds for "
    "submissions that you trust"
)


class Running(ABC):
    """A command that runs in bounds. `end` must be called, whatever happens."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        if process.stdout is None or process.stderr is None:
            raise ValueError("started without pipes")
        self.process = process
        self.stdout = process.stdout
        self.stderr = process.stderr

    @abstractmethod
    def end(self) -> None:
        """Kill every process of it and wait until all are gone. Raises SandboxFailed if they stay."""

    @abstractmethod
    def usage(self) -> tuple[int, int]:
        """Return the bytes and the number of files that it has."""

    def memory(self, bound: int) -> int:
        """Return the bytes of memory of all its processes; pages that they share count once where it matters."""
        resident, exact = 0, 0
        processes = []
        with suppress(psutil.NoSuchProcess):
            processes = psutil.Process(self.process.pid).children(recursive=True)
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                resident += process.memory_info().rss
        if resident <= bound:
            return resident
        for process in processes:
            try:
                exact += process.memory_full_info().pss
            except psutil.NoSuchProcess:
                continue
            except psutil.AccessDenied:
                return resident
        return exact


class Confinement(ABC):
    """A way to shut a command in."""

    @abstractmethod
    def inside(self, folder: Path) -> str:
        """Return how what runs sees `folder`."""

    @abstractmethod
    def start(self, folder: Path, argv: Sequence[str], limits: Limits, fds: Sequence[int]) -> Running:
        """Start a command, whose stdout and stderr are pipes, in a copy of `folder`/submission.

        `folder`/part/stdin is its stdin; `fds` stay open in it. Raises SandboxFailed.
        """


def confinement(*, allow_weak: bool) -> Confinement:
    """Return the strongest way that works here; it is tried once.

    Raises SandboxUnavailable where bubblewrap does not work and `allow_weak` is not set.
    """
    try:
        return _bubblewrap()
    except SandboxUnavailable:
        if not allow_weak:
            raise
    return _Weak()


@lru_cache(1)  # an error is not kept
def _bubblewrap() -> Confinement:
    tool = shutil.which("bwrap")
    if tool is None:
        raise SandboxUnavailable(_NOT_CONFINED.format(why="bubblewrap (bwrap) is not installed"))
    found = _Bubblewrap(tool)
    why = found.try_out()
    if why is not None:
        raise SandboxUnavailable(_NOT_CONFINED.format(why=why))
    return found


def _limited(argv: Sequence[str], limits: Limits) -> list[str]:
    """Put a command under the kernel's limits; the first victim where memory runs out all the same."""
    return [
        "choom", "-n", "1000", "--",
        "prlimit", f"--cpu={limits.cpu_seconds}:{limits.cpu_seconds + 1}", f"--data={limits.memory}",
        f"--nproc={limits.processes}", f"--fsize={limits.file_size}", "--nofile=256", "--core=0", "--msgqueue=0",
        "--memlock=65536", "--", *argv,
    ]  # fmt: skip


def _as_user(uid: int) -> list[str]:
    ids = [f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]
    return ["setpriv", *ids, "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs", "--"]


def _new_uid() -> int:
    return _FIRST_UID + random.randrange(_UIDS)  # noqa: S311  # that two runs differ is enough


class _Bubblewrap(Confinement):
    """Namespaces of its own for files, processes, network and the rest, made by bubblewrap.

    As root bubblewrap needs no user namespace, and the command runs as a user that nothing belongs
    to. As another user, it runs as that user in a user namespace.
    """

    def __init__(self, tool: str) -> None:
        self._tool = tool
        self._filter = seccomp_filter()

    def inside(self, folder: Path) -> str:
        return "/warren"

    def try_out(self) -> str | None:
        """Return why it does not work here, or None."""
        why = _run([*self._argv(Limits(), []), "--", *self._user(), "true"])
        return None if why is None else f"bubblewrap fails: {why}"

    def start(self, folder: Path, argv: Sequence[str], limits: Limits, fds: Sequence[int]) -> Running:
        with ExitStack() as stack:
            info, info_theirs = _pipe(stack)
            go_theirs, go = _pipe(stack)
            filter_theirs, filter_ours = _pipe(stack)
            filter_ours.write(self._filter)  # a pipe holds it
            theirs = {"--info-fd": info_theirs, "--block-fd": go_theirs, "--seccomp": filter_theirs}
            own = [word for option, end in theirs.items() for word in (option, str(end.fileno()))]
            shown = [("submission", "/warren/submission"), ("part", "/warren/part")]
            mounts = [word for name, place in shown for word in ("--ro-bind", str(folder / name), place)]
            command = [*self._user(), "sh", "-c", _LAUNCH, "sh", "/warren", *_limited(argv, limits)]
            process = _start(
                [*self._argv(limits, mounts), *own, "--", *command],
                home="/tmp/work",  # noqa: S108  # in the sandbox's own /tmp
                fds=(*(end.fileno() for end in theirs.values()), *fds),
            )
            try:
                info_theirs.close()
                filter_ours.close()
                pid = _read_pid(info)
                # The namespace's first process waits for `go`, so the number is still its own.
                return _InNamespace(process, pid, go)
            except BaseException:
                process.kill()  # what it has started dies with it (--die-with-parent)
                process.communicate(timeout=_PATIENCE)
                raise

    def _user(self) -> list[str]:
        return _as_user(_new_uid()) if os.geteuid() == 0 else []

    def _argv(self, limits: Limits, mounts: list[str]) -> list[str]:
        argv = [self._tool, "--die-with-parent", "--new-session"]
        argv += ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
        argv += ["--cap-drop", "ALL"]
        if os.geteuid() == 0:
            for needed in ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"):  # setpriv's, which gives them up
                argv += ["--cap-add", needed]
        else:
            argv += ["--unshare-user"]
        argv += [
            "--hostname",
            "sandbox",
            *_parents(Path("/warren/part")),
            *_parents(Path("/etc/x")),
            "--proc",
            "/proc",
            "--dev",
            "/dev",
        ]
        for place in ("/dev/shm", "/tmp"):  # noqa: S108  # of the sandbox
            argv += ["--perms", "1777", "--size", str(limits.disk), "--tmpfs", place]
        for source in _readable():
            argv += [*_parents(source), "--ro-bind", str(source), str(source)]
        for name in _SYSTEM:
            path = Path("/", name)
            if path.is_symlink():
                argv += ["--symlink", str(path.readlink()), str(path)]
            elif path.exists():
                argv += ["--ro-bind", str(path), str(path)]
        for name in _ETC:
            argv += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
        # bubblewrap's own file systems have no bound: nothing may be written there.
        return [*argv, *mounts, "--remount-ro", "/dev", "--remount-ro", "/"]


def _parents(path: Path) -> list[str]:
    """Make the folders above one; bubblewrap would make them for root alone."""
    return [word for folder in reversed(path.parents[:-1]) for word in ("--perms", "0755", "--dir", str(folder))]


def _readable() -> list[Path]:
    """Return the folders that a submission sees: the system's programs and this Python."""
    folders = [Path("/usr")]
    prefixes = (Path(sys.base_prefix), Path(sys.prefix))
    for folder in (*prefixes, *(prefix.resolve() for prefix in prefixes)):
        if not any(folder.is_relative_to(other) for other in folders):
            folders.append(folder)
    return folders


def shown_to_submissions(path: Path) -> bool:
    """Return whether a file or folder lies where every submission can read."""
    return any(path.resolve().is_relative_to(folder.resolve()) for folder in _readable())


def _start(argv: list[str], *, home: str, fds: Sequence[int]) -> subprocess.Popen[bytes]:
    # S603: to run a submission is what this is for; what it is run with is the scheme's.
    return subprocess.Popen(  # noqa: S603
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        env={"PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": home},
        start_new_session=True,
        pass_fds=tuple(fds),
    )


def _run(argv: list[str], patience: float = _PATIENCE) -> str | None:
    """Run one of the system's tools; return what it says against it, or None when it succeeds."""
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    try:
        done = subprocess.run(  # noqa: S603  # no word of it comes from a submission
            argv, capture_output=True, env=environment, timeout=patience, check=False, text=True
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return None if done.returncode == 0 else done.stderr.strip()[:300] or f"exit code {done.returncode}"


def _pipe(stack: ExitStack) -> tuple[FileIO, FileIO]:
    reading, writing = os.pipe()
    return stack.enter_context(FileIO(reading, "rb")), stack.enter_context(FileIO(writing, "wb"))


def _read_pid(info: FileIO) -> int:
    """Read which process is the first of the namespace, which bubblewrap tells as JSON."""
    text = b""
    while b"}" not in text:
        if not select.select([info], [], [], _PATIENCE)[0] or not (more := info.read(4096)):
            raise SandboxFailed("bubblewrap started no sandbox; is the machine out of memory or processes?")
        text += more
    pid = json.loads(text)["child-pid"]
    if not isinstance(pid, int):
        raise SandboxFailed(f"bubblewrap told no process: {text[:200]!r}")
    return pid


class _InNamespace(Running):
    def __init__(self, process: subprocess.Popen[bytes], pid: int, go: FileIO) -> None:
        super().__init__(process)
        self._first = os.pidfd_open(pid)
        self._tmp = f"/proc/{pid}/root/tmp"
        go.write(b"x")

    def end(self) -> None:
        # The first process of a namespace takes all others with it, and is gone only after them.
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._first, signal.SIGKILL)
        gone, _, _ = select.select([self._first], [], [], _PATIENCE)
        os.close(self._first)
        try:
            self.process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(_PATIENCE)
        if not gone:
            raise SandboxFailed(f"processes of a submission do not die, below process {self.process.pid}")

    def usage(self) -> tuple[int, int]:
        try:
            if os.stat(self._tmp).st_dev == os.stat("/tmp").st_dev:  # noqa: S108
                return 0, 0  # it has not changed its root yet
            found = os.statvfs(self._tmp)
        except OSError:  # nor, or it has ended
            return 0, 0
        return (found.f_blocks - found.f_bfree) * found.f_frsize, found.f_files - found.f_ffree


class _Weak(Confinement):
    """A user of its own where we are root, other namespaces where the kernel lets us, and the limits.

    The submission sees this machine's files as any user does, and as this user's own where we are
    not root.
    """

    def inside(self, folder: Path) -> str:
        return str(folder)

    def start(self, folder: Path, argv: Sequence[str], limits: Limits, fds: Sequence[int]) -> Running:
        work = folder / "work"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(mode=0o700)
        uid = None
        if os.geteuid() == 0:
            uid = _new_uid()
            os.chown(work, uid, uid)
            folder.chmod(0o711)  # its name can't be guessed
        prefix = [*_namespaces(), *(_as_user(uid) if uid is not None else [])]
        command = ["sh", "-c", _LAUNCH, "sh", str(folder), *_limited(argv, limits)]
        process = _start([*prefix, *command], home=str(work), fds=fds)
        return _InGroup(process, work, uid)


@lru_cache(1)
def _namespaces() -> list[str]:
    """Return the start of a command that gives it its own network and processes, if the kernel lets us."""
    argv = ["unshare", "--net", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if os.geteuid() != 0:
        argv[1:1] = ["--user", "--map-current-user"]
    argv.append("--")
    return argv if _run([*argv, "true"]) is None else []


class _InGroup(Running):
    def __init__(self, process: subprocess.Popen[bytes], work: Path, uid: int | None) -> None:
        super().__init__(process)
        self._work = work
        self._uid = uid

    def end(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(_PATIENCE)
        if self._uid is not None:
            self._kill_all_of(self._uid)
        # These take folders that can't be entered, and those nested deeper than a name can say.
        for argv in (["chmod", "-R", "u+rwX", str(self._work)], ["rm", "-rf", str(self._work)]):
            if (why := _run(argv, _DISK_PATIENCE)) is not None:
                raise SandboxFailed(f"what a submission wrote can't be removed: {why}")

    def _kill_all_of(self, uid: int) -> None:
        deadline = time.monotonic() + _PATIENCE
        while left := [p for p in psutil.process_iter() if _is_of(p, uid)]:
            if time.monotonic() > deadline:
                raise SandboxFailed(f"processes of a submission do not die: {[p.pid for p in left][:10]}")
            # One system call to all of that user, or a process that forks would always be ahead.
            _run([*_as_user(uid), "kill", "-KILL", "--", "-1"])

    def usage(self) -> tuple[int, int]:
        size, files = 0, 0
        folders = [str(self._work)]
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


def _is_of(process: psutil.Process, uid: int) -> bool:
    try:
        return process.uids().real == uid and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
