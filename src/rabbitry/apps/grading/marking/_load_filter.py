"""Loads a filter of system calls and executes a command under it: `load_filter.py FD COMMAND…`.

A separate script that imports nothing of Rabbitry. Only the weak sandbox uses it: bubblewrap loads the filter itself.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import Final

# linux/prctl.h, linux/seccomp.h
_SET_SECCOMP: Final = 22
_MODE_FILTER: Final = 2
_SET_NO_NEW_PRIVS: Final = 38
_INSTRUCTION: Final = 8  # bytes of a struct sock_filter


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def main() -> None:
    """Load the filter that FD holds, then run the command in place of this program. Raises OSError."""
    with open(int(sys.argv[1]), "rb") as file:
        code = file.read()
    program = _Program(len(code) // _INSTRUCTION, code)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(_SET_SECCOMP, _MODE_FILTER, ctypes.byref(program), 0, 0):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and the command would inherit that
        signal.signal(ignored, signal.SIG_DFL)
    os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606  # the command is the scheme's


if __name__ == "__main__":
    main()
