"""The program's `declare` function, which declares its topology over each new link."""

from __future__ import annotations

import contextvars
from collections.abc import Awaitable, Callable

from rabbitry.exceptions import RabbitryError, RequestTimeout

_call: contextvars.ContextVar[object] = contextvars.ContextVar("the call of `declare` that this code runs in")


class DeclareHook:
    """The `declare` function of one connection, and its calls in progress.

    Code within such a call uses the link at once, and its declarations are not recorded for recovery.
    """

    def __init__(self) -> None:
        self.function: Callable[[], Awaitable[None]] | None = None
        self._calls: set[object] = set()

    async def run(self) -> None:
        """Run the program's declarations over the current link.

        Raises ConnectionClosed, RequestTimeout, and any error of the program's function.
        """
        if self.function is None:
            return
        call = object()
        self._calls.add(call)
        token = _call.set(call)
        try:
            await self.function()
        except RabbitryError:
            raise
        except TimeoutError as error:  # the function's own; the limit of a recovery cancels instead
            raise RequestTimeout(f"declare= did not end in time: {error!r}") from error
        finally:
            _call.reset(token)
            self._calls.discard(call)

    @property
    def is_running(self) -> bool:
        """Whether the current code runs within a call of the function."""
        return _call.get(None) in self._calls
