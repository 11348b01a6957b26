"""The scripts, by name."""

from collections.abc import Callable
from typing import Final

from tests.differential.peer import Peer

Script = Callable[[Peer], None]
CASES: Final[dict[str, Script]] = {}


def case(script: Script) -> Script:
    """Register a script under its function's name."""
    add(script.__name__, script)
    return script


def add(name: str, script: Script) -> None:
    """Register a script of a family. Raises ValueError for a name that is taken."""
    if name in CASES:
        raise ValueError(f"there are two scripts {name}")
    CASES[name] = script
