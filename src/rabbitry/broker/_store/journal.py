"""The event loop's side of the store: gathers changes, hands them to a writer thread, and calls waiters back.

One batch is written while the next one gathers, so a slow disk makes batches larger, not more numerous. An entry added
and removed within one gathering batch is never written; a batch whose messages are all with consumers waits a moment
for their acks.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from rabbitry.amqp.protocol.tables import Table, encode_table
from rabbitry.broker._store.batch import Batch, Contents, Dropped, Found, Store, StoreFull, Unusable, Wanted
from rabbitry.broker._store.waiting import MOST_WAITING, OVERHEAD, Confirming, StoredQueue, Waiting
from rabbitry.broker.exceptions import StoreFailed
from rabbitry.broker.message import Entry

_logger = logging.getLogger(__name__)
_MOST_ROWS: Final = 4_000
"""Changes in the gathering batch above which publishers are not read: its confirms wait for all of it.

A batch of this size takes 30 ms to write, and a confirm waits for two: its own and the one being written.
"""
_FEWEST_WAITING: Final = 1 << 20
"""Bytes of bodies that may always wait in the gathering batch: they fit into the reserve of the store's log."""
_WRITTEN: Final = 2
"""How often a message is written: once to the log, and once to the database by a checkpoint."""
_LINGER: Final = 0.002
"""Seconds that a batch waits for the acks of messages that are all with consumers."""
_RETRY: Final = 1.0
"""Seconds between two attempts to write when the disk is full."""


class Journal:
    """Receives changes of durable state. Without a store nothing is durable, and nobody waits.

    changes: counts changes of records and of whole queues, which are answered after the commit. on_failure: called when
    the store has failed for good; the broker must stop. on_full: called with the reason when the disk is full and
    publishes were refused. is_moving: whether added entries replace the removed ones.
    """

    def __init__(
        self,
        *,
        on_failure: Callable[[Exception], None] = lambda error: None,
        on_full: Callable[[str], None] = lambda why: None,
    ) -> None:
        self.is_on: bool = False
        """Whether a store was opened, which changes are to be handed to."""
        self.changes: int = 0
        self.committed: int = 0
        self.is_moving = False
        self._store: Store | None = None
        self._on_failure = on_failure
        self._on_full = on_full
        self._gathering = Waiting(1)
        self._writing: Waiting | None = None
        self._last_message = self._last_before = 0
        self._last_queue = 0
        self.loaded: int = 0
        """Number of messages read since the start."""
        self._most_waiting = MOST_WAITING
        self.is_stuck: bool = False
        """Whether changes wait for disk space: messages deferred to the gathering batch, or all of the written one."""
        self._is_reading = False
        self._when_loaded: dict[StoredQueue, list[Callable[[], None]]] = {}
        self._failed: Exception | None = None
        self._scheduled = False
        self._throttled: list[Callable[[], None]] = []
        self._step: asyncio.Future[None] | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._thread: ThreadPoolExecutor | None = None

    # -- life cycle ------------------------------------------------------------------------------------------

    async def open(self, store: Store) -> Contents:
        """Open a store, and keep changes there from now on.

        When cancelled, it waits until the store is opened and given back.

        Raises:
            StoreFailed: The store failed; the text says why.
        """
        self._store = store
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rabbitry-store")
        try:
            contents = await asyncio.get_running_loop().run_in_executor(self._thread, store.open)
        except asyncio.CancelledError:
            await self.give_back()  # after the opening, which can't be interrupted
            raise
        except BaseException:
            self._end_thread()
            raise
        self._last_message = self._last_before = contents.last_message
        self._count_room()
        self.is_on = True
        return contents

    async def set_aside(self, records: list[Unusable]) -> None:
        """Move unusable records to a file beside the store.

        Raises:
            StoreFailed: The store failed; the text says why.
        """
        assert self._store is not None  # noqa: S101 # it was opened
        await asyncio.get_running_loop().run_in_executor(self._thread, self._store.set_aside, records)

    async def give_back(self) -> None:
        """Release an opened but unused store as it was found.

        Raises:
            StoreFailed: The store failed; the text says why.
        """
        assert self._store is not None  # noqa: S101 # it was opened
        given_back = asyncio.get_running_loop().run_in_executor(self._thread, self._store.give_back)
        self._end_thread()  # no batch is written any more
        await given_back

    async def close(self, *, is_complete: bool = True) -> None:
        """Write the rest, then close the store.

        Args:
            is_complete: Whether all changes have been handed to the journal; see `Store.close`.

        Raises:
            StoreFailed: The store failed; the text says why.
        """
        if self._store is None or self._thread is None:
            return
        loop = asyncio.get_running_loop()
        try:
            for _ in range(2):  # the second one writes the changes that the first deferred
                self._try_again()
                while self._failed is None and not self.is_stuck and self._is_busy():
                    self._step = loop.create_future()
                    await self._step
            self._cancel_retry()
            if self.is_stuck:
                _logger.error("the disk stayed full: messages acknowledged since then may be redelivered")
            close = functools.partial(self._store.close, is_complete=is_complete and not self.is_stuck)
            await loop.run_in_executor(self._thread, close)
        finally:
            self._end_thread()

    def _end_thread(self) -> None:
        if self._thread is not None:
            self._thread.shutdown(wait=False)
            self._thread = None

    def _is_busy(self) -> bool:
        return self._writing is not None or not self._gathering.batch.is_empty()

    # -- changes ---------------------------------------------------------------------------------------

    def put(self, kind: str, key: str, value: Table | None) -> None:
        """Store a record; None deletes it.

        Raises:
            UsageError: The value can't be encoded in a table.
        """
        if value is not None:
            encode_table(value)  # here and not on the writer's thread, where it would be a failure of the store
        self.changes += 1
        self._open().batch.records[kind, key] = value

    def add(self, queue: StoredQueue, entry: Entry) -> None:
        """Store an entry and its message."""
        waiting = self._gathering if self._scheduled else self._open()
        message = entry.message
        if not message.id:
            self._last_message += 1
            message.id = self._last_message
        message.copies += 1
        entry.stored = True
        waiting.batch.added[entry] = queue.id
        waiting.queues[queue.id] = queue
        waiting.size += len(message.body) + OVERHEAD

    def change(self, queue: StoredQueue, entry: Entry) -> None:
        """Store the changed delivery count of an entry."""
        waiting = self._open()
        if queue.id and entry not in waiting.batch.added:
            waiting.batch.changed[entry] = queue.id

    def remove(self, queue: StoredQueue, entry: Entry, *, is_moving: bool = False) -> None:
        """Delete an entry. If it is not written yet, it never will be.

        Args:
            queue: The queue of the entry.
            entry: The entry.
            is_moving: Whether a message added in the same turn of the loop replaces the entry. The entry is then
                deleted only in the batch that writes this message.
        """
        if not queue.id:
            return
        waiting = self._gathering if self._scheduled else self._open()
        if entry in waiting.batch.added:
            waiting.withdraw(entry)
        else:
            waiting.batch.removed[entry] = queue.id
            waiting.batch.changed.pop(entry, None)
            if is_moving or self.is_moving:
                waiting.moved.add(entry)

    def drop_range(
        self, queue: StoredQueue, priority: int, after: int, before: int, *, is_awaited: bool = False
    ) -> None:
        """Delete entries of one priority at positions above `after` and below `before`.

        Args:
            queue: The queue of the entries.
            priority: Their priority.
            after: The position before the first of them.
            before: The position behind the last of them.
            is_awaited: Whether callbacks after the commit wait until the last of them is deleted, as a purge has to.
        """
        self._open().drop(Dropped(queue.id, priority, after, before, is_awaited))

    def drop_queue(self, number: int) -> None:
        """Delete all entries of the queue with this number."""
        self.changes += 1
        self._open().drop(Dropped(number))

    def load(self, queue: StoredQueue, wanted: Wanted) -> None:
        """Read entries, which are passed to the queue's `loaded`."""
        waiting = self._open()
        waiting.batch.wanted.append(wanted)
        waiting.readers.append(queue)
        if self._retry is not None:
            asyncio.get_running_loop().call_soon(self._read_aside)

    def new_queue_number(self) -> int:
        """Return the store's number for a new queue, higher than all others."""
        self._last_queue += 1
        return self._last_queue

    def note_queue_number(self, number: int) -> None:
        """Let queues declared from now on have higher numbers than this one, which is in the store."""
        self._last_queue = max(self._last_queue, number)

    @property
    def kept(self) -> int:
        """Number of messages handed to the store since the start."""
        return self._last_message - self._last_before

    # -- waiting ---------------------------------------------------------------------------------------

    @property
    def gathering(self) -> int:
        """Number of the batch that is gathering now."""
        return self._gathering.number

    def confirm(self, channel: Confirming, up_to: int) -> None:
        """Confirm a channel's publishes once all of them are durable."""
        if channel.waits_for <= self.committed:
            channel.confirm(up_to)
        elif self._writing is not None and channel.waits_for == self._writing.number:
            self._writing.confirms[channel] = up_to
        else:
            self._gathering.confirms[channel] = up_to

    def after_commit(self, callback: Callable[[], None]) -> None:
        """Call back once everything up to now is durable."""
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

    def when_loaded(self, queue: StoredQueue, callback: Callable[[], None]) -> None:
        """Call `callback` once the pending reading of a queue is answered."""
        self._when_loaded.setdefault(queue, []).append(callback)

    async def loaded_now(self, queue: StoredQueue) -> None:
        """Wait until the pending reading of a queue is answered. Cancelling ends the wait, not the reading."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.when_loaded(queue, lambda: None if done.done() else done.set_result(None))
        await done

    @property
    def unwritten(self) -> int:
        """Bytes of the messages that were added since a batch was last handed to the writer."""
        return self._gathering.size

    @property
    def is_crowded(self) -> bool:
        """Whether so many writes are pending that publishers should not be read."""
        batch = self._gathering.batch
        rows = len(batch.records) + len(batch.added) + len(batch.removed) + len(batch.changed)
        return rows > _MOST_ROWS or self._gathering.size > self._most_waiting

    def may_grow(self, callback: Callable[[], None]) -> bool:
        """Return whether the gathering batch may grow; if not, call back when it is handed to the writer."""
        if self.is_crowded:
            self.when_taken(callback)
            return False
        return True

    @property
    def room(self) -> int:
        """Bytes free for the store after its last batch, minus pending writes; negative if short.

        Free pages of the database count as free. Space used by other programs since then is not subtracted. 0 without a
        store.
        """
        if self._store is None:
            return 0
        unwritten = self._gathering.size + (self._writing.size if self._writing is not None else 0)
        return self._store.free + self._store.reusable - _WRITTEN * unwritten

    def when_taken(self, callback: Callable[[], None]) -> None:
        """Call back when the gathering batch goes to the writer."""
        self._throttled.append(callback)

    async def taken(self) -> None:
        """Wait until the gathering batch goes to the writer. Cancelling only stops the waiting."""
        taken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.when_taken(lambda: None if taken.done() else taken.set_result(None))
        await taken

    # -- writing ---------------------------------------------------------------------------------------

    def _open(self) -> Waiting:
        """Return the gathering batch, and schedule handing it over at the end of this loop iteration."""
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._hand_over)
        return self._gathering

    def _hand_over(self) -> None:
        self._scheduled = False
        if self._writing is not None or self._failed is not None or self._thread is None:
            return
        self._cancel_retry()
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
        self._retry = None
        assert self._store is not None  # noqa: S101 # the thread is there only with a store
        assert self._thread is not None  # noqa: S101 # _hand_over looked
        self._writing = writing
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._thread, self._store.apply, writing.batch)
        future.add_done_callback(self._written)

    def _written(self, future: asyncio.Future[list[Found]]) -> None:
        writing = self._writing
        if writing is None or future.cancelled():
            return
        error = future.exception()
        if error is None:
            self._committed(writing, future.result())
        elif isinstance(error, StoreFull):
            self._on_no_room(writing, error)
        else:
            self._fail(error)
        self._tell_closer()

    def _fail(self, error: BaseException) -> None:
        self._failed = error if isinstance(error, StoreFailed) else StoreFailed(f"the store failed: {error!r}")
        if self._failed is not error:
            self._failed.__cause__ = error
        self._on_failure(self._failed)

    def _committed(self, writing: Waiting, found: list[Found]) -> None:
        self._writing = None
        self.committed = writing.number
        self.is_stuck = writing.has_put_off
        self._count_room()
        for channel, up_to in writing.confirms.items():
            channel.confirm(up_to)
        self._loaded(writing.readers, writing.batch.wanted, found)
        if writing.batch.dropped:
            self._drop_on(writing)
        for callback in writing.callbacks:
            callback()
        if writing.has_put_off:
            self._retry = asyncio.get_running_loop().call_later(_RETRY, self._hand_over)
        else:
            self._hand_over()
        self._tell_closer()

    def _drop_on(self, writing: Waiting) -> None:
        """Continue deletions that exceeded one transaction in the next batch.

        A purge is answered after the last of them. A deleted queue is gone once its record is, and old segments of a
        stream once their records are, even while some of their entries are left.
        """
        following = self._open()
        following.batch.dropped[:0] = writing.batch.dropped
        following.batch.noted = len(writing.batch.dropped)
        if any(dropped.is_awaited for dropped in writing.batch.dropped):
            following.callbacks[:0] = writing.callbacks
            writing.callbacks = []

    def _count_room(self) -> None:
        assert self._store is not None  # noqa: S101 # it was opened
        self._most_waiting = max(_FEWEST_WAITING, min(MOST_WAITING, self._store.free // 8))

    def _loaded(self, readers: list[StoredQueue], wanted: list[Wanted], found: list[Found]) -> None:
        done = len(found)
        if done < len(wanted):  # the next batch reads the rest
            following = self._open()
            following.readers[:0] = readers[done:]
            following.batch.wanted[:0] = wanted[done:]
            if self._retry is not None:
                asyncio.get_running_loop().call_soon(self._read_aside)
        for queue, reading, answer in zip(readers, wanted, found):  # noqa: B905 # the rest, if any, comes later
            if self.is_stuck and not answer.entries and not answer.damaged:
                # The messages to read wait for disk space themselves: the next batch answers.
                self._gathering.batch.wanted.append(reading)
                self._gathering.readers.append(queue)
                continue
            self.loaded += len(answer.entries)
            queue.loaded(reading, answer)
            for callback in self._when_loaded.pop(queue, ()):
                callback()

    def _tell_closer(self) -> None:
        """Wake `close`, which checks again whether writes are left."""
        if self._step is not None and not self._step.done():
            self._step.set_result(None)

    # -- a full disk ---------------------------------------------------------------------------------------

    async def tidy(self, *, is_short: bool) -> None:
        """Let the store free unneeded disk space, unless it is busy.

        Args:
            is_short: Whether the disk is low on room.
        """
        if self._store is None or self._thread is None or self._failed is not None or self._writing is not None:
            return
        try:
            await asyncio.get_running_loop().run_in_executor(
                self._thread, functools.partial(self._store.tidy, is_short=is_short)
            )
        except StoreFailed as error:
            self._fail(error)
        else:
            self._count_room()

    def _on_no_room(self, writing: Waiting, error: StoreFull) -> None:
        """Refuse the publishes of a batch that did not fit on the disk, and write the rest of the batch.

        Dead letters and publishes of transactions can't be refused. If the disk is too full for them, they wait for the
        next batch, together with the entries that they replace and with records; acks are written without them.
        """
        self._on_full(str(error))
        refused: dict[int, list[Entry]] = {}
        for entry, number in writing.batch.added.items():
            if not entry.message.is_owed:
                refused.setdefault(number, []).append(entry)
        for channel, up_to in writing.confirms.items():
            channel.refuse(up_to)  # also if the publish was dead-lettered
        writing.confirms.clear()
        for number, entries in refused.items():
            writing.queues[number].withdraw(entries)
            for entry in entries:
                writing.withdraw(entry)
        if not refused and (writing.batch.added or writing.batch.records):
            writing.put_off(self._gathering)
            writing.has_put_off = True
        elif not refused:
            self.is_stuck = True
            self._retry = asyncio.get_running_loop().call_later(_RETRY, self._write, writing)
            self._read_aside()
            return
        self._write(writing)

    def _cancel_retry(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None

    def _try_again(self) -> None:
        """Retry at once to write changes that wait for disk space."""
        self.is_stuck = False
        if self._retry is not None:
            self._cancel_retry()
            if self._writing is not None:
                self._write(self._writing)
            else:
                self._hand_over()

    def _read_aside(self) -> None:
        """Answer reads while the batch before them waits for disk space.

        Waiting messages have later positions than all stored ones: a read finds fewer messages, but no wrong ones.
        """
        if self._retry is None or self._writing is None or self._is_reading:
            return
        readers: list[StoredQueue] = []
        batch = Batch()
        for waiting in (self._writing, self._gathering):
            readers += waiting.readers
            batch.wanted += waiting.batch.wanted
            waiting.readers, waiting.batch.wanted = [], []
        if not readers:
            return
        assert self._store is not None  # noqa: S101 # something waits to be written
        self._is_reading = True
        future = asyncio.get_running_loop().run_in_executor(self._thread, self._store.apply, batch)
        future.add_done_callback(functools.partial(self._read, readers, batch.wanted))

    def _read(self, readers: list[StoredQueue], wanted: list[Wanted], future: asyncio.Future[list[Found]]) -> None:
        self._is_reading = False
        if future.cancelled():
            return
        error = future.exception()
        if error is not None:
            self._fail(error)
            return
        self._loaded(readers, wanted, future.result())
