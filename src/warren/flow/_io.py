"""An event loop in a thread of its own, and mailboxes that carry batches between loops."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

_T = TypeVar("_T")


class IOThread:
    """A thread that runs an event loop; made ready by `start`, ended by `stop`."""

    def __init__(self, name: str) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def submit(self, work: Coroutine[Any, Any, _T]) -> Future[_T]:
        """Run a coroutine there; cancelling the future cancels it."""
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def stop(self) -> None:
        """End the loop and wait for the thread; what still runs there is cancelled."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
            tasks = asyncio.all_tasks(self.loop)
            for task in tasks:
                task.cancel()
            if tasks:
                self.loop.run_until_complete(asyncio.wait(tasks))
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
        finally:
            self.loop.close()


class Mailbox(Generic[_T]):
    """Carries items to a loop in batches: whatever was put in since the loop's last look is one batch.

    `put` is for any thread. Bounded by its users: what is on its way is in hand, and prefetch bounds that.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, take: Callable[[list[_T]], None]) -> None:
        self._loop = loop
        self._take = take
        self._items: deque[_T] = deque()
        self._is_scheduled = False

    def put(self, item: _T) -> None:
        """Put an item in. Dropped where the loop is closed, which nobody reads any more."""
        self._items.append(item)
        # `_empty` resets the flag before it looks, so an item put in after its look schedules the next one.
        if not self._is_scheduled:
            self._is_scheduled = True
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._empty)

    def _empty(self) -> None:
        self._is_scheduled = False
        items = self._items
        batch = [items.popleft() for _ in range(len(items))]
        if batch:
            self._take(batch)
