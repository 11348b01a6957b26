"""The scripts, by name."""

import functools
from collections.abc import Callable
from typing import Any, Final

from rabbitry.amqp.protocol.methods import Method
from tests.differential.peer import Peer

Script = Callable[[Peer], None]
CASES: Final[dict[str, Script]] = {}


def of(script: Callable[..., None], *values: object, **flags: object) -> Script:
    """Return a family's script with all arguments but the peer fixed."""
    return functools.partial(script, *values, **flags)


def flagged(method: Method, **fields: object) -> Any:
    """Return a method with some fields changed, given by the names that the script's family uses."""
    return method._replace(**fields)  # type: ignore[arg-type] # the names are a family's parameters


def case(script: Script) -> Script:
    """Register a script under its function's name."""
    add(script.__name__, script)
    return script


def add(name: str, script: Script) -> None:
    """Register a script of a family. Raises ValueError for a name already in use."""
    if name in CASES:
        raise ValueError(f"there are two scripts {name}")
    CASES[name] = script
