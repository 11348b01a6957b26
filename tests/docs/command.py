"""A module that a page runs, as a fork of the launcher of its machine: `command.py SOCKET MODULE ARGUMENT…`.

It imports little, is started without the modules of the environment, and passes on signals and the exit code.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from pathlib import Path


def main() -> None:
    """Have the module forked, and end as it does."""
    launcher = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    launcher.connect(sys.argv[1])
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    job = (sys.argv[2], sys.argv[3:], dict(os.environ), os.getcwd())
    socket.send_fds(launcher, [json.dumps(job).encode()], [theirs.fileno(), 0, 1, 2])
    theirs.close()
    pid, [descriptor], _, _ = socket.recv_fds(ours, 64, 1)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: signal.pidfd_send_signal(descriptor, number))
    Path(f"{os.environ['LOGS']}.job{os.getpid()}").write_bytes(pid)  # prelude.sh asks whether it is connected
    code = int(ours.recv(64))
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        signal.raise_signal(-code)
    sys.exit(code)


if __name__ == "__main__":
    main()
