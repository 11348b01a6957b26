"""The body of an `async with` that is cancelled when something it runs fails, as asyncio.TaskGroup does."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any


class Block:
    """The body that the current task continues with. Only for use in that task's loop."""

    def __init__(self) -> None:
        self._task: asyncio.Task[Any] | None = asyncio.current_task()
        self._cancels_before = 0 if self._task is None else self._task.cancelling()
        self._is_cancelled = False

    def cancel(self) -> None:
        """Cancel the body. A task that has ended (that of a fixture's setup) has none any more."""
        self._is_cancelled = self._task is not None and self._task.cancel()

    async def take_back(self, error: BaseException | None) -> bool:
        """Take back the cancellation at the end of the body, which raised `error`.

        Returns whether the body ended because of it, or in spite of it, and nobody else cancelled the task.
        """
        if self._task is None or not self._is_cancelled:
            return False
        if not isinstance(error, asyncio.CancelledError):
            # The body ended before the cancellation arrived, which else comes at the next await.
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0)
        return self._task.uncancel() <= self._cancels_before
