"""The messages of a delayed exchange that wait for their time. All of them are in memory."""

from __future__ import annotations

import contextlib
import functools
import heapq
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Final

from rabbitry.amqp.protocol.properties import decode_header, encode_header
from rabbitry.amqp.protocol.tables import Table
from rabbitry.broker._queues.arguments import Rules
from rabbitry.broker._queues.backlog import LONGEST_TURN
from rabbitry.broker._queues.contents import freeing
from rabbitry.broker._queues.expiry import LONGEST_WAIT
from rabbitry.broker._queues.queue import Queue, QueueHost
from rabbitry.broker._store.batch import Found, StoredLane, Wanted
from rabbitry.broker.message import Entry, Message

_READ_AT_ONCE: Final = 4096
_READ_BYTES: Final = 32 << 20
"""Messages, and bytes of bodies, that are read at once after a restart."""
_DUE: Final = float(1 << 40)
"""Added to the time at which a message is due, which is kept in `Entry.expires`.

If the exchange's record is lost with a damaged store, these entries come into a queue, where they must not expire.
"""
_LONGEST: Final = 2**32 - 1
"""The longest delay in milliseconds; a longer one is none, as in the plugin, whose timers end there."""


def delay_of(headers: Table | None) -> int:
    """Return a message's delay in milliseconds, 0 for none. A number may be text, as in the plugin."""
    value = (headers or {}).get("x-delay")
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal | str):
        return 0
    with contextlib.suppress(ValueError, OverflowError):
        delay = int(value)
        return delay if 0 < delay <= _LONGEST else 0
    return 0


class WaitingRoom(Queue):
    """The messages that wait, by the time at which they are due. No client sees it as a queue.

    publish: publishes a message whose delay is over to the queues that it is routed to now, then calls back.
    """

    __slots__ = ("_due", "_last", "_publish")

    def __init__(self, vhost: QueueHost, name: str, publish: Callable[[Message, Callable[[], None]], None]) -> None:
        self._publish = publish
        self._due: list[tuple[float, int, Entry]] = []
        self._last = -1
        """The last position that the store had after a restart."""
        super().__init__(vhost, name, durable=True, auto_delete=False, owner=None, arguments={}, rules=Rules())

    def push(self, message: Message) -> bool:
        """Keep a message until its delay is over."""
        entry = Entry(self.next_position, message)
        self.next_position += 1
        entry.expires = time.time() + delay_of(decode_header(message.header).headers) / 1000 + _DUE
        if self.id:
            entry.is_kept = True  # the plugin keeps transient messages, too
            self.journal.add(self, entry)
        self._wait_for(entry)
        return True

    def push_letter(self, letter: Message, *, surely: bool = False) -> None:
        """Keep a dead letter until its delay is over."""
        self.push(letter)

    def restore(self, entry: Entry) -> None:
        """Keep a message that waited before a restart without a store."""
        entry.position = self.next_position
        self.next_position += 1
        self._wait_for(entry)

    def _wait_for(self, entry: Entry) -> None:
        self.ready += 1
        heapq.heappush(self._due, (entry.expires, entry.position, entry))
        if self._due[0][2] is entry:
            self._set_timer()

    def _set_timer(self) -> None:
        if self._due:
            left = max(0.0, self._due[0][0] - _DUE - time.time())
            self._timer.start(min(left, LONGEST_WAIT), self._when_due)

    def _on_timer(self) -> None:
        self.dispatch()
        self._dispatcher.dispatch()

    def dispatch(self, now: float = 0.0) -> None:
        """Publish the messages that are due. If that takes long, the rest follows in a later turn."""
        ends_at = time.monotonic() + LONGEST_TURN
        while self._due and self._due[0][0] - _DUE <= time.time():
            _, _, entry = heapq.heappop(self._due)
            self.ready -= 1
            self._publish(entry.message, functools.partial(self._forget, entry, is_moving=True))
            if self.vhost.is_moving_late or self._is_over_time(ends_at):  # they wait with the dead letters
                self._when_due()
                return
        self._set_timer()

    def held(self) -> Iterator[Entry]:
        """Yield the messages that wait."""
        return (entry for _, _, entry in sorted(self._due))

    def kept(self) -> Iterator[Entry]:
        """Yield the messages that wait, all of which survive a restart."""
        return self.held()

    # -- the store -------------------------------------------------------------------------------------

    def recover(self, stored: StoredLane) -> None:
        """Record the last position in the store."""
        self.next_position, self._last = stored.last_position + 1, stored.last_position

    def read_first(self, stored: StoredLane, among: int) -> None:
        """Read all messages that the store has."""
        self._read(-1)

    def _read(self, after: int) -> None:
        self.journal.load(self, Wanted(self.id, 0, 0, after, _READ_AT_ONCE, _READ_BYTES))

    def loaded(self, wanted: Wanted, found: Found) -> None:
        """Keep the messages that were read, and read more."""
        if self.is_deleted:
            return
        for entry in found.entries:
            if entry.position <= self._last:  # the others came since, and are here already
                self._wait_for(entry)
        if wanted.after < found.last_position < self._last:
            self._read(found.last_position)

    def withdraw(self, entries: list[Entry]) -> None:
        """Remove messages for which the store had no room."""
        gone = set(entries)
        for entry in entries:
            entry.stored = False
        self._due = [due for due in self._due if due[2] not in gone]
        heapq.heapify(self._due)
        self.ready = len(self._due)

    def delete(self) -> int:
        """Drop all messages that wait: their exchange is deleted."""
        due, self._due = self._due, []
        self.vhost.work(freeing(due))
        return super().delete()


def after_delay(message: Message) -> Message:
    """Return a message whose delay is over: its header `x-delay` is negated, so that it is not delayed again."""
    properties = decode_header(message.header)
    headers = dict(properties.headers or {})
    headers["x-delay"] = -delay_of(headers)
    late = message.again()
    late.persistent = properties.delivery_mode == 2  # the store has every message that waits as one to keep
    late.header = encode_header(properties._replace(headers=headers), len(message.body))
    return late
