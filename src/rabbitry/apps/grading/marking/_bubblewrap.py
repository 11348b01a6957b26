"""Confines a submission in bubblewrap's namespaces, which hold even hostile code."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from functools import lru_cache
from io import FileIO
from pathlib import Path
from typing import Final

from rabbitry.apps.grading.exceptions import SandboxFailed, SandboxUnavailable
from rabbitry.apps.grading.marking._confine import (
    LAUNCH,
    PATIENCE,
    Confinement,
    Running,
    as_user,
    interpreter,
    limited,
    new_uid,
    run_tool,
    start_process,
)
from rabbitry.apps.grading.marking._memory import Memory
from rabbitry.apps.grading.marking._seccomp import seccomp_filter
from rabbitry.apps.grading.marking._tools import FOLDER
from rabbitry.apps.grading.marking.scheme import Limits

_SYSTEM: Final = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
# The files of /etc that programs need to start; some languages keep settings nowhere else.
_ETC: Final = (
    "alternatives", "ld.so.cache", "localtime", "protocols", "services", "java-*", "ssl/certs/java", "perl", "R",
    "php", "mono", "ghc*", "fpc*.cfg", "octave.conf",
)  # fmt: skip
_WRITABLE: Final = ("/tmp", "/dev/shm")  # noqa: S108  # file systems in memory, of the sandbox's own
_HOME: Final = "/tmp/work"  # noqa: S108  # in the sandbox's own /tmp
_HOST: Final = "sandbox"
_LISTENING: Final = b"0A"  # the state in which queues count connections, not bytes
_NOT_CONFINED: Final = (
    "submissions can't be confined on this machine: {why}. Install bubblewrap (Debian: apt-get install "
    "bubblewrap) and allow it namespaces (sysctl kernel.unprivileged_userns_clone, user.max_user_namespaces and "
    "kernel.apparmor_restrict_unprivileged_userns; in a container, its seccomp profile), or allow the weak sandbox for "
    "submissions that you trust"
)


@lru_cache(1)  # errors are not cached
def bubblewrap() -> Confinement:
    """Return bubblewrap, tested once. Raises SandboxUnavailable, which names what to install or to allow."""
    tool = shutil.which("bwrap")
    if tool is None:
        raise SandboxUnavailable(_NOT_CONFINED.format(why="bubblewrap (bwrap) is not installed"))
    found = Bubblewrap(tool)
    why = found.try_out()
    if why is not None:
        raise SandboxUnavailable(_NOT_CONFINED.format(why=why))
    return found


class Bubblewrap(Confinement):
    """Confinement in bubblewrap's own namespaces for files, processes, network and the rest.

    Run by root, bubblewrap needs no user namespace, and the command runs as a user that owns nothing. Run by another
    user, the command runs as that user in a user namespace.
    """

    def __init__(self, tool: str) -> None:
        self._tool = tool
        self._filter = seccomp_filter()

    def inside(self, folder: Path) -> str:
        return "/rabbitry"

    def try_out(self) -> str | None:
        """Return why it does not work on this machine, or None."""
        why = run_tool([*self._argv(Limits(), []), "--", *self._user(new_uid()), "true"])
        return None if why is None else f"bubblewrap fails: {why}"

    def start(self, folder: Path, argv: Sequence[str], limits: Limits, fds: Sequence[int]) -> Running:
        with ExitStack() as stack:
            info, info_theirs = _pipe(stack)
            go_theirs, go = _pipe(stack)
            filter_theirs, filter_ours = _pipe(stack)
            filter_ours.write(self._filter)  # it fits into the pipe's buffer
            uid = new_uid() if os.geteuid() == 0 else os.getuid()
            files, known = [], []
            for name, content in _known(uid).items():
                known_theirs, known_ours = _pipe(stack)
                known_ours.write(content)
                known_ours.close()
                files.append(known_theirs)
                known += ["--perms", "0644", "--file", str(known_theirs.fileno()), f"/etc/{name}"]
            theirs = {"--info-fd": info_theirs, "--block-fd": go_theirs, "--seccomp": filter_theirs}
            own = [word for option, end in theirs.items() for word in (option, str(end.fileno()))]
            shown = [("submission", "/rabbitry/submission"), ("part", "/rabbitry/part")]
            mounts = [word for name, place in shown for word in ("--ro-bind", str(folder / name), place)]
            command = [*self._user(uid), "sh", "-c", LAUNCH, "sh", "/rabbitry", *limited(argv, limits)]
            process = start_process(
                [*self._argv(limits, [*mounts, *known]), *own, "--", *command],
                home=_HOME,
                tools=f"/rabbitry/part/{FOLDER}",
                fds=(*(end.fileno() for end in (*theirs.values(), *files)), *fds),
            )
            try:
                info_theirs.close()
                filter_ours.close()
                pid = _read_pid(info)
                # The namespace's first process waits for `go`, so its number can't have been reused.
                return _InNamespace(process, pid, go)
            except BaseException as error:
                process.kill()  # its children die with it (--die-with-parent)
                _, said = process.communicate(timeout=PATIENCE)
                if isinstance(error, SandboxFailed):
                    raise SandboxFailed(f"{error}: {said.decode('utf-8', 'replace').strip()[:300]}") from error
                raise

    def _user(self, uid: int) -> list[str]:
        return as_user(uid) if os.geteuid() == 0 else []

    def _argv(self, limits: Limits, mounts: list[str]) -> list[str]:
        argv = [self._tool, "--die-with-parent", "--new-session"]
        argv += ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
        argv += ["--cap-drop", "ALL"]
        if os.geteuid() == 0:
            for needed in ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"):  # for setpriv, which drops them
                argv += ["--cap-add", needed]
        else:
            argv += ["--unshare-user"]
        argv += [
            "--hostname",
            _HOST,
            *_parents(Path("/rabbitry/part")),
            *_parents(Path("/etc/x")),
            "--proc",
            "/proc",
            "--dev",
            "/dev",
        ]
        for place in _WRITABLE:
            argv += ["--perms", "1777", "--size", str(limits.disk), "--tmpfs", place]
        for source in _readable():
            argv += [*_parents(source), "--ro-bind", str(source), str(source)]
        argv += _links()
        for name in _SYSTEM:
            path = Path("/", name)
            if path.is_symlink():
                argv += ["--symlink", str(path.readlink()), str(path)]
            elif path.exists():
                argv += ["--ro-bind", str(path), str(path)]
        for path in (path for pattern in _ETC for path in sorted(Path("/etc").glob(pattern))):
            argv += [*_parents(path), "--ro-bind-try", str(path), str(path)]
        # bubblewrap's own file systems have no size limit: make them read-only.
        return [*argv, *mounts, "--remount-ro", "/dev", "--remount-ro", "/"]


def _parents(path: Path) -> list[str]:
    """Make a path's parent folders; bubblewrap would make them readable for root alone."""
    return [word for folder in reversed(path.parents[:-1]) for word in ("--perms", "0755", "--dir", str(folder))]


def _known(uid: int) -> dict[str, bytes]:
    """Return the files of /etc that resolve users and hosts: the submission's user and this host."""
    gid = uid if os.geteuid() == 0 else os.getgid()
    users, groups = ["root:x:0:0:root:/root:/bin/sh"], ["root:x:0:"]
    if uid != 0:
        users.append(f"student:x:{uid}:{gid}:student:{_HOME}:/bin/sh")
        groups.append(f"student:x:{gid}:")
    return {
        "passwd": "\n".join([*users, ""]).encode(),
        "group": "\n".join([*groups, ""]).encode(),
        "hosts": f"127.0.0.1 localhost {_HOST}\n::1 localhost ip6-localhost ip6-loopback\n".encode(),
        "hostname": f"{_HOST}\n".encode(),
        "nsswitch.conf": b"passwd: files\ngroup: files\nhosts: files\nservices: files\nprotocols: files\n",
    }


def _readable() -> list[Path]:
    """Return the folders that a submission can read: the system's programs and this Python."""
    folders = [Path("/usr")]
    prefixes = (Path(sys.base_prefix), Path(sys.prefix))
    # The paths that pyvenv.cfg names, and their targets.
    for folder in (*prefixes, *(prefix.resolve() for prefix in prefixes)):
        if ".." not in folder.parts and not any(folder.is_relative_to(other) for other in folders):
            folders.append(folder)
    return folders


def _links() -> list[str]:
    """Recreate the links of this Python's paths that lie outside the folders that a submission can read."""
    shown, made = _readable(), dict[Path, Path]()
    for name in (interpreter().name, "python3", "python"):
        link = interpreter().with_name(name)
        while link.is_symlink():
            link = Path(os.path.normpath(link.parent / link.readlink()))
            if not any(link.is_relative_to(folder) for folder in shown):
                made[link] = link.resolve()
                break
    return [word for link, end in made.items() for word in (*_parents(link), "--symlink", str(end), str(link))]


def shown_to_submissions(path: Path) -> bool:
    """Return whether every submission can read a file or folder."""
    return any(path.resolve().is_relative_to(folder.resolve()) for folder in _readable())


def _pipe(stack: ExitStack) -> tuple[FileIO, FileIO]:
    reading, writing = os.pipe()
    return stack.enter_context(FileIO(reading, "rb")), stack.enter_context(FileIO(writing, "wb"))


def _read_pid(info: FileIO) -> int:
    """Read the number of the namespace's first process, which bubblewrap writes as JSON."""
    text = b""
    while b"}" not in text:
        if not select.select([info], [], [], PATIENCE)[0] or not (more := info.read(4096)):
            raise SandboxFailed("bubblewrap started no sandbox")
        text += more
    pid = json.loads(text)["child-pid"]
    if not isinstance(pid, int):
        raise SandboxFailed(f"bubblewrap named no process: {text[:200]!r}")
    return pid


@lru_cache(1)
def _socket_buffer() -> int:
    """Return the most bytes that a socket can hold if it can't enlarge its buffers (see _seccomp.py)."""
    try:
        return max(int(Path(f"/proc/sys/net/core/{end}_default").read_text()) for end in ("wmem", "rmem"))
    except OSError:  # global settings, which most containers do not show
        return 212_992


def _queued(connections: bytes) -> int:
    """Return the bytes waiting in TCP's connections: sl local remote state sent:received … (proc_net_tcp.txt)."""
    total = 0
    for line in connections.splitlines()[1:]:
        _, _, _, state, queues, *_ = line.split()
        if state != _LISTENING:
            sent, _, received = queues.partition(b":")
            total += int(sent, 16) + int(received, 16)
    return total


class _InNamespace(Running):
    def __init__(self, process: subprocess.Popen[bytes], pid: int, go: FileIO) -> None:
        super().__init__(process)
        self._first = os.pidfd_open(pid)
        self._root = f"/proc/{pid}/root"
        self._net = Path(f"/proc/{pid}/net")
        go.write(b"x")

    def end(self) -> None:
        # Ending the first process of a namespace ends all others, and it disappears only after them.
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._first, signal.SIGKILL)
        gone, _, _ = select.select([self._first], [], [], PATIENCE)
        os.close(self._first)
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(PATIENCE)
        if not gone:
            raise SandboxFailed(f"processes of a submission do not die, below process {self.process.pid}")

    def memory(self, bound: int, most_mappings: int) -> Memory:
        # Data waiting in sockets is the kernel's memory and belongs to no process.
        buffers = self._buffers()
        found = super().memory(max(0, bound - buffers), most_mappings)
        return found._replace(bytes=found.bytes + buffers)

    def _buffers(self) -> int:
        try:
            lines = (self._net / "protocols").read_text(encoding="ascii").splitlines()[1:]
            sockets = {name: int(number) for name, _, number, *_ in map(str.split, lines)}
            buffers = sum(sockets.values()) * _socket_buffer()
            # The kernel lets TCP buffers grow to megabytes. Reading these files takes some milliseconds.
            return buffers + sum(
                _queued((self._net / file).read_bytes())
                for name, file in (("TCP", "tcp"), ("TCPv6", "tcp6"))
                if sockets.get(name)
            )
        except OSError:  # the process has ended
            return 0

    def usage(self) -> tuple[int, int]:
        size, files = 0, 0
        for place in _WRITABLE:
            found = self._look_at(place)
            if found is not None:
                size = max(size, (found.f_blocks - found.f_bfree) * found.f_frsize)
                files += found.f_files - found.f_ffree
        return size, files

    def _look_at(self, place: str) -> os.statvfs_result | None:
        """Return the use of a file system of the sandbox; None before it is mounted and after it is gone."""
        try:
            folder = os.open(f"{self._root}{place}", os.O_PATH)  # opened once: the root may change between two calls
        except OSError:
            return None
        try:
            # While this is still the machine's own file system, the root has not been changed yet.
            is_own = Path(place).exists() and os.fstat(folder).st_dev == os.stat(place).st_dev
            return None if is_own else os.fstatvfs(folder)
        except OSError:
            return None
        finally:
            os.close(folder)
