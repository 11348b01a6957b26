"""What goes to a store, and what comes back: the interface that another store would have to serve."""

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
    """A reading of a queue's priority at positions above `after`; `load` numbers it.

    It ends after `limit` entries, or with the one that makes their bodies `most` bytes or more.
    """

    queue: int
    priority: int
    load: int
    after: int
    limit: int
    most: int


class Found(NamedTuple):
    """What a reading found, in order, and how many bytes their bodies have.

    `damaged` rows were skipped; `last_position` is that of the last row read.
    """

    entries: list[Entry]
    size: int
    last_position: int
    damaged: int
    damaged_bytes: int


class Dropped(NamedTuple):
    """Entries to delete: a whole queue, or of one priority those above `after` and below `before`."""

    queue: int
    priority: int | None = None
    after: int = -1
    before: int = 0

    def covers(self, entry: Entry, queue: int) -> bool:
        """Return whether an entry of a queue is among the dropped ones."""
        if queue != self.queue or self.priority is None:
            return queue == self.queue
        return entry.priority == self.priority and self.after < entry.position < self.before


@dataclass(slots=True)
class Batch:
    """Changes that become durable together. No entry that is added is also removed or dropped.

    records: (kind, key) → value, None to delete. added, changed, removed: entries, with the number of their
    queue. dropped: what goes without a look; the first `noted` of these are left over from an earlier batch, so the
    store knows of them. wanted: readings that see all of this. A queue's number is never used again, so nothing that
    is added can belong to a queue that is dropped in an earlier batch.
    """

    records: dict[tuple[str, str], Table | None] = field(default_factory=dict)
    added: dict[Entry, int] = field(default_factory=dict)
    changed: dict[Entry, int] = field(default_factory=dict)
    removed: dict[Entry, int] = field(default_factory=dict)
    dropped: list[Dropped] = field(default_factory=list)
    noted: int = 0
    wanted: list[Wanted] = field(default_factory=list)

    def is_empty(self) -> bool:
        """Return whether there is nothing to do."""
        return not (self.records or self.added or self.changed or self.removed or self.dropped or self.wanted)


class Backlog(NamedTuple):
    """What a store holds of one priority of a queue."""

    queue: int
    priority: int
    messages: int
    size: int
    last_position: int


class Contents(NamedTuple):
    """What a store held when it was opened. `clean`: whether it was closed in order before."""

    records: dict[tuple[str, str], Table]
    backlogs: list[Backlog]
    last_message: int
    clean: bool


class Unusable(NamedTuple):
    """A record that can't be used, and why."""

    kind: str
    key: str
    why: str


class StoreFull(RabbitryError):
    """The disk has no room for the rest of a batch, of which nothing was written."""


class Store(Protocol):
    """Keeps batches. All of it is called on one thread, never the event loop's.

    free, reusable: bytes that the disk has for others too, and those that the store would use first, as of the last
    call; the event loop reads them.
    """

    free: int
    reusable: int

    def open(self) -> Contents:
        """Open it. Raises StoreFailed: it is in use, of a newer version, or unreadable."""

    def apply(self, batch: Batch) -> list[Found]:
        """Make a batch durable and answer its readings, in order.

        Deletions that are too many for one transaction stay in `batch.dropped`, to be applied with the next batch. On
        StoreFull the batch holds only the changes that were not written.

        Raises:
            StoreFull: The disk is full.
            StoreFailed: The store failed; the text says why.
        """

    def set_aside(self, records: Sequence[Unusable]) -> None:
        """Move unusable records to a place where an operator finds them, and log each.

        Raises:
            StoreFailed: The store failed; the text says why.
        """

    def tidy(self, *, is_short: bool) -> None:
        """Free room that is not needed. Called every few seconds.

        Args:
            is_short: Whether the disk is short of room.

        Raises:
            StoreFailed: The store failed; the text says why.
        """

    def give_back(self) -> None:
        """Release an unused store in the state in which it was found: closed in order, or as after a crash."""

    def close(self) -> None:
        """Close it in order."""
