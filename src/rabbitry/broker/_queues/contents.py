"""The ready messages of a queue, by priority: the first ones in memory, the rest possibly only in the store."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice
from typing import Any, Final

from rabbitry.broker._queues.arguments import Rules
from rabbitry.broker._queues.lane import Lane
from rabbitry.broker._store.batch import Found, StoredLane, Wanted
from rabbitry.broker._store.journal import Journal
from rabbitry.broker.message import Entry, Message

WINDOW: Final = 16_384
"""Messages of one lane kept in memory; a stored queue keeps the ones behind them only in the store.

A message of 200 bytes takes some 600 bytes there. A message that need not be read back saves a third of the CPU time
of its delivery (`make bench-broker`).
"""
WINDOW_BYTES: Final = 32 << 20
"""Bytes of bodies of one lane kept in memory."""
_AT_ONCE: Final = 4096
"""Messages read from the store at once: confirms wait meanwhile."""
_FIRST: Final = 131_072
_FIRST_BYTES: Final = 256 << 20
"""Messages, and bytes of bodies, that all lanes together read at a start; each reads at least one message."""
_FORGOTTEN_AT_ONCE: Final = 500
"""Messages purged in one step."""
_FREED_AT_ONCE: Final = 500


class Contents:
    """The ready messages of a queue, not taken by a consumer.

    id: its number in the store, 0 if it is not stored (it is not durable, or exclusive, or the broker keeps everything
    in memory). recovered_to: messages up to this position may have been delivered before a crash, so they count as
    redelivered.
    """

    __slots__ = (
        "_expiring",
        "_lane",
        "_lanes",
        "_unpublished",
        "id",
        "journal",
        "next_position",
        "ready",
        "ready_bytes",
        "recovered_to",
        "rules",
    )

    def __init__(self, journal: Journal, rules: Rules) -> None:
        self.journal: Journal = journal
        self.rules: Rules = rules
        self.id: int = 0
        self.recovered_to: int = -1
        self.ready: int = 0
        self.ready_bytes: int = 0
        self._lane = Lane(0)
        self._lanes = [self._lane]
        self.next_position: int = 0
        """The position of the next message that comes; it grows with each."""
        self._unpublished = 0
        """Number of positions not used by publishes: `published` excludes them."""
        self._expiring = False
        """Whether a message may have a time-to-live."""

    def __len__(self) -> int:
        """Return the number of ready messages."""
        return self.ready

    @property
    def published(self) -> int:
        """Number of messages published to the queue since it was declared or restored, without dead letters."""
        return self.next_position - self._unpublished

    def _append(self, lane: Lane, entry: Entry) -> None:
        """Append an entry to its lane, and to the store if it is to be kept."""
        message = entry.message
        size = len(message.body)
        self.ready += 1
        self.ready_bytes += size
        if self.id:
            if lane.tail or len(lane.ready) >= WINDOW or lane.size >= WINDOW_BYTES:
                lane.tail += 1
                self.journal.add(self, entry)
                return
            if message.persistent or entry.is_kept:
                self.journal.add(self, entry)
            lane.loaded_to = entry.position
        lane.ready.append(entry)
        lane.size += size

    def _lane_of(self, message: Message) -> Lane:
        highest = self.rules.max_priority
        if not highest or not message.priority:
            return self._lane
        priority = min(message.priority, highest)
        return self._lane_at(priority)

    def _lane_at(self, priority: int) -> Lane:
        for lane in self._lanes:
            if lane.priority == priority:
                return lane
        lane = Lane(priority)
        # A new list, since a caller that iterates over the old one may be requeueing a dead letter here.
        self._lanes = sorted([*self._lanes, lane], key=lambda known: known.priority, reverse=True)
        return lane

    def held(self) -> Iterator[Entry]:
        """Yield the ready entries in memory, in the order of delivery."""
        for lane in self._lanes:
            yield from lane.in_order()

    def first_held(self, most: int) -> Iterator[Entry]:
        """Return the first ready entries that are in memory now, as `held` does; the queue may change meanwhile."""
        found: list[Iterator[Entry]] = []
        left = most
        for lane in self._lanes:
            found.append(lane.first(left))
            left = max(0, left - len(lane.returned) - len(lane.ready))
        return chain.from_iterable(found)

    @property
    def is_loading(self) -> bool:
        """Whether entries are being read from the store."""
        return any(lane.is_loading for lane in self._lanes)

    def read_ahead(self) -> bool:
        """Read more of the store if there is room in memory. Return whether entries are being read."""
        for lane in self._lanes:
            if lane.tail:
                self._load_more(lane)
                return lane.is_loading
        return False

    def kept(self) -> Iterator[Entry]:
        """Yield the entries in memory that survive a restart if the queue is durable, in the same order."""
        return (entry for entry in self.held() if entry.message.persistent)

    def restore(self, entry: Entry) -> None:
        """Append an entry that this queue had before a restart."""
        entry.position = self.next_position
        self.next_position += 1
        self._unpublished += 1
        self._expiring = self._expiring or bool(entry.expires)
        self._append(self._lane_at(entry.priority), entry)

    def purge(self) -> tuple[int, Iterator[None]]:
        """Drop all ready messages. Return their number, and steps that the caller has to run.

        The steps remove them from memory and from the store, so the purge is durable with the writes of the last step.
        """
        count = self.ready
        gone: list[Iterator[Entry]] = []
        for lane in self._lanes:
            if lane.tail:
                self.journal.drop_range(self, lane.priority, lane.loaded_to, self.next_position, is_awaited=True)
                lane.loaded_to = self.next_position - 1
            gone.append(lane.clear())
        self.ready = self.ready_bytes = 0
        return count, self._forgetting(chain.from_iterable(gone))

    def _forgetting(self, gone: Iterator[Entry]) -> Iterator[None]:
        """Remove entries from the store, and from memory, in steps."""
        while some := list(islice(gone, _FORGOTTEN_AT_ONCE)):
            for entry in some:
                if entry.stored:
                    self.journal.remove(self, entry)
            yield

    # -- the store -------------------------------------------------------------------------------------

    def recover(self, stored: StoredLane) -> None:
        """Record the contents of the store."""
        lane = self._lane_at(stored.priority)
        lane.tail = stored.messages
        self.ready += stored.messages
        self.ready_bytes += stored.size
        self.next_position = self._unpublished = max(self.next_position, stored.last_position + 1)
        self._expiring = True  # some may have a time-to-live; checked with the first head

    def read_first(self, stored: StoredLane, among: int) -> None:
        """Read the first messages of a lane that was recovered. `among`: how many lanes do so now."""
        lane = self._lane_at(stored.priority)
        if lane.tail:  # dead letters that came since may have had all of it read, and the next ones are in memory
            self._load(lane, max(1, _FIRST // among), max(1, _FIRST_BYTES // among))

    def _load_more(self, lane: Lane) -> None:
        """Read ahead if half of the window is free."""
        if len(lane.ready) < WINDOW // 2 and lane.size < WINDOW_BYTES // 2:
            self._load(lane)

    def _load(self, lane: Lane, most: int = _AT_ONCE, most_bytes: int = WINDOW_BYTES) -> None:
        if not lane.is_loading:
            lane.is_loading = True
            lane.load += 1
            most, most_bytes = min(most, _AT_ONCE), min(most_bytes, WINDOW_BYTES)
            self.journal.load(self, Wanted(self.id, lane.priority, lane.load, lane.loaded_to, most, most_bytes))

    def loaded(self, wanted: Wanted, found: Found) -> None:
        """Add entries that were read from the store."""
        lane = self._lane_at(wanted.priority)
        if wanted.load != lane.load:
            return  # purged meanwhile
        lane.is_loading = False
        lane.tail -= len(found.entries) + found.damaged
        self.ready -= found.damaged
        self.ready_bytes -= found.damaged_bytes
        lane.loaded_to = max(lane.loaded_to, found.last_position)
        if found.entries and found.entries[0].position <= self.recovered_to:
            for entry in found.entries:
                if entry.position <= self.recovered_to:
                    entry.redelivered = True
        ready = self._put_first(lane, found.entries)
        lane.ready.extend(ready)
        lane.size += found.size if ready is found.entries else sum(len(entry.message.body) for entry in ready)

    def _put_first(self, lane: Lane, entries: list[Entry]) -> list[Entry]:
        """Put entries from the store that had been returned before a restart to the front. Return the others."""
        return entries

    def withdraw(self, entries: list[Entry]) -> None:
        """Remove entries for which the store had no room. Those delivered already stay with their consumers."""
        gone = set(entries)
        for entry in entries:
            entry.stored = False
        for lane in self._lanes:
            kept = [entry for entry in lane.ready if entry not in gone]
            lost = len(lane.ready) - len(kept)
            lost_bytes = sum(len(entry.message.body) for entry in lane.ready if entry in gone)
            self.ready_bytes -= lost_bytes
            lane.size -= lost_bytes
            lane.ready.clear()
            lane.ready.extend(kept)
            behind = [entry for entry in entries if entry.priority == lane.priority and entry.position > lane.loaded_to]
            lane.tail -= len(behind)
            self.ready_bytes -= sum(len(entry.message.body) for entry in behind)
            self.ready -= lost + len(behind)


def freeing(entries: list[Any]) -> Iterator[None]:
    """Free the elements of a list in steps: a million entries at once would take 0.3 s."""
    while entries:
        del entries[-_FREED_AT_ONCE:]
        yield
