"""The system calls denied to a submission, as a filter for the kernel (seccomp, classic BPF).

Namespaces and permissions confine most things already. The filter denies memory that no limit counts (memfd, System
V shared memory, semaphores and queues, POSIX queues, keys, file watches, file attributes, pages kept by a pipe), new
user namespaces, in which a process could mount file systems of any size, and kernel interfaces that no homework
needs. Socket buffers keep their initial size, so that the number of sockets bounds their memory.
"""

from __future__ import annotations

import errno
import platform
import socket
import struct
from typing import Final

from rabbitry.apps.grading.exceptions import SandboxUnavailable

# linux/audit.h: the machine, and the numbers of its calls (asm/unistd.h).
_MACHINES: Final = {
    "x86_64": (
        0xC000003E,
        {"clone": 56, "socket": 41, "setsockopt": 54, "shmget": 29, "semget": 64, "msgget": 68, "mq_open": 240,
         "add_key": 248, "request_key": 249, "keyctl": 250, "unshare": 272, "vmsplice": 278, "perf_event_open": 298,
         "setns": 308, "memfd_create": 319, "bpf": 321, "userfaultfd": 323, "io_setup": 206, "inotify_init": 253,
         "inotify_init1": 294, "fanotify_init": 300, "setxattr": 188, "lsetxattr": 189, "fsetxattr": 190},
    ),
    "aarch64": (
        0xC00000B7,
        {"clone": 220, "socket": 198, "setsockopt": 208, "shmget": 194, "semget": 190, "msgget": 186, "mq_open": 180,
         "add_key": 217, "request_key": 218, "keyctl": 219, "unshare": 97, "vmsplice": 75, "perf_event_open": 241,
         "setns": 268, "memfd_create": 279, "bpf": 280, "userfaultfd": 282, "io_setup": 0, "inotify_init1": 26,
         "fanotify_init": 262, "setxattr": 5, "lsetxattr": 6, "fsetxattr": 7},
    ),
}  # fmt: skip
_EVERYWHERE: Final = {
    "io_uring_setup": 425, "landlock_create_ruleset": 444, "memfd_secret": 447, "setxattrat": 463,
}  # fmt: skip
# Errors that let programs fall back where "not permitted" would not: kernels and file systems without the feature
# answer with them.
_ERRORS: Final = {
    "io_setup": errno.ENOSYS,
    "inotify_init": errno.ENOSYS,
    "inotify_init1": errno.ENOSYS,
    "fanotify_init": errno.ENOSYS,
    "landlock_create_ruleset": errno.ENOSYS,
    "setxattr": errno.EOPNOTSUPP,
    "lsetxattr": errno.EOPNOTSUPP,
    "fsetxattr": errno.EOPNOTSUPP,
    "setxattrat": errno.EOPNOTSUPP,
}
_BY_ARGUMENT: Final = {"clone", "socket", "setsockopt"}  # the others are denied for all arguments
# The address families that a network namespace confines. Others (e.g. vsock, to the host of a virtual machine) bypass
# it, or are kernel code that no homework needs.
_FAMILIES: Final = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK)
# TCP, UDP and ICMP have smaller numbers. Others (MPTCP, SCTP, DCCP) have buffers that are not counted, and the kernel
# loads their modules for any user.
_MORE_PROTOCOLS: Final = 33
# The options that enlarge a socket's buffers up to the system limit, often megabytes, which count as no process's
# memory. The call reports success and does nothing: programs get by with less.
_BUFFERS: Final = (socket.SO_SNDBUF, socket.SO_RCVBUF, 32, 33)  # and SO_SNDBUFFORCE, SO_RCVBUFFORCE
_CLONE3: Final = 435
_X32: Final = 0x40000000  # x86-64's second set of numbers
_CLONE_NEWUSER: Final = 0x10000000

_LOAD, _EQUAL, _ANY_BIT, _AT_LEAST, _RETURN = 0x20, 0x15, 0x45, 0x35, 0x06
# Offsets in struct seccomp_data (linux/seccomp.h).
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT, _SECOND_ARGUMENT, _THIRD_ARGUMENT = 0, 4, 16, 24, 32
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000


def seccomp_filter() -> bytes:
    """Return the filter for this machine: an array of struct sock_filter.

    Raises SandboxUnavailable if the machine's system call numbers are not known here.
    """
    machine = platform.machine()
    if machine not in _MACHINES:
        raise SandboxUnavailable(
            f"submissions can be confined on x86_64 and aarch64 only, and this machine is {machine}: "
            "mark on another one"
        )
    architecture, numbers = _MACHINES[machine]
    denied = {name: number for name, number in numbers.items() if name not in _BY_ARGUMENT} | _EVERYWHERE
    program = [
        _statement(_LOAD, _ARCHITECTURE),
        _jump(_EQUAL, architecture, 1, 0),
        _statement(_RETURN, _KILL),
        _statement(_LOAD, _NUMBER),
        _jump(_AT_LEAST, _X32, 0, 1),
        _statement(_RETURN, _KILL),
        # A filter can't read clone3's flags; on "not implemented" libraries fall back to clone.
        _jump(_EQUAL, _CLONE3, 0, 1),
        _statement(_RETURN, _ERRNO | errno.ENOSYS),
    ]
    for name, number in denied.items():
        program += [
            _jump(_EQUAL, number, 0, 1),
            _statement(_RETURN, _ERRNO | _ERRORS.get(name, errno.EPERM)),
        ]
    program += [
        _jump(_EQUAL, numbers["socket"], 0, len(_FAMILIES) + 6),
        _statement(_LOAD, _FIRST_ARGUMENT),
        *(_jump(_EQUAL, family, len(_FAMILIES) - at, 0) for at, family in enumerate(_FAMILIES)),
        _statement(_RETURN, _ERRNO | errno.EPERM),
        _statement(_LOAD, _THIRD_ARGUMENT),
        _jump(_AT_LEAST, _MORE_PROTOCOLS, 0, 1),
        _statement(_RETURN, _ERRNO | errno.EPROTONOSUPPORT),
        _statement(_RETURN, _ALLOW),
        _jump(_EQUAL, numbers["setsockopt"], 0, len(_BUFFERS) + 5),
        _statement(_LOAD, _SECOND_ARGUMENT),
        _jump(_EQUAL, socket.SOL_SOCKET, 0, len(_BUFFERS) + 1),
        _statement(_LOAD, _THIRD_ARGUMENT),
        *(_jump(_EQUAL, option, len(_BUFFERS) - at, 0) for at, option in enumerate(_BUFFERS)),
        _statement(_RETURN, _ALLOW),
        _statement(_RETURN, _ERRNO),  # report success and do nothing
        _jump(_EQUAL, numbers["clone"], 0, 3),
        _statement(_LOAD, _FIRST_ARGUMENT),
        _jump(_ANY_BIT, _CLONE_NEWUSER, 0, 1),
        _statement(_RETURN, _ERRNO | errno.EPERM),
        _statement(_RETURN, _ALLOW),
    ]
    return b"".join(program)


def _statement(code: int, value: int) -> bytes:
    return struct.pack("=HBBI", code, 0, 0, value)


def _jump(code: int, value: int, if_true: int, if_false: int) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)
