"""The messages of a stream: their segments, which retention drops as a whole, and the latest ones in memory."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from rabbitry.broker.message import Entry

WINDOW: Final = 4096
WINDOW_BYTES: Final = 8 << 20
"""Messages, and bytes of their bodies, that a stored stream keeps in memory for consumers at its end."""
_SPARE: Final = 512
"""Messages above WINDOW at which the oldest are dropped from memory together."""
_DROPPED_AT_ONCE: Final = 100
"""Segments that are dropped in one step."""
OVERHEAD: Final = 128
"""Bytes counted for a message besides its body: its key, its header and its place in the store."""
_ARRIVAL: Final = float(1 << 40)
"""Added to the time of arrival, which is kept in `Entry.expires`.

If the record of a damaged store that says that these entries are a stream's is lost, they come into a classic queue,
where none of them must count as expired.
"""


def arrival_of(entry: Entry) -> float:
    """Return when a message came to the stream, in POSIX seconds."""
    return entry.expires - _ARRIVAL


def mark_arrival(entry: Entry, time: float) -> None:
    """Set when a message came to the stream, in POSIX seconds."""
    entry.expires = time + _ARRIVAL


@dataclass(slots=True)
class Segment:
    """A run of messages. first: its first offset. size: its bytes. latest: arrival of its last message.

    key: of its record in the store, "" if it has none.
    """

    first: int
    size: int = 0
    latest: float = 0.0
    key: str = ""


class StreamLog:
    """The messages of a stream. Offsets ascend; one may be missing if the store had no room for its message.

    segments: the oldest first; messages are appended to the last one. window: the latest messages, or all if the stream
    is not stored. has_all: whether it has all.
    """

    def __init__(self) -> None:
        self.segments: deque[Segment] = deque()
        self.window: list[Entry] = []
        self.has_all = True
        self.size = 0
        self._window_size = 0

    @property
    def first(self) -> int:
        """The first offset of the oldest segment; 0 for an empty stream."""
        return self.segments[0].first if self.segments else 0

    def append(self, entry: Entry, segment_size: int) -> Segment | None:
        """Append a message. Return the segment before if it was full, so that the message begins a new one."""
        full = self.segments[-1] if self.segments and self.segments[-1].size >= segment_size else None
        if full is not None or not self.segments:
            self.segments.append(Segment(entry.position))
        current = self.segments[-1]
        size = len(entry.message.body)
        current.size += size + OVERHEAD
        current.latest = arrival_of(entry)
        self.size += size + OVERHEAD
        self.window.append(entry)
        self._window_size += size
        if not self.has_all and (len(self.window) >= WINDOW + _SPARE or self._window_size > WINDOW_BYTES):
            self._shorten()
        return full

    def _shorten(self) -> None:
        """Drop the oldest messages from memory."""
        excess = max(0, len(self.window) - WINDOW)
        size = self._window_size - sum(len(entry.message.body) for entry in self.window[:excess])
        while size > WINDOW_BYTES and excess < len(self.window) - 1:
            size -= len(self.window[excess].message.body)
            excess += 1
        del self.window[:excess]
        self._window_size = size

    def recover(self, count: int, size: int) -> None:
        """Set the number of messages in the store, and the bytes of their bodies, after its segments were added."""
        self.size = size + count * OVERHEAD
        if self.segments:
            self.segments[-1].size = max(0, self.size - sum(segment.size for segment in list(self.segments)[:-1]))

    def has_old(self, most: int | None, oldest: float) -> bool:
        """Return whether `drop_old` would drop a segment."""
        return len(self.segments) > 1 and ((most is not None and self.size > most) or self.segments[0].latest < oldest)

    def drop_old(self, most: int | None, oldest: float) -> tuple[list[Segment], list[Entry]]:
        """Drop segments until `most` bytes are left, and those whose last message came before `oldest`.

        The last segment stays. If there are very many, only some are dropped. Return the dropped ones, and their
        messages that were in memory.
        """
        dropped: list[Segment] = []
        while len(dropped) < _DROPPED_AT_ONCE and self.has_old(most, oldest):
            head = self.segments.popleft()
            self.size -= head.size
            dropped.append(head)
        behind = self._place_of(self.first) if dropped else 0
        gone = self.window[:behind]
        self._window_size -= sum(len(entry.message.body) for entry in gone)
        del self.window[:behind]
        return dropped, gone

    def withdraw(self, gone: Collection[Entry]) -> None:
        """Remove messages of the segments that are left: the store had no room for them."""
        self.window = [entry for entry in self.window if entry not in gone]
        self._window_size = sum(len(entry.message.body) for entry in self.window)
        for entry in gone:
            size = len(entry.message.body) + OVERHEAD
            place = bisect_right(self.segments, entry.position, key=lambda segment: segment.first)
            self.segments[place - 1].size -= size
            self.size -= size

    def at(self, offset: int) -> Entry | None:
        """Return the first message in memory at or behind an offset; None if earlier ones may be in the store."""
        window = self.window
        if not window or offset < window[0].position:
            return window[0] if window and self.has_all else None
        place = offset - window[0].position
        if place >= len(window) or window[place].position != offset:
            place = self._place_of(offset)
        return window[place] if place < len(window) else None

    def following(self, offset: int) -> Entry | None:
        """Return the first message in memory behind an offset."""
        place = self._place_of(offset + 1)
        return self.window[place] if place < len(self.window) else None

    def since(self, time: float) -> int | None:
        """Return the offset of the first message that came at a time or later; None if it may be only in the store."""
        window = self.window
        if not self.has_all and (not window or arrival_of(window[0]) >= time):
            return None
        place = bisect_left(window, time, key=arrival_of)
        return window[place].position if place < len(window) else None if not window else window[-1].position + 1

    def _place_of(self, offset: int) -> int:
        return bisect_left(self.window, offset, key=lambda entry: entry.position)
