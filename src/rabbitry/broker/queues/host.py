"""The parts of a virtual host and of the store that a queue needs."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

from rabbitry.broker.store.batch import Wanted

if TYPE_CHECKING:
    from rabbitry.broker.queues.contents import Contents
    from rabbitry.broker.queues.message import Entry, Message
    from rabbitry.broker.queues.queue import Queue


class QueueJournal(Protocol):
    """Keeps the entries of queues that are stored."""

    def add(self, queue: "Contents", entry: "Entry") -> None:
        """Keep an entry, and its message."""

    def change(self, queue: "Contents", entry: "Entry") -> None:
        """Keep what changed of an entry."""

    def remove(self, queue: "Contents", entry: "Entry", *, is_moving: bool = False) -> None:
        """Delete an entry; where `is_moving`, with the commit of the message that replaces it."""

    def drop_tail(self, queue: "Contents", priority: int, after: int, before: int) -> None:
        """Delete the entries of one priority at positions above `after` and below `before`."""

    def load(self, queue: "Contents", wanted: Wanted) -> None:
        """Read entries; the queue's `loaded` is called with them."""


class QueueHost(Protocol):
    """The virtual host of a queue, as far as the queue needs it."""

    @property
    def name(self) -> str:
        """The name of the virtual host."""

    @property
    def journal(self) -> QueueJournal:
        """Where durable entries are kept."""

    def touch(self, queue: "Queue") -> None:
        """Note that a queue may have something to deliver."""

    def dispatch(self) -> None:
        """Deliver from every queue that was touched."""

    def dispatch_later(self) -> None:
        """Deliver from every queue that was touched, when it is the turn of what takes long."""

    def wait_for_turn(self, go_on: Callable[[], None]) -> None:
        """Call back when it is the turn of what takes long."""

    def work(self, steps: Iterator[None]) -> None:
        """Take the steps of a long operation, in turns with other clients."""

    def dead_letter(self, queue: "Queue", message: "Message", reason: str) -> None:
        """Publish a message that a queue gives up to the queue's exchange for dead letters."""

    def delete_queue(self, queue: "Queue") -> int:
        """Delete a queue, and return how many messages went with it."""
