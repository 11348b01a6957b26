"""Streams: consumers read without taking anything away, each from the offset it chose (RabbitMQ's docs/streams).

A stream is appended to, and shortened by whole segments. Consumers get messages once they are committed; those at its
end are served from memory, others from the store. In this broker a stream has a single member.
"""

from __future__ import annotations

import struct
import time
from collections import deque
from collections.abc import Collection, Iterator
from typing import ClassVar, Final

from rabbitry.amqp.protocol.constants import Reply
from rabbitry.amqp.protocol.properties import (
    FLAG_CONTENT_ENCODING,
    FLAG_CONTENT_TYPE,
    FLAG_DELIVERY_MODE,
    FLAG_HEADERS,
    decode_header,
    encode_header,
)
from rabbitry.amqp.protocol.tables import FieldValue, Table, TaggedInt, encode_table
from rabbitry.broker._errors import not_implemented, precondition_failed
from rabbitry.broker._policies import Policy
from rabbitry.broker._queues.backlog import LONGEST_TURN
from rabbitry.broker._queues.contents import freeing
from rabbitry.broker._queues.queue import Queue, Subscription
from rabbitry.broker._queues.stream_filter import is_bad_value, parse_filter
from rabbitry.broker._queues.stream_log import OVERHEAD, Segment, StreamLog, arrival_of, mark_arrival
from rabbitry.broker._queues.stream_reader import READ_AT_ONCE, READ_BYTES, Offset, Reader, Search, Since, parse_offset
from rabbitry.broker._queues.turns import QueueConsumer
from rabbitry.broker._store.batch import Found, StoredLane, Wanted
from rabbitry.broker.compat import Release
from rabbitry.broker.message import Entry, Message
from rabbitry.exceptions import ProtocolViolation

SEGMENT: Final = "segment"
"""Kind of the records of segments in the store."""
_SEGMENT_SIZE: Final = 500_000_000
_IN_A_ROW: Final = 256
"""Deliveries to one consumer before the next one has its turn."""
_GONE: Final = Message(b"", b"", b"", persistent=True)
"""Takes the place of a delivered message until its delivery is settled: the stream keeps the message itself."""
_OFFSET: Final = encode_table({"x-stream-offset": TaggedInt(0, b"l")})[:-8]
_LONG: Final = struct.Struct(">q")
_FLAGS: Final = struct.Struct(">H")
_MORE_FLAGS: Final = 1
"""Bit of the flags: another word of flags follows."""


class Stream(Queue):
    """A stream. `ready` counts its messages, whoever has read them."""

    __slots__ = ("_batches", "_begins", "_is_retaining", "_log", "_number", "_readers", "_reads")
    has_exclusive_consumers: ClassVar[bool] = False

    def _set_up(self) -> None:
        self._log = StreamLog()
        self._readers: dict[QueueConsumer, Reader] = {}
        self._reads: dict[int, QueueConsumer] = {}
        """The number of each pending read → the consumer that it is for."""
        self._number = 0
        self._batches: deque[tuple[int, int]] = deque()
        """Numbers of the store's batches that are not committed, each with the first offset appended to it."""
        self._is_retaining = False
        self._begins: int | None = 0
        """The first offset that retention has left; None if an older version stored the stream, which noted only
        segments."""

    # -- refusals --------------------------------------------------------------------------------------

    @property
    def declared_counts(self) -> tuple[int, int]:
        """The number of messages, and none of consumers, as RabbitMQ answers for a stream."""
        return len(self), 0

    @property
    def unsettled(self) -> int:
        """None: what a consumer has not settled yet is in the stream, and counted there."""
        return 0

    @property
    def refused_of_consumers(self) -> tuple[str, ...]:
        """The arguments of consumers that a stream refuses."""
        more = ("x-cancel-on-ha-failover",) if self.vhost.release.checks_mirroring else ()
        return ("x-priority", *more)

    def check_consumer(self, wanted: Subscription) -> None:
        """Refuse an invalid offset, and a consumer that does not acknowledge, or has no prefetch of its own."""
        parse_offset(wanted.arguments.get("x-stream-offset", "next"), self.where)
        parse_filter(wanted.arguments, self.vhost.release)
        noun = self.vhost.release.stream_noun
        if not wanted.prefetch:
            named = f"stream {self.where}" if noun == "stream" else f"'{self.where}'"
            raise precondition_failed(f"consumer prefetch count is not set for {named}")
        if wanted.no_ack:
            raise not_implemented(f"automatic acknowledgement not supported by {noun} {self.where}")
        if wanted.shares_prefetch:
            raise not_implemented(f"{self.where} does not support global qos")

    def check_get(self) -> None:
        """Refuse basic.get (540)."""
        raise not_implemented(f"basic.get not supported by stream queues {self.where}")

    def check_return(self) -> None:
        """Refuse to take deliveries back (540) in releases whose streams do not."""
        if not self.is_deleted and not self.vhost.release.returns_to_streams:
            raise not_implemented(f"basic.nack and basic.reject not supported by stream queues {self.where}")

    def check_purge(self) -> None:
        """Refuse queue.purge (540)."""
        raise not_implemented(f"queue.purge not supported by stream queues {self.where}")

    def check_delete(self, *, if_unused: bool, if_empty: bool) -> None:
        """Accept: RabbitMQ ignores the conditions."""

    # -- appending -------------------------------------------------------------------------------------

    def push(self, message: Message) -> bool:
        """Append a message. It is delivered once it is committed.

        Raises 541, as RabbitMQ does, if it has a value for filters that is not text.
        """
        if self.vhost.release.has_stream_filters and is_bad_value(message.header):
            raise ProtocolViolation(Reply.INTERNAL_ERROR, "INTERNAL_ERROR")
        return self._put_behind(message)

    def _put_behind(self, message: Message) -> bool:
        entry = Entry(self.next_position, message)
        mark_arrival(entry, time.time())
        self.next_position += 1
        self._append_entry(entry)
        return True

    def push_letter(self, letter: Message, *, surely: bool = False) -> None:
        """Append a message of the broker's own. In some releases, streams drop those that nobody waits for."""
        if not surely and not self.vhost.release.streams_take_letters:
            return
        self._put_behind(letter)
        self._unpublished += 1
        self._dispatcher.touch(self)

    def restore(self, entry: Entry) -> None:
        """Append a message that this stream had before a restart without a store, at its old offset."""
        self.next_position = self._unpublished = entry.position + 1
        self._append_entry(entry)

    def _append_entry(self, entry: Entry) -> None:
        size = len(entry.message.body)
        self.ready += 1
        self.ready_bytes += size
        if self.id:
            self._log.has_all = False
            entry.is_kept = True  # a stream stores every message
            self.journal.add(self, entry)
            self._await_commit(entry.position)
        is_first = not self._log.segments
        full = self._log.append(entry, self.rules.segment_size or _SEGMENT_SIZE)
        if full is not None:
            self._store_segment(full)
        if full is not None or is_first:
            self._store_segment(self._log.segments[-1])
            self._retain()

    def _await_commit(self, offset: int) -> None:
        """Deliver the messages of the store's gathering batch once it is committed."""
        number = self.journal.gathering
        if not self._batches or self._batches[-1][0] != number:
            self._batches.append((number, offset))
            self.journal.after_commit(self._on_commit)

    def _on_commit(self) -> None:
        if self._batches and not self.is_deleted:
            self._batches.popleft()
            self._dispatcher.touch(self)
            self._dispatcher.dispatch_soon()

    @property
    def _end(self) -> int:
        """The offset behind the last committed message."""
        return self._batches[0][1] if self._batches else self.next_position

    def withdraw(self, entries: list[Entry]) -> None:
        """Remove messages for which the store had no room; their offsets are not used again."""
        for entry in entries:
            entry.stored = False
        gone = {entry for entry in entries if entry.position >= self._log.first}  # retention may have dropped others
        self._log.withdraw(gone)
        self.ready -= len(gone)
        self.ready_bytes -= sum(len(entry.message.body) for entry in gone)

    # -- segments and retention ------------------------------------------------------------------------

    def follow(self, policy: Policy | None, operator_policy: Policy | None) -> None:
        """Apply arguments and policies from now on. Segments beyond the new limits are dropped at once."""
        super().follow(policy, operator_policy)
        self._retain()

    def _retain(self) -> None:
        """Drop the oldest segments beyond the limits on bytes and age; the last one stays. Many go in steps."""
        if not self._is_retaining and self._log.has_old(*self._limits_of_log()):
            self._is_retaining = True
            self.vhost.work(self._retaining())

    def _limits_of_log(self) -> tuple[int | None, float]:
        """Return the most bytes, and the time since when messages are kept."""
        rules = self.rules
        return rules.max_length_bytes, 0.0 if rules.max_age is None else time.time() - rules.max_age / 1000

    def _retaining(self) -> Iterator[None]:
        while not self.is_deleted and self._log.has_old(*self._limits_of_log()):
            first = self._log.first
            segments, gone = self._log.drop_old(*self._limits_of_log())
            for segment in segments:
                if segment.key:
                    self.journal.put(SEGMENT, segment.key, None)
            self._begins = self._log.first
            if self.id:
                self.vhost.store_queue(self)
                self.journal.drop_range(self, 0, first - 1, self._log.first)
            self._count()
            yield from freeing(gone)
        self._is_retaining = False

    def _count(self) -> None:
        self.ready = self.next_position - self._log.first
        self.ready_bytes = max(0, self._log.size - OVERHEAD * self.ready)

    @property
    def more_of_record(self) -> Table:
        """The first offset that is left."""
        return {} if self._begins is None else {"first": self._begins}

    def read_record(self, value: Table) -> None:
        """Read the first offset that is left."""
        first = value.get("first")
        self._begins = first if isinstance(first, int) else None

    def _store_segment(self, segment: Segment) -> None:
        if self.id:
            segment.key = segment_key(self.id, segment.first)
            place: Table = {"vhost": self.vhost.name, "name": self.name, "queue": self.id}
            content: Table = {"first": segment.first, "size": segment.size, "latest": segment.latest}
            self.journal.put(SEGMENT, segment.key, {**place, **content})

    def restore_segment(self, first: int, size: int, latest: float) -> None:
        """Add a segment from its record in the store; the oldest comes first."""
        # The store may have had no room for the segment's messages.
        self.next_position = self._unpublished = max(self.next_position, first)
        self._log.segments.append(Segment(first, size, latest, segment_key(self.id, first)))

    def adopt_segment(self, first: int, size: int, latest: float) -> None:
        """Add a segment as `restore_segment` does, and store it anew: the stream's own record was lost."""
        self.restore_segment(first, size, latest)
        self._store_segment(self._log.segments[-1])

    def recover(self, stored: StoredLane) -> None:
        """Record the contents of the store."""
        self.next_position = self._unpublished = max(self.next_position, stored.last_position + 1)
        self._log.has_all = False
        if not self._log.segments:  # its record was damaged
            self.restore_segment(self._begins or 0, stored.size, 0.0)
        elif self._begins is not None and self._begins < self._log.first:  # so were those of the oldest segments
            self._log.segments.appendleft(Segment(self._begins, latest=self._log.segments[0].latest))
            self._store_segment(self._log.segments[0])
        self._log.recover(stored.messages, stored.size)
        self._log.segments[-1].latest = time.time()
        first = self._log.first
        if first:
            # A crash may have left some of the dropped messages.
            self.journal.drop_range(self, stored.priority, -1, first)
        self._count()
        self._retain()

    def read_first(self, stored: StoredLane, among: int) -> None:
        """Do nothing: messages are read when a consumer asks for them."""

    def held(self) -> Iterator[Entry]:
        """Yield the messages in memory: the latest ones, or all if the stream is not stored."""
        return iter(self._log.window)

    def first_held(self, most: int) -> Iterator[Entry]:
        """Return the first messages in memory; the stream may change meanwhile."""
        return iter(self._log.window[:most])

    def kept(self) -> Iterator[Entry]:
        """Yield the messages in memory, all of which survive a restart."""
        return self.held()

    # -- consumers -------------------------------------------------------------------------------------

    def add_consumer(self, consumer: QueueConsumer) -> None:
        """Add a consumer at the offset that its arguments name."""
        start = parse_offset(consumer.arguments.get("x-stream-offset", "next"), self.where)
        reader = self._readers[consumer] = self._reader_at(start)
        reader.filter = parse_filter(consumer.arguments, self.vhost.release)
        super().add_consumer(consumer)

    def _reader_at(self, start: Offset) -> Reader:
        first, end = self._log.first, self._end
        if isinstance(start, Since):
            found = self._log.since(start.time)
            reader = Reader(end if found is None else min(found, end))
            if found is None and not self._log.has_all:
                window = self._log.window
                search = Search(start.time, first, min(window[0].position, end) if window else end)
                reader.position = search.low
                reader.search = search if search.low < search.high else None
            return reader
        named = {"first": first, "last": max(first, end - 1), "next": self.next_position}
        return Reader(named[start] if isinstance(start, str) else max(start, first))

    def remove_consumer(self, consumer: QueueConsumer) -> None:
        """Remove a consumer, and forget its place."""
        self._readers.pop(consumer, None)
        super().remove_consumer(consumer)

    # -- delivering ------------------------------------------------------------------------------------

    def dispatch(self, now: float = 0.0) -> None:
        """Deliver to each consumer with room from its place. If that takes long, the rest follows in a later turn."""
        if self._goes_on or self.is_deleted:
            return
        ends_at = time.monotonic() + LONGEST_TURN
        is_first = True
        for circle in self.turns.circles:
            for _ in range(len(circle)):
                if not is_first and time.monotonic() > ends_at:
                    self._go_on_later()
                    return
                is_first = False
                consumer = circle[0]
                circle.rotate(-1)
                if self._deliver_to(consumer, ends_at):
                    self._go_on_later()
                elif consumer.parked:
                    circle.pop()

    def _deliver_to(self, consumer: QueueConsumer, ends_at: float) -> bool:
        """Deliver to a consumer while it has room; park it if it has none. Return whether there is more for it.

        ends_at: when other work gets its turn: headers of any length are decoded for the offset and a filter.
        """
        reader = self._readers[consumer]
        for _ in range(_IN_A_ROW):
            if not consumer.has_room():
                consumer.park()
                return False
            entry = self._next_of(consumer, reader)
            if entry is None:
                return False
            if reader.filter is None or reader.filter.takes(entry.message.header):
                self._send(consumer, entry)
            if time.monotonic() > ends_at:
                break
        return True

    def _next_of(self, consumer: QueueConsumer, reader: Reader) -> Entry | None:
        """Take a consumer's next message; None if it has all, or if it is being read from the store."""
        if reader.read:
            return reader.read.popleft()
        if reader.search is not None:
            self._read(consumer, reader, Wanted(self.id, 0, 0, reader.search.middle - 1, 1, 1))
            return None
        if reader.position >= self._end:
            return None
        reader.position = max(reader.position, self._log.first)
        entry = self._log.at(reader.position)
        if entry is None:
            self._read(consumer, reader, Wanted(self.id, 0, 0, reader.position - 1, READ_AT_ONCE, READ_BYTES))
            return None
        if entry.position >= self._end:
            return None
        reader.position = entry.position + 1
        return entry

    def _send(self, consumer: QueueConsumer, entry: Entry) -> None:
        message = entry.message
        header = with_offset(message, entry.position, self.vhost.release)
        sent = Entry(entry.position, Message(message.destination, header, message.body, persistent=True))
        consumer.deliver(sent)
        if self.vhost.firehose is not None:
            self.vhost.firehose.delivered(self.name, consumer.channel, sent)
        sent.message = _GONE

    def _read(self, consumer: QueueConsumer, reader: Reader, wanted: Wanted) -> None:
        if not reader.is_reading:
            reader.is_reading = True
            self._number = reader.number = self._number + 1
            self._reads[reader.number] = consumer
            self.journal.load(self, wanted._replace(load=reader.number))

    def loaded(self, wanted: Wanted, found: Found) -> None:
        """Continue the search or the deliveries of the consumer that the messages were read for."""
        consumer = self._reads.pop(wanted.load)
        reader = self._readers.get(consumer)
        if reader is None or reader.number != wanted.load:
            return  # the consumer has ended
        reader.is_reading = False
        if reader.search is not None:
            self._search_on(reader, reader.search, found)
        else:
            reader.read.extend(found.entries)
            if found.last_position > wanted.after:
                reader.position = found.last_position + 1
            else:  # the store lacks the messages up to the next one in memory, or had no room for the last ones
                following = self._log.following(wanted.after)
                reader.position = self._end if following is None else following.position
        self._dispatcher.touch(self)
        self._dispatcher.dispatch_soon()

    def _search_on(self, reader: Reader, search: Search, found: Found) -> None:
        """Halve the range of a search."""
        entry = found.entries[0] if found.entries else None
        if entry is None and found.damaged:
            search.low = found.last_position + 1
        elif entry is None or entry.position >= search.high or arrival_of(entry) >= search.time:
            search.high = search.middle
        else:
            search.low = entry.position + 1
        if search.low >= search.high:
            reader.position = search.low
            reader.search = None

    # -- settling: whatever the outcome, a settled delivery only makes room for another one -----------

    def settled(self, entry: Entry) -> None:
        """Count a settled delivery."""
        self.settlements += 1

    def rejected(self, entry: Entry) -> None:
        """Count a rejected delivery."""
        self.given_back += 1

    def requeue(self, entry: Entry, *, asked: bool = True) -> None:
        """Count a returned delivery."""
        self.given_back += 1

    # -- the end ---------------------------------------------------------------------------------------

    def delete(self) -> int:
        """End the stream. Return 0, as RabbitMQ does whatever it held."""
        log, self._log = self._log, StreamLog()
        super().delete()
        self._readers.clear()
        self.vhost.work(self._forgetting_log(log.segments, log.window))
        return 0

    def _forgetting_log(self, segments: Collection[Segment], window: list[Entry]) -> Iterator[None]:
        for segment in segments:
            if segment.key:
                self.journal.put(SEGMENT, segment.key, None)
                yield
        yield from freeing(window)


def segment_key(number: int, first: int) -> str:
    """Return the key of a segment's record, given the number of its stream and its first offset."""
    return f"{number}/{first:020}"


def with_offset(message: Message, offset: int, release: Release) -> bytes:
    """Return a message's content header with its offset in the header `x-stream-offset`."""
    header = message.header
    (flags,) = _FLAGS.unpack_from(header, 12)
    if flags & (FLAG_HEADERS | _MORE_FLAGS):
        return _reencoded(message, offset, release)
    place = 14
    for flag in (FLAG_CONTENT_TYPE, FLAG_CONTENT_ENCODING):
        if flags & flag:
            place += 1 + header[place]
    mode = b"\x01" if release.streams_set_mode and not flags & FLAG_DELIVERY_MODE else b""
    flags |= FLAG_HEADERS | (FLAG_DELIVERY_MODE if mode else 0)
    return b"".join(
        (header[:12], _FLAGS.pack(flags), header[14:place], _OFFSET, _LONG.pack(offset), mode, header[place:])
    )


def _reencoded(message: Message, offset: int, release: Release) -> bytes:
    properties = decode_header(message.header)
    headers = properties.headers or {}
    kept = {name: value for name, value in headers.items() if _is_kept(name, value, message, release)}
    changed = properties._replace(headers={**kept, "x-stream-offset": TaggedInt(offset, b"l")})
    if release.streams_set_mode and changed.delivery_mode is None:
        changed = changed._replace(delivery_mode=1)
    return encode_header(changed, len(message.body))


def _is_kept(name: str, value: FieldValue, message: Message, release: Release) -> bool:
    """Return whether RabbitMQ, which stores streams in the format of AMQP 1.0, keeps a header."""
    if not isinstance(value, dict | list):
        return True
    is_foreign = name == "x-death" and message.has_foreign_deaths
    return release.streams_keep_nested and (name == "CC" or (name.startswith("x-") and not is_foreign))
