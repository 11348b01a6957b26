"""Tools for tests of programs that talk to RabbitMQ: a broker for each test, and a harness for an App.

The pytest plugin is in `plugin`, the only public module. The names here are imported when first used, so that the
plugin costs a pytest run nothing until a test asks for it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rabbitry.testing._broker import QueueView, RunningBroker
    from rabbitry.testing._harness import Harness, harness
    from rabbitry.testing._recording import Published, Recording

__all__ = ["Harness", "Published", "QueueView", "Recording", "RunningBroker", "harness"]

_ELSEWHERE: Final = {
    "Harness": "rabbitry.testing._harness",
    "Published": "rabbitry.testing._recording",
    "QueueView": "rabbitry.testing._broker",
    "Recording": "rabbitry.testing._recording",
    "RunningBroker": "rabbitry.testing._broker",
    "harness": "rabbitry.testing._harness",
}


if not TYPE_CHECKING:  # type checkers would accept any name: the imports above tell them which there are

    def __getattr__(name: str) -> object:
        if name not in _ELSEWHERE:
            raise AttributeError(f"module 'rabbitry.testing' has no attribute {name!r}")
        value: object = getattr(importlib.import_module(_ELSEWHERE[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
