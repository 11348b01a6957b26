"""Programs on a terminal."""

import pty
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

_WITHIN = 90.0


def shown_by(
    command: Sequence[str | Path],
    *,
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: IO[bytes] | int = subprocess.DEVNULL,
) -> tuple[bytes, bytes]:
    """Run a program to its end, which must be exit code 0. Return all that it wrote to a terminal, and to its stdout.

    Its stderr is the terminal.
    """
    ours, theirs = pty.openpty()
    with open(ours, "rb", buffering=0) as terminal:
        with open(theirs, "wb", buffering=0) as other_end:
            process = subprocess.Popen(
                command, env=environment, cwd=cwd, stdin=stdin, stdout=subprocess.PIPE, stderr=other_end
            )
        with process:
            shown = b""
            try:
                while more := terminal.read(65536):  # it ends with the last process that has the other end
                    shown += more
            except OSError:  # Linux's way to say that
                pass
            stdout, _ = process.communicate(timeout=_WITHIN)
    assert process.returncode == 0, shown
    return shown, stdout
