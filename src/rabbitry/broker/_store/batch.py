"""The data exchanged with a store: the interface that another store would have to implement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from rabbitry.amqp.protocol.tables import Table
from rabbitry.broker.message import Entry
from rabbitry.exceptions import RabbitryError

DELETED: Final = "deleted"
"""Kind of the records of deleted queues, keyed by number; kept until all entries of the queue are deleted."""


class Wanted(NamedTuple):
    """A read of one priority of a queue at positions above `after`, numbered `load`.

    It ends after `limit` entries, or with the one that makes their bodies `most` bytes or more. It may end earlier.
    """

    queue: int
    priority: int
    load: int
    after: int
    limit: int
    most: int


class Found(NamedTuple):
    """The entries that a read found, in order, and the bytes of their bodies.

    `damaged` rows were skipped; `last_position` is that of the last row read.
    """

    entries: list[Entry]
    size: int
    last_position: int
    damaged: int
    damaged_bytes: int


class Dropped(NamedTuple):
    """Entries to delete: a whole queue, or those of one priority above `after` and below `before`.

    is_awaited: whether callbacks after the commit wait until the last of them is deleted.
    """

    queue: int
    priority: int | None = None
    after: int = -1
    before: int = 0
    is_awaited: bool = False

    def covers(self, entry: Entry, queue: int) -> bool:
        """Return whether an entry of a queue is among the dropped ones."""
        if queue != self.queue or self.priority is None:
            return queue == self.queue
        return entry.priority == self.priority and self.after < entry.position < self.before


@dataclass(slots=True)
class Batch:
    """Changes that become durable together. No added entry is also removed or dropped.

    records: (kind, key) → value, None to delete. added, changed, removed: entries, with the number of their queue.
    dropped: entries deleted without being loaded; the first `noted` of these are left over from an earlier batch, so
    the store knows of them. wanted: reads that see all of this. A queue's number is never used again, so no added entry
    can belong to a queue that an earlier batch dropped.
    """

    records: dict[tuple[str, str], Table | None] = field(default_factory=dict)
    added: dict[Entry, int] = field(default_factory=dict)
    changed: dict[Entry, int] = field(default_factory=dict)
    removed: dict[Entry, int] = field(default_factory=dict)
    dropped: list[Dropped] = field(default_factory=list)
    noted: int = 0
    wanted: list[Wanted] = field(default_factory=list)

    def is_empty(self) -> bool:
        """Return whether the batch is empty."""
        return not (self.records or self.added or self.changed or self.removed or self.dropped or self.wanted)


class StoredLane(NamedTuple):
    """The contents of a store for one priority of a queue."""

    queue: int
    priority: int
    messages: int
    size: int
    last_position: int


class Contents(NamedTuple):
    """The contents of a store when it was opened. `clean`: whether it was closed in order, and with all changes."""

    records: dict[tuple[str, str], Table]
    backlogs: list[StoredLane]
    last_message: int
    clean: bool


class Unusable(NamedTuple):
    """A record that can't be used, and the reason."""

    kind: str
    key: str
    why: str


class StoreFull(RabbitryError):
    """The disk has no room for the rest of a batch, of which nothing was written."""


class Store(Protocol):
    """Stores batches. All methods are called on one thread, never the event loop's.

    free, reusable: bytes free on the disk, for others too, and bytes in the store that it uses first, as of the last
    call; the event loop reads them.
    """

    free: int
    reusable: int

    def open(self) -> Contents:
        """Open it. Raises StoreFailed if it is in use, of a newer version, or unreadable."""

    def apply(self, batch: Batch) -> list[Found]:
        """Make a batch durable, and return the results of its first reads, in order: of at least one, if there are any.

        Deletions beyond the limit of one transaction stay in `batch.dropped`, to be applied with the next batch. After
        StoreFull the batch holds only the changes that were not written.

        Raises:
            StoreFull: The disk is full.
            StoreFailed: The store failed; the text says why.
        """

    def set_aside(self, records: Sequence[Unusable]) -> None:
        """Move unusable records to a file where an operator finds them, and log each.

        Raises:
            StoreFailed: The store failed; the text says why.
        """

    def tidy(self, *, is_short: bool) -> None:
        """Free unneeded disk space. Called every few seconds.

        Args:
            is_short: Whether the disk is short of space.

        Raises:
            StoreFailed: The store failed; the text says why.
        """

    def give_back(self) -> None:
        """Release an unused store as it was found: closed in order, or as after a crash."""

    def close(self, *, is_complete: bool = True) -> None:
        """Close it in order.

        Args:
            is_complete: Whether it has all changes. If not, some of its messages were delivered or acknowledged without
                a note of it, so the next start has to count all of them as redelivered.
        """
