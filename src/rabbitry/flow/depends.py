"""Depends: what a handler takes besides its message, made by a function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal, TypeAlias

Scope: TypeAlias = Literal["message", "worker"]


@dataclass(frozen=True, slots=True)
class Depends:
    """A dependency of a handler, in the annotation of its parameter: `Annotated[Session, Depends(session)]`.

    Args:
        provider: Returns the dependency: a function, a generator function that yields it once and cleans up
            afterwards, a function made by `contextlib.contextmanager`, or a class; each also asynchronous. A class
            whose objects are context managers is entered and left. Its parameters may be dependencies in turn, or the
            `Message` or `Context`; others need a default.
        scope: "message" makes it once for each call of a handler; "worker" once for the life of a worker.
    """

    provider: Callable[..., Any]
    _: KW_ONLY
    scope: Scope = "message"
