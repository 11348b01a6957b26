"""A batch for the store, with those that wait for its commit: publishers, readers and callbacks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from rabbitry.broker._store.batch import Batch, Dropped, Found, Wanted
from rabbitry.broker.message import Entry

MOST_WAITING: Final = 32 << 20
"""Bytes of bodies in the gathering batch above which publishers are not read; fewer if the disk is short of space."""
OVERHEAD: Final = 256
"""Approximate bytes of an entry besides its body."""


class StoredQueue(Protocol):
    """The part of a queue with stored entries that the journal uses."""

    id: int
    ready: int

    def loaded(self, wanted: Wanted, found: Found) -> None:
        """Add entries that were read from the store."""

    def withdraw(self, entries: list[Entry]) -> None:
        """Remove entries for which the store had no room."""


class Confirming(Protocol):
    """The confirms of a channel, which wait for the commit of its publishes."""

    waits_for: int

    def confirm(self, up_to: int) -> None:
        """Confirm the publishes up to a delivery tag."""

    def refuse(self, up_to: int) -> None:
        """Nack the unconfirmed publishes up to a delivery tag."""


class Waiting:
    """A batch, with those that wait for its commit, and the queues of its entries."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.batch = Batch()
        self.size = 0
        self.moved: set[Entry] = set()
        """Entries that may only be removed with the commit of the messages that replace them."""
        self.queues: dict[int, StoredQueue] = {}
        self.readers: list[StoredQueue] = []
        self.confirms: dict[Confirming, int] = {}
        self.callbacks: list[Callable[[], None]] = []
        self.oldest: Entry | None = None
        self.has_put_off = False
        """Whether a part of it was deferred to the next batch, since the disk was full."""

    def withdraw(self, entry: Entry) -> None:
        """Remove an entry that need not be written any more."""
        del self.batch.added[entry]
        self.size -= len(entry.message.body) + OVERHEAD

    def drop(self, dropped: Dropped) -> None:
        """Delete entries of the store without loading them. Entries added in this batch are never written."""
        if dropped.queue in self.queues:
            for entry in [entry for entry, queue in self.batch.added.items() if dropped.covers(entry, queue)]:
                self.withdraw(entry)
        self.batch.dropped.append(dropped)

    def put_off(self, later: Waiting) -> None:
        """Move added messages, the entries that they replace, records and their waiters to the next batch.

        If the next batch removes or drops such messages, they are never written. A message is not written before its
        queue's record, since both are moved to the same batch.
        """
        batch, following = self.batch, later.batch
        added = {
            entry: queue
            for entry, queue in batch.added.items()
            if following.removed.pop(entry, None) is None
            and not any(dropped.covers(entry, queue) for dropped in following.dropped)
        }
        moved = {entry: queue for entry, queue in batch.removed.items() if entry in self.moved}
        following.records = {**batch.records, **following.records}
        batch.records, batch.added = {}, {}
        batch.removed = {entry: queue for entry, queue in batch.removed.items() if entry not in self.moved}
        following.added = {**added, **following.added}
        following.removed = {**moved, **following.removed}
        later.moved |= moved.keys()
        later.queues = {**self.queues, **later.queues}
        later.size += sum(len(entry.message.body) + OVERHEAD for entry in added)
        later.callbacks[:0] = self.callbacks
        self.callbacks = []

    def lingers(self) -> bool:
        """Return whether to wait a moment: consumers have all of it, so their acks may arrive before it is written.

        Asked again after that moment, it waits a second one only if everything that it had then is settled, and nobody
        waits for a confirm: nothing waits longer than two.
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
