"""The `warren` command. Each subcommand lies in a file of its own, imported when it is used."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the `warren` command and exit the process.

    Args:
        arguments: what follows the program's name; `sys.argv[1:]` when None.

    Raises:
        SystemExit: always; 0 done, 1 the work failed, 2 wrong usage, 3 broker unreachable or login
            refused, 130 interrupted twice.
    """
    try:
        from warren.cli._root import run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "warren":
            raise
        print(
            f"warren: the command line needs '{error.name}', which is not installed: pip install 'warren[all]'",
            file=sys.stderr,
        )
        sys.exit(1)
    sys.exit(run(sys.argv[1:] if arguments is None else list(arguments)))
