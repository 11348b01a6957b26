"""A worker of pytest-xdist, as a fork of the process that has imported the tests (`tests.support.workers`).

execnet starts this program in place of Python. It hands over its pipes to the fork, and ends when that does. It needs
no module but those that Python has.
"""

import json
import os
import signal
import socket
import sys


def main() -> int:
    """Have the worker forked, wait for its end, and return its exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is for the tests
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as workers:
        workers.connect(os.environ["TESTS_WORKERS"])
        job = ["tests.support.worker", [], dict(os.environ), os.getcwd()]
        socket.send_fds(workers, [json.dumps(job).encode()], [theirs.fileno(), 0, 1, 2])
        theirs.close()
        ours.recv(64)  # the id of the worker
    nothing = os.open(os.devnull, os.O_RDWR)
    for pipe in (0, 1):  # execnet takes a worker for lost when nobody holds its pipes any more
        os.dup2(nothing, pipe)
    return int(ours.recv(64) or 1)


if __name__ == "__main__":
    sys.exit(main())
