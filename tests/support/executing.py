"""Replace this process by another program: `python -m tests.support.executing PROGRAM ARGUMENT…`, for the launcher."""

import os
import signal
import sys

if __name__ == "__main__":
    os.setsid()  # a Ctrl-C is not for it
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it
    os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606 - no shell is wanted
