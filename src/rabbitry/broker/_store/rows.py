"""Rows of the store: statements that write, delete and read messages and records on an open database.

The event loop waits for the interpreter's lock while the store's thread runs Python code, so the work per message is
kept small (`make bench-broker` shows it): each statement writes many rows and releases the lock once; exchange, routing
key, header and body are one value with one checksum; and it is bound as a bytearray, since the sqlite3 module looks up
an adapter for every bytes object (0.3 µs instead of 0.07).
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice, takewhile
from pathlib import Path
from sqlite3 import Connection
from typing import Final
from zlib import crc32

from rabbitry.amqp.protocol.properties import FLAG_PRIORITY, decode_header, encode_header
from rabbitry.amqp.protocol.tables import Table, encode_table
from rabbitry.broker._store.batch import DELETED, Batch, Dropped, Found, Wanted
from rabbitry.broker._store.schema import BODY_KEY, ENTRY_KEY, SHARED, record_checksum
from rabbitry.broker.message import Entry, Message
from rabbitry.exceptions import ProtocolViolation

_logger = logging.getLogger(__name__)
TRANSIENT: Final = 2
_REDELIVERED: Final = 1
_DELIVERIES: Final = 3
"""Bits of an entry's flags; the delivery count is above them."""
_FOREIGN_DEATHS: Final = 1 << 40
"""Bit of an entry's flags, above the delivery count: a client sent the message's `x-death`."""
_HIDDEN_KEYS: Final = 1 << 41
"""Bit of an entry's flags: the stored header has the message's hidden keys as its BCC header."""
_RETURNS: Final = 42
"""Bits of an entry's flags above all others: the run of returns in which it came back to a quorum queue."""
MOST_RETURNS: Final = (1 << 63 - _RETURNS) - 1
"""The highest number of such a run."""
_ROWS: Final = 128
_LONG_RUN: Final = 32
"""Length of a run of consecutive numbers from which on a range finds them faster than a list."""

_Row = tuple[int, int, int, int, int, float, int, int]
Place = tuple[int, int, int]
"""An entry's queue, priority and position."""


def write(connection: Connection, batch: Batch) -> None:
    """Write a batch's records and its removed, added and changed entries, and record the queues that it deletes."""
    # Deleting first frees pages: a message that moves between queues then needs no more space.
    write_records(connection, batch.records)
    deleted = [str(dropped.queue) for dropped in batch.dropped[batch.noted :] if dropped.priority is None]
    write_records(connection, {(DELETED, number): {} for number in deleted})
    if batch.removed:
        remove(connection, batch.removed)
    if batch.added:
        _insert(connection, batch.added)
    if batch.changed:
        _update(connection, batch.changed)


def write_records(connection: Connection, records: dict[tuple[str, str], Table | None]) -> None:
    """Write records; those whose value is None are deleted."""
    gone: defaultdict[str, list[str]] = defaultdict(list)
    for (kind, key), value in records.items():
        if value is None:
            gone[kind].append(key)
    for kind, keys in gone.items():
        _forget_records(connection, kind, keys)
    kept = (_record_row(kind, key, value) for (kind, key), value in records.items() if value is not None)
    _insert_rows(connection, "records", 4, kept, "INSERT OR REPLACE")


def _record_row(kind: str, key: str, value: Table) -> tuple[str, str, bytes, int]:
    packed = encode_table(value)
    return kind, key, packed, record_checksum(kind, key, packed)


def _forget_records(connection: Connection, kind: str, keys: Sequence[str]) -> None:
    for start in range(0, len(keys), _ROWS):
        some = keys[start : start + _ROWS]
        marks = ", ".join("?" * len(some))
        connection.execute(f"DELETE FROM records WHERE kind = ? AND key IN ({marks})", (kind, *some))  # noqa: S608 # marks


def _insert(connection: Connection, added: dict[Entry, int]) -> None:
    refs: dict[Message, int] = {}
    for entry in added:
        message = entry.message
        refs[message] = refs.get(message, 0) + 1 if message.copies > 1 else 1
    _insert_rows(connection, "bodies", 4, (_body_row(message, count) for message, count in refs.items()))
    entries: Iterable[tuple[Entry, int]] = added.items()
    if len(set(added.values())) > 1:
        # Sorted by queue, each page of the table is looked up once: a fanout's rows then take two thirds of the CPU
        # time.
        entries = sorted(entries, key=_place)
    _insert_rows(connection, "entries", 8, (_entry_row(entry, queue) for entry, queue in entries))


def _place(added: tuple[Entry, int]) -> Place:
    entry, queue = added
    return queue, entry.priority, entry.position


def _insert_rows(
    connection: Connection, table: str, columns: int, rows: Iterator[tuple[object, ...]], verb: str = "INSERT"
) -> None:
    one = "(" + ", ".join("?" * columns) + ")"
    while chunk := list(islice(rows, _ROWS)):
        many = f"{verb} INTO {table} VALUES " + ", ".join([one] * len(chunk))
        connection.execute(many, list(chain.from_iterable(chunk)))


def _update(connection: Connection, changed: dict[Entry, int]) -> None:
    """Write the flags of entries, each given with its queue's number."""
    positions: defaultdict[tuple[int, int, int], list[int]] = defaultdict(list)
    for entry, queue in changed.items():
        positions[_flags(entry), queue, entry.priority].append(entry.position)
    for place, numbers in positions.items():
        for condition, values in _conditions(numbers):
            connection.execute(
                f"UPDATE entries SET flags = ? WHERE queue = ? AND priority = ? AND position {condition}",  # noqa: S608 # marks
                (*place, *values),
            )


def remove(connection: Connection, removed: dict[Entry, int]) -> None:
    """Delete entries, each given with its queue's number, and the bodies that no other entry refers to."""
    positions: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
    own: list[int] = []
    shared: list[int] = []
    for entry, queue in removed.items():
        positions[queue, entry.priority].append(entry.position)
        message = entry.message
        (own if message.copies < 2 else shared).append(message.id)
    for place, numbers in positions.items():
        for condition, values in _conditions(numbers):
            connection.execute(
                f"DELETE FROM entries WHERE queue = ? AND priority = ? AND position {condition}",  # noqa: S608 # marks
                (*place, *values),
            )
    for condition, values in _conditions(own):
        connection.execute(f"DELETE FROM bodies WHERE id {condition}", values)  # noqa: S608 # marks
    _release(connection, shared)


def _release(connection: Connection, bodies: list[int]) -> None:
    """Decrement the reference counts of bodies, given once for each entry, and delete those that reach 0."""
    by_count: defaultdict[int, list[int]] = defaultdict(list)
    for body, count in Counter(bodies).items():
        by_count[count].append(body)
    for count, numbers in by_count.items():
        for condition, values in _conditions(numbers):
            connection.execute(f"UPDATE bodies SET refs = refs - ? WHERE id {condition}", (count, *values))  # noqa: S608 # marks
            connection.execute(f"DELETE FROM bodies WHERE id {condition} AND refs <= 0", values)  # noqa: S608 # marks


def drop(connection: Connection, waiting: list[Dropped], most: int) -> int:
    """Delete entries of the first item of `waiting`, and remove the item when none is left. Return their number.

    Queues at the front that have no entries are removed together, in a few statements.
    """
    if _drop_empty(connection, waiting):
        return 0
    queue, priority, after, before, _ = waiting[0]
    condition, values = "queue = ?", [queue]
    if priority is not None:
        condition += " AND priority = ? AND position > ? AND position < ?"
        values += [priority, after, before]
    places = f"SELECT priority, position FROM entries WHERE {condition} ORDER BY priority, position"  # noqa: S608 # see above
    last = connection.execute(f"{places} LIMIT 1 OFFSET ?", (*values, most - 1)).fetchone()
    if last is None:
        del waiting[0]
        if priority is None:
            _forget_records(connection, DELETED, [str(queue)])
    elif priority is None:
        condition, values = f"{condition} AND (priority, position) <= (?, ?)", [*values, *last]
    else:  # with `position < before`, SQLite would test the pair for each entry up to that one
        values[-1] = last[1] + 1
    return delete_entries(connection, condition, values)


def _drop_empty(connection: Connection, waiting: list[Dropped]) -> int:
    """Remove some of the queues without entries from the front of `waiting`. Return their number."""
    queues = [dropped.queue for dropped in takewhile(lambda dropped: dropped.priority is None, waiting[:_ROWS])]
    if len(queues) < 2:
        return 0
    numbers = ", ".join(["(?)"] * len(queues))
    found = f"SELECT column1 FROM (VALUES {numbers}) WHERE NOT EXISTS (SELECT 1 FROM entries WHERE queue = column1)"  # noqa: S608 # marks
    empty = {queue for (queue,) in connection.execute(found, queues)}
    waiting[: len(queues)] = [dropped for dropped in waiting[: len(queues)] if dropped.queue not in empty]
    _forget_records(connection, DELETED, [str(queue) for queue in empty])
    return len(empty)


def delete_entries(connection: Connection, condition: str, values: Sequence[int]) -> int:
    """Delete entries by an SQL condition, and the bodies that no other entry refers to. Return their number."""
    shared = f"SELECT body, COUNT(*) AS count FROM entries WHERE {condition} AND flags & {SHARED} GROUP BY body"  # noqa: S608 # see above
    counted = f"UPDATE bodies SET refs = refs - gone.count FROM ({shared}) AS gone WHERE id = gone.body"  # noqa: S608 # see above
    if connection.execute(counted, values).rowcount:
        unused = f"DELETE FROM bodies WHERE refs <= 0 AND id IN (SELECT body FROM ({shared}))"  # noqa: S608 # see above
        connection.execute(unused, values)
    own = f"SELECT body FROM entries WHERE {condition} AND NOT flags & {SHARED}"  # noqa: S608 # see above
    connection.execute(f"DELETE FROM bodies WHERE id IN ({own})", values)  # noqa: S608 # see above
    return connection.execute(f"DELETE FROM entries WHERE {condition}", values).rowcount  # noqa: S608 # see above


def read(connection: Connection, wanted: Wanted, path: Path) -> tuple[Found, list[Place]]:
    """Read entries of the store at a path, and log the damaged ones.

    The second list has entries whose message is lost.
    """
    rows = connection.execute(
        "SELECT e.position, e.body, e.flags, e.expires, e.size, e.crc, b.content, b.crc "
        "FROM entries e LEFT JOIN bodies b ON b.id = e.body "
        "WHERE e.queue = ? AND e.priority = ? AND e.position > ? ORDER BY e.position LIMIT ?",
        (wanted.queue, wanted.priority, wanted.after, wanted.limit),
    )
    queue, priority, most = wanted.queue, wanted.priority, wanted.most
    entries: list[Entry] = []
    gone: list[Place] = []
    damaged = damaged_bytes = total = 0
    last = wanted.after
    for position, body, flags, expires, size, crc, content, content_crc in rows:
        last = position
        if (
            content is None
            or crc32(ENTRY_KEY.pack(queue, priority, position, body, expires, size)) != crc
            or crc32(content, crc32(BODY_KEY.pack(body))) != content_crc
        ):
            damaged += 1
            damaged_bytes += size
            if content is None:
                gone.append((queue, priority, position))
            _logger.error(
                "the store %s is damaged: message %d at position %d of queue number %d has a wrong "
                "checksum; it is skipped",
                path,
                body,
                position,
                queue,
            )
            continue
        message = _message(content, size, flags, priority)
        message.id = body
        entry = Entry(position, message)
        entry.priority = priority
        entry.expires = expires
        entry.stored = True
        if flags:
            entry.redelivered = bool(flags & _REDELIVERED)
            entry.deliveries = (flags & _FOREIGN_DEATHS - 1) >> _DELIVERIES
            entry.returns = flags >> _RETURNS
        entries.append(entry)
        total += size
        if total >= most:
            break
    return Found(entries, total, last, damaged, damaged_bytes), gone


def _message(content: bytes, size: int, flags: int, priority: int) -> Message:
    """Parse a message's content: two short strings, the header, and `size` bytes of body."""
    key = 1 + content[0]
    header = key + 1 + content[key]
    body = len(content) - size
    message = Message(content[:header], content[header:body], content[body:], not flags & TRANSIENT)
    message.copies = 2 if flags & SHARED else 1
    message.has_foreign_deaths = bool(flags & _FOREIGN_DEATHS)
    if flags & _HIDDEN_KEYS:
        _hide_keys(message)
    if content[header + 12] << 8 & FLAG_PRIORITY:
        try:
            message.priority = decode_header(message.header).priority or 0
        except ProtocolViolation:
            message.priority = priority
    return message


def _hide_keys(message: Message) -> None:
    """Move the keys of a BCC header from a message's header to its hidden keys."""
    properties = decode_header(message.header)
    headers = dict(properties.headers or {})
    keys = headers.pop("BCC", None)
    message.hidden_keys = tuple(str(key) for key in keys) if isinstance(keys, list) else ()
    message.header = encode_header(properties._replace(headers=headers), len(message.body))


def _shown_keys(message: Message) -> bytes:
    """Return a message's header with its hidden keys as a BCC header."""
    properties = decode_header(message.header)
    headers: Table = {**(properties.headers or {}), "BCC": list(message.hidden_keys)}
    return encode_header(properties._replace(headers=headers), len(message.body))


def _body_row(message: Message, refs: int) -> tuple[int, int, bytearray, int]:
    header = _shown_keys(message) if message.hidden_keys else message.header
    content = bytearray().join((message.destination, header, message.body))
    return message.id, refs, content, crc32(content, crc32(BODY_KEY.pack(message.id)))


def _entry_row(entry: Entry, queue: int) -> _Row:
    message = entry.message
    size = len(message.body)
    crc = crc32(ENTRY_KEY.pack(queue, entry.priority, entry.position, message.id, entry.expires, size))
    return queue, entry.priority, entry.position, message.id, _flags(entry), entry.expires, size, crc


def _flags(entry: Entry) -> int:
    flags = entry.deliveries << _DELIVERIES | entry.returns << _RETURNS
    if entry.redelivered:
        flags |= _REDELIVERED
    if not (entry.message.persistent or entry.is_kept):
        flags |= TRANSIENT
    if entry.message.copies > 1:
        flags |= SHARED
    if entry.message.has_foreign_deaths:
        flags |= _FOREIGN_DEATHS
    if entry.message.hidden_keys:
        flags |= _HIDDEN_KEYS
    return flags


def _conditions(numbers: list[int]) -> Iterator[tuple[str, Sequence[int]]]:
    """Sort different numbers, and yield SQL conditions that cover them, each with its values.

    The conditions are a range for each long run of consecutive numbers, and lists of the others. One statement per
    number would wait for the interpreter's lock each time, for up to its switch interval while the event loop is busy.
    """
    numbers.sort()
    if numbers and numbers[-1] - numbers[0] == len(numbers) - 1:
        yield "BETWEEN ? AND ?", (numbers[0], numbers[-1])
        return
    scattered: list[int] = []
    start = 0
    for end in range(1, len(numbers) + 1):
        if end < len(numbers) and numbers[end] == numbers[end - 1] + 1:
            continue
        if end - start < _LONG_RUN:
            scattered += numbers[start:end]
        else:
            yield "BETWEEN ? AND ?", (numbers[start], numbers[end - 1])
        start = end
    for start in range(0, len(scattered), _ROWS):
        some = scattered[start : start + _ROWS]
        size = 1 << (len(some) - 1).bit_length()  # only a few different statements, each parsed once by SQLite
        some += some[-1:] * (size - len(some))
        yield "IN (" + ", ".join("?" * size) + ")", some
