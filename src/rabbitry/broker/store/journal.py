"""The event loop's side of the store: it gathers changes, hands them to a writer thread, and tells who waits.

One batch is being written while the next one gathers, so a slow disk makes batches larger, not more. What is
added and removed within one gathering batch is never written; a batch whose messages are all with consumers waits a
moment for their acks.
"""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from rabbitry.amqp.protocol.tables import Table, encode_table
from rabbitry.broker.queues.message import Entry
from rabbitry.broker.store.batch import Batch, Contents, Dropped, Found, Store, StoreFailed, StoreFull, Wanted

if TYPE_CHECKING:
    from rabbitry.broker.channel import Channel
    from rabbitry.broker.queues.queue import Queue

_log = logging.getLogger(__name__)
MOST_WAITING: Final = 32 << 20
"""Bytes of bodies in the gathering batch from which on publishers are not read."""
_OVERHEAD: Final = 256
"""Bytes that an entry takes beside its body, more or less."""
_LINGER: Final = 0.002
"""Seconds that a batch waits for the acks of messages that are all with consumers."""
_RETRY: Final = 1.0
"""Seconds between two attempts to write where there was no room."""


class Waiting:
    """A batch with those who wait for its commit, and those whose entries it holds."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.batch = Batch()
        self.size = 0
        self.queues: dict[int, Queue] = {}
        self.readers: list[Queue] = []
        self.confirms: dict[Channel, int] = {}
        self.callbacks: list[Callable[[], None]] = []
        self.oldest: Entry | None = None

    def withdraw(self, entry: Entry) -> None:
        """Take out an entry that need not be written any more."""
        del self.batch.added[entry]
        self.size -= len(entry.message.body) + _OVERHEAD

    def lingers(self) -> bool:
        """Whether it waits a moment (more): consumers have all of it, so their acks may come before it is written.

        Asked again after that moment, it waits another one only where all that it had then is gone, and nobody waits
        for a confirm: so nothing waits longer than two.
        """
        batch = self.batch
        if self.callbacks or batch.records or batch.changed or batch.removed or batch.dropped or batch.wanted:
            return False
        if not batch.added or self.size > MOST_WAITING or any(queue.ready for queue in self.queues.values()):
            return False
        if self.oldest is not None and (self.confirms or self.oldest in batch.added):
            return False
        self.oldest = next(iter(batch.added))
        return True


class Journal:
    """Takes changes of what is durable. Without a store nothing is durable, and nobody waits.

    changes: counts changes of records and of whole queues, which clients are told of after the commit.
    on_failure: called when the store failed for good; the broker must end. on_full: called with whether the
    store is out of room.
    """

    def __init__(
        self,
        store: Store | None = None,
        *,
        on_failure: Callable[[Exception], None] = lambda error: None,
        on_full: Callable[[bool], None] = lambda full: None,
    ) -> None:
        self.is_on = store is not None
        self.changes = 0
        self.committed = 0
        self._store = store
        self._on_failure = on_failure
        self._on_full = on_full
        self._gathering = Waiting(1)
        self._writing: Waiting | None = None
        self._last_message = 0
        self.is_full = False
        self._failed: Exception | None = None
        self._scheduled = False
        self._throttled: list[Callable[[], None]] = []
        self._step: asyncio.Future[None] | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._thread: ThreadPoolExecutor | None = None

    # -- life ------------------------------------------------------------------------------------------

    async def open(self) -> Contents:
        """Open the store. Raises StoreFailed."""
        assert self._store is not None  # noqa: S101 # whoever has none does not open it
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rabbitry-store")
        try:
            contents = await asyncio.get_running_loop().run_in_executor(self._thread, self._store.open)
        except StoreFailed:
            self._thread.shutdown(wait=False)
            raise
        self._last_message = contents.last_message
        return contents

    async def close(self) -> None:
        """Write what is left, then close the store. Raises StoreFailed; what could not be written is named."""
        if self._store is None or self._thread is None:
            return
        loop = asyncio.get_running_loop()
        try:
            while self._failed is None and not self.is_full and self._is_busy():
                self._step = loop.create_future()
                await self._step
            if self._retry is not None:
                self._retry.cancel()
            if self.is_full:
                _log.error("there was no room to the end: what was acknowledged since may come again")
            await loop.run_in_executor(self._thread, self._store.close)
        finally:
            self._thread.shutdown(wait=False)
            self._thread = None

    def _is_busy(self) -> bool:
        return self._writing is not None or not self._gathering.batch.is_empty()

    # -- changes ---------------------------------------------------------------------------------------

    def put(self, kind: str, key: str, value: Table | None) -> None:
        """Keep a record; None deletes it. Raises UsageError for a value that no table can hold."""
        if value is not None:
            encode_table(value)  # here and not on the writer's thread, where it would be a failure of the store
        self.changes += 1
        self._open().batch.records[kind, key] = value

    def add(self, queue: "Queue", entry: Entry) -> None:
        """Keep an entry, and its message."""
        waiting = self._gathering if self._scheduled else self._open()
        message = entry.message
        if not message.id:
            self._last_message += 1
            message.id = self._last_message
        message.copies += 1
        entry.stored = True
        waiting.batch.added[entry] = queue.id
        waiting.queues[queue.id] = queue
        waiting.size += len(message.body) + _OVERHEAD

    def change(self, queue: "Queue", entry: Entry) -> None:
        """Keep what changed of an entry: how often it was delivered."""
        waiting = self._open()
        if queue.id and entry not in waiting.batch.added:
            waiting.batch.changed[entry] = queue.id

    def remove(self, queue: "Queue", entry: Entry) -> None:
        """Forget an entry. One that was not written yet never is."""
        if not queue.id:
            return
        waiting = self._gathering if self._scheduled else self._open()
        if entry in waiting.batch.added:
            waiting.withdraw(entry)
        else:
            waiting.batch.removed[entry] = queue.id
            waiting.batch.changed.pop(entry, None)

    def drop_tail(self, queue: "Queue", priority: int, after: int, before: int) -> None:
        """Forget entries of one priority at positions above `after` and below `before`."""
        self.changes += 1
        self._open().batch.dropped.append(Dropped(queue.id, priority, after, before))

    def drop_queue(self, queue: "Queue") -> None:
        """Forget all entries of a queue."""
        self.changes += 1
        waiting = self._open()
        if queue.id in waiting.queues:
            for entry in [entry for entry, number in waiting.batch.added.items() if number == queue.id]:
                waiting.withdraw(entry)
        waiting.batch.dropped.append(Dropped(queue.id))

    def load(self, queue: "Queue", wanted: Wanted) -> None:
        """Read entries; the queue's `loaded` is called with them."""
        waiting = self._open()
        waiting.batch.wanted.append(wanted)
        waiting.readers.append(queue)

    # -- waiting ---------------------------------------------------------------------------------------

    @property
    def gathering(self) -> int:
        """The number of the batch that changes go to now."""
        return self._gathering.number

    def confirm(self, channel: "Channel", up_to: int) -> None:
        """Confirm a channel's publishes when all that it published is durable."""
        if channel.waits_for <= self.committed:
            channel.confirm(up_to)
        elif self._writing is not None and channel.waits_for == self._writing.number:
            self._writing.confirms[channel] = up_to
        else:
            self._gathering.confirms[channel] = up_to

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Call back when everything up to now is durable."""
        if not self._gathering.batch.is_empty():
            self._gathering.callbacks.append(callback)
        elif self._writing is not None:
            self._writing.callbacks.append(callback)
        else:
            callback()

    async def committed_now(self) -> None:
        """Wait until everything up to now is durable. Cancelling only stops the waiting."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.after_commit(lambda: None if done.done() else done.set_result(None))
        await done

    @property
    def is_crowded(self) -> bool:
        """Whether so much waits to be written that publishers should not be read."""
        return self._gathering.size > MOST_WAITING

    def when_taken(self, callback: Callable[[], None]) -> None:
        """Call back when the gathering batch goes to the writer."""
        self._throttled.append(callback)

    # -- writing ---------------------------------------------------------------------------------------

    def _open(self) -> Waiting:
        """Return the gathering batch, and see to it that it is handed over at the end of this turn of the loop."""
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._hand_over)
        return self._gathering

    def _hand_over(self) -> None:
        self._scheduled = False
        if self._writing is not None or self._failed is not None or self._thread is None or self.is_full:
            return
        writing = self._gathering
        if not self._throttled and writing.lingers():
            self._scheduled = True
            asyncio.get_running_loop().call_later(_LINGER, self._hand_over)
            return
        if writing.batch.is_empty() and not writing.confirms and not writing.callbacks:
            self._tell_throttled()
            return
        self._gathering = Waiting(writing.number + 1)
        if writing.batch.is_empty():
            self._committed(writing, [])  # everything was acknowledged meanwhile
        else:
            self._write(writing)
        self._tell_throttled()

    def _tell_throttled(self) -> None:
        throttled, self._throttled = self._throttled, []
        for callback in throttled:
            callback()

    def _write(self, writing: Waiting) -> None:
        assert self._store is not None  # noqa: S101 # the thread is there only with a store
        assert self._thread is not None  # noqa: S101 # _hand_over looked
        self._writing = writing
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._thread, self._store.apply, writing.batch)
        future.add_done_callback(self._written)

    def _written(self, future: "asyncio.Future[list[Found]]") -> None:
        writing = self._writing
        if writing is None or future.cancelled():
            return
        error = future.exception()
        if error is None:
            self._committed(writing, future.result())
        elif isinstance(error, StoreFull):
            self._on_no_room(writing, error)
        else:
            self._failed = error if isinstance(error, StoreFailed) else StoreFailed(f"the store failed: {error!r}")
            self._failed.__cause__ = error
            self._on_failure(self._failed)
        self._tell_closer()

    def _committed(self, writing: Waiting, found: list[Found]) -> None:
        self._writing = None
        self.committed = writing.number
        if self.is_full:
            self.is_full = False
            _log.warning("there is room for the store again")
            self._on_full(False)
        for channel, up_to in writing.confirms.items():
            channel.confirm(up_to)
        for queue, wanted, answer in zip(writing.readers, writing.batch.wanted, found, strict=True):
            queue.loaded(wanted, answer)
        for callback in writing.callbacks:
            callback()
        self._hand_over()
        self._tell_closer()

    def _tell_closer(self) -> None:
        """Let `close` look again at what is left to write."""
        if self._step is not None and not self._step.done():
            self._step.set_result(None)

    # -- no room ---------------------------------------------------------------------------------------

    def _on_no_room(self, writing: Waiting, error: StoreFull) -> None:
        """Refuse what was published in a batch that has no room, keep the rest of it, and try again later.

        Dead letters and what transactions published are of the rest: they were promised before, or replace what was.
        """
        if not self.is_full:
            _log.error("%s; publishes are refused until there is room", error)
            self.is_full = True
            self._on_full(True)
        refused: dict[int, list[Entry]] = {}
        for entry, number in writing.batch.added.items():
            if not entry.message.is_owed:
                refused.setdefault(number, []).append(entry)
        for number, entries in refused.items():
            writing.queues[number].withdraw(entries)
            for entry in entries:
                del writing.batch.added[entry]
        for channel, up_to in writing.confirms.items():
            channel.refuse(up_to)
        writing.confirms.clear()
        self._retry = asyncio.get_running_loop().call_later(_RETRY, self._write, writing)
