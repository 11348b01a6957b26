"""The ready messages of a queue, by priority: the first ones in memory, the rest perhaps in the store alone."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice
from typing import Final

from rabbitry.broker._queues.arguments import Rules
from rabbitry.broker._queues.lane import Lane
from rabbitry.broker._store.batch import Found, Wanted
from rabbitry.broker._store.journal import Journal
from rabbitry.broker.message import Entry, Message

WINDOW: Final = 16_384
"""Messages of one lane that are kept in memory; behind them a stored queue keeps messages in the store alone.

A message of 200 bytes takes some 600 there. One that need not be read back saves a third of the CPU time that
delivering it costs (`make bench-broker`).
"""
WINDOW_BYTES: Final = 32 << 20
"""Bytes of bodies of one lane, likewise."""
_AT_ONCE: Final = 4096
"""Messages that are read from the store in one piece: confirms wait meanwhile."""
_FORGOTTEN_AT_ONCE: Final = 500
"""Messages purged in one step."""


class Contents:
    """The ready messages of a queue, which no consumer has taken.

    id: its number in the store, 0 if it is not stored (it is not durable, or exclusive, or the broker keeps
    everything in memory). recovered_to: up to this position messages may have been delivered before a crash, so they
    come as redelivered.
    """

    __slots__ = (
        "_expiring",
        "_lane",
        "_lanes",
        "_next_position",
        "_unpublished",
        "id",
        "journal",
        "ready",
        "ready_bytes",
        "recovered_to",
        "rules",
    )

    def __init__(self, journal: Journal, rules: Rules) -> None:
        self.journal = journal
        self.rules = rules
        self.id = 0
        self.recovered_to = -1
        self.ready = 0
        self.ready_bytes = 0
        self._lane = Lane(0)
        self._lanes = [self._lane]
        self._next_position = 0
        self._unpublished = 0
        """Positions that were not given to a publish: `published` leaves them out."""
        self._expiring = False
        """Whether a message may have a time-to-live."""

    def __len__(self) -> int:
        """Return the number of ready messages."""
        return self.ready

    @property
    def published(self) -> int:
        """The number of messages published to the queue since it was declared or restored, without dead letters."""
        return self._next_position - self._unpublished

    def _append(self, lane: Lane, entry: Entry) -> None:
        """Put an entry at the end of its lane, and into the store if it is to be kept."""
        message = entry.message
        size = len(message.body)
        self.ready += 1
        self.ready_bytes += size
        if self.id:
            if lane.tail or len(lane.ready) >= WINDOW or lane.size >= WINDOW_BYTES:
                lane.tail += 1
                self.journal.add(self, entry)
                return
            if message.persistent:
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
        # A new list, since somebody who goes over the old one may be giving up what comes back here as a dead letter.
        self._lanes = sorted([*self._lanes, lane], key=lambda known: known.priority, reverse=True)
        return lane

    def held(self) -> Iterator[Entry]:
        """Go over the entries in memory that are ready, in the order in which they would be delivered."""
        for lane in self._lanes:
            yield from (entry for _, entry in sorted(lane.returned))
            yield from lane.ready

    def kept(self) -> Iterator[Entry]:
        """Go over the entries in memory that a restart keeps if the queue is durable, in the same order."""
        return (entry for entry in self.held() if entry.message.persistent)

    def restore(self, entry: Entry) -> None:
        """Put an entry that this queue had before a restart at the end."""
        entry.position = self._next_position
        self._next_position += 1
        self._unpublished += 1
        self._expiring = self._expiring or bool(entry.expires)
        self._append(self._lane_at(entry.priority), entry)

    def purge(self) -> tuple[int, Iterator[None]]:
        """Drop all messages that are ready. Return how many they were, and steps that the caller has to take.

        The steps remove them from memory and from the store, so the purge is durable with what they wrote.
        """
        count = self.ready
        gone: list[Iterator[Entry]] = []
        for lane in self._lanes:
            if lane.tail:
                self.journal.drop_tail(self, lane.priority, lane.loaded_to, self._next_position)
                lane.loaded_to = self._next_position - 1
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

    def recover(self, priority: int, count: int, size: int, last_position: int) -> None:
        """Take note of what the store holds: `count` messages of one priority with `size` bytes in all."""
        lane = self._lane_at(priority)
        lane.tail = count
        self.ready += count
        self.ready_bytes += size
        self._next_position = self._unpublished = max(self._next_position, last_position + 1)
        self._expiring = True  # some may have a time-to-live; the first look at the head finds out
        self._load(lane)

    def _load_more(self, lane: Lane) -> None:
        """Read ahead if half of the window is free."""
        if len(lane.ready) < WINDOW // 2 and lane.size < WINDOW_BYTES // 2:
            self._load(lane)

    def _load(self, lane: Lane) -> None:
        if not lane.is_loading:
            lane.is_loading = True
            lane.load += 1
            self.journal.load(self, Wanted(self.id, lane.priority, lane.load, lane.loaded_to, _AT_ONCE, WINDOW_BYTES))

    def loaded(self, wanted: Wanted, found: Found) -> None:
        """Take entries that were read from the store."""
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
        lane.ready.extend(found.entries)
        lane.size += found.size

    def withdraw(self, entries: list[Entry]) -> None:
        """Take back entries for which the store had no room. What was delivered of them stays with its consumer."""
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
