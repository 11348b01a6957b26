"""A machine's namespaces, and its shell: `python -m tests.docs.namespaces SOCKET SCRIPT`, for the launcher.

The process that the launcher forks leaves the system's namespaces, and in the new ones forks a launcher of their own,
which has all imports done too. It listens on SOCKET for what `rabbitry` in the script is to be (`command.py`).
"""

import ctypes
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Final, NoReturn

from tests.support import launcher

# <sched.h>, <sys/mount.h>, <sys/prctl.h>
_NEW_MOUNTS: Final = 0x00020000
_NEW_USERS: Final = 0x10000000
_NEW_PIDS: Final = 0x20000000
_NEW_NETWORK: Final = 0x40000000
_MOUNT_PRIVATE: Final = 0x4000 | 0x40000
_PARENT_DEATH_SIGNAL: Final = 1

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def main() -> NoReturn:
    """Run the script; all processes of its namespaces end with it."""
    path, script = sys.argv[1:]
    user, group = os.geteuid(), os.getegid()
    # Only root may have namespaces without one of users, in which it is root.
    _check(_libc.unshare(_NEW_NETWORK | _NEW_MOUNTS | _NEW_PIDS | (_NEW_USERS if user else 0)))
    if user:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    if first := os.fork():  # the first process of the namespace of processes: all others end with it
        os._exit(os.waitstatus_to_exitcode(os.waitpid(first, 0)[1]) & 0xFF)
    _check(_libc.prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0))
    _check(_libc.mount(b"none", b"/", None, _MOUNT_PRIVATE, None))
    _check(_libc.mount(b"proc", b"/proc", b"proc", 0, None))
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(path)
        listening.listen()
        if os.fork() == 0:
            launcher.serve(listening)
    shell = os.posix_spawnp("bash", ["bash", "-c", script], os.environ)
    while True:
        ended, status = os.wait()  # processes whose parent has ended are this one's too
        if ended == shell:
            os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


if __name__ == "__main__":
    main()
