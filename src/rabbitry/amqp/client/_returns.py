"""An index of unconfirmed publishes by message id, to find the one that the broker returns."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Generic, Protocol, TypeVar


class Sent(Protocol):
    """The part of a publish that the index needs."""

    @property
    def message_id(self) -> bytes:
        """The message's id."""

    is_returned: bool


E = TypeVar("E", bound=Sent)


class ReturnIndex(Generic[E]):
    """The publishes of one link by message id, filled only once a message is returned: otherwise it costs nothing.

    Without it, each of thousands of returns would search the whole window.
    """

    def __init__(self, limit: int) -> None:
        """limit: number of publishes held before the settled ones are dropped."""
        self._limit = limit
        self._by_id: dict[bytes, deque[tuple[int, E]]] = {}
        self._size = 0
        self._next_tag = 1
        """First delivery tag that is not indexed yet."""

    def find(self, message_id: bytes, pending: Mapping[int, E], next_tag: int) -> Iterator[E]:
        """Yield the publishes in `pending` with this id that were not returned, oldest first.

        pending: the unconfirmed publishes by delivery tag, in rising order. next_tag: the tag of the next publish.
        """
        self._fill(pending, next_tag)
        same = self._by_id.get(message_id, ())
        while same and not _is_open(*same[0], pending):
            same.popleft()
            self._size -= 1
        return (entry for tag, entry in same if _is_open(tag, entry, pending))

    def _fill(self, pending: Mapping[int, E], next_tag: int) -> None:
        fresh = range(self._next_tag, next_tag)
        self._next_tag = next_tag
        if self._size + len(fresh) <= self._limit:
            self._add((tag, pending[tag]) for tag in fresh if tag in pending)
        else:
            self._by_id.clear()
            self._size = 0
            self._add(pending.items())

    def _add(self, entries: Iterable[tuple[int, E]]) -> None:
        for tag, entry in entries:
            self._by_id.setdefault(entry.message_id, deque()).append((tag, entry))
            self._size += 1


def _is_open(tag: int, entry: Sent, pending: Mapping[int, Sent]) -> bool:
    return not entry.is_returned and pending.get(tag) is entry
