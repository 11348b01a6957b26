"""The `rabbitry` command. Each subcommand has its own file, which is imported when the subcommand is used.

All but `main` is for Rabbitry alone.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from rabbitry.runtime.interrupt import Interrupted, is_interrupted, raise_when_interrupted

__all__ = ["main"]

_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EPIPE)
"""Errors of writing output: a full disk, a limit on file sizes or quotas, a closed pipe."""
_SERVICES = frozenset({"up", "broker", "web", "worker"})
"""Commands of our own that run until a signal, as do all others with --watch or --follow."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the `rabbitry` command and exit the process.

    Args:
        arguments: The words after the program's name; None for `sys.argv[1:]`.

    Raises:
        SystemExit: Always, with 0 if done, 1 if the work failed, 2 for wrong usage, 3 if the broker is unreachable or
            refused the login, and 130 if interrupted twice, or once in a command whose work is then unfinished.
    """
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        raise_when_interrupted()
        _run(given)
    except (Interrupted, Exception):
        if not is_interrupted():
            raise
    if _runs_until_told(given):
        sys.exit(0)  # nothing was in hand yet
    print("rabbitry: interrupted", file=sys.stderr)
    sys.exit(130)


def _run(arguments: list[str]) -> NoReturn:
    try:
        from rabbitry.cli._root import run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "rabbitry":
            raise
        from rabbitry._installing import extra_of, missing

        wanted = next((word for word in arguments if not word.startswith("-")), None)
        print(f"rabbitry: {missing('the command line', error, extra_of(wanted))}", file=sys.stderr)
        sys.exit(1)
    try:
        code = run(arguments)
        if sys.stdout is not None:  # closed by whoever started this process (`>&-`)
            sys.stdout.flush()
    except OSError as error:
        if error.errno not in _UNWRITABLE:
            raise
        # What is left of the output goes nowhere, or Python would fail to write it once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print(f"rabbitry: can't write: {error.strerror}", file=sys.stderr)
        code = 1
    sys.exit(code)


def _runs_until_told(arguments: Sequence[str]) -> bool:
    """Return whether this command line runs until a signal."""
    if "--help" in arguments:
        return False
    if not {"--watch", "--follow"}.isdisjoint(arguments):
        return True
    words = [word for word in arguments if not word.startswith("-")]
    if not words or words[0] in _SERVICES:
        return bool(words)
    from rabbitry.apps.installed import RESERVED, installed

    plugin = None if words[0] in RESERVED else installed().plugins.get(words[0])
    return plugin is not None and not set(words[1:2]).isdisjoint(plugin.until_stopped)
