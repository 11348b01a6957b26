"""Rows of the store: statements that write, delete and read messages and records on an open database.

The event loop waits for the interpreter's lock while the store's thread runs Python code, so the work per message is
kept small (`make bench-broker` shows it): exchange, routing key, header and body are one value with one checksum, which
is bound as a bytearray, since the sqlite3 module looks up an adapter for every bytes object (0.3 µs instead of 0.07).

Each statement releases the lock. Beside a busy event loop, the thread gets it back after the switch interval: 5 ms by
default, 1 ms in `rabbitry broker`. Therefore the number of a batch's statements depends neither on its queues nor on
the gaps between its positions: each writes up to 1,024 rows, or ranges of rows, of any queues (`make bench-fairness`
shows it).
"""

from __future__ import annotations

import logging
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import chain, islice, pairwise, takewhile
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
_ROWS: Final = 1_024
"""Most rows or ranges in one statement: it has up to eight parameters for each, and SQLite allows 32,766."""
_FEW: Final = 4
"""Ranges that have a statement each: this takes half the CPU time of a statement for several."""

_Row = tuple[int, int, int, int, int, float, int, int]
Place = tuple[int, int, int]
"""An entry's queue, priority and position."""
_PLACE: Final = ("queue", "priority", "position")


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
    for some, values in _tables(zip(keys), 1):
        connection.execute(f"DELETE FROM records WHERE kind = ? AND key IN {some}", (kind, *values))  # noqa: S608 # marks


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
    connection: Connection, table: str, columns: int, rows: Iterable[tuple[object, ...]], verb: str = "INSERT"
) -> None:
    for some, values in _tables(rows, columns):
        connection.execute(f"{verb} INTO {table} SELECT * FROM {some}", values)  # noqa: S608 # marks


def _update(connection: Connection, changed: dict[Entry, int]) -> None:
    """Write the flags of entries, each given with its queue's number."""
    positions: defaultdict[tuple[int, int, int], list[int]] = defaultdict(list)
    for entry, queue in changed.items():
        positions[_flags(entry), queue, entry.priority].append(entry.position)
    ranges = [(*place, *run) for place, numbers in positions.items() for run in _runs(numbers)]
    if len(ranges) <= _FEW:
        one = "UPDATE entries SET flags = ? WHERE queue = ? AND priority = ? AND position BETWEEN ? AND ?"
        for run in ranges:
            connection.execute(one, run)
        return
    place = "queue = column2 AND priority = column3 AND position BETWEEN column4 AND column5"
    for some, values in _tables(ranges, 5):
        connection.execute(f"UPDATE entries SET flags = column1 FROM {some} WHERE {place}", values)  # noqa: S608 # marks


def remove(connection: Connection, removed: dict[Entry, int]) -> None:
    """Delete entries, each given with its queue's number, and the bodies that no other entry refers to."""
    positions: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
    own: list[int] = []
    shared: list[int] = []
    for entry, queue in removed.items():
        positions[queue, entry.priority].append(entry.position)
        message = entry.message
        (own if message.copies < 2 else shared).append(message.id)
    places = [(*place, *run) for place, numbers in positions.items() for run in _runs(numbers)]
    for condition, values in _conditions("entries", _PLACE, places):
        connection.execute(f"DELETE FROM entries WHERE {condition}", values)  # noqa: S608 # marks
    for condition, values in _conditions("bodies", ("id",), _runs(own)):
        connection.execute(f"DELETE FROM bodies WHERE {condition}", values)  # noqa: S608 # marks
    _release(connection, shared)


def _release(connection: Connection, bodies: list[int]) -> None:
    """Decrement the reference counts of bodies, given once for each entry, and delete those that reach 0."""
    by_count: defaultdict[int, list[int]] = defaultdict(list)
    for body, count in Counter(bodies).items():
        by_count[count].append(body)
    counts = [(count, *run) for count, numbers in by_count.items() for run in _runs(numbers)]
    for some, values in _tables(counts, 3):
        connection.execute(
            f"UPDATE bodies SET refs = refs - column1 FROM {some} WHERE id BETWEEN column2 AND column3",  # noqa: S608 # marks
            values,
        )
    for condition, bounds in _conditions("bodies", ("id",), [run for _, *run in counts]):
        connection.execute(f"DELETE FROM bodies WHERE {condition} AND refs <= 0", bounds)  # noqa: S608 # marks


def drop(connection: Connection, waiting: list[Dropped], most: int) -> int:
    """Delete up to `most` entries of the first items of `waiting`, and remove the items of which none is left.

    Items at the front with few entries are deleted together, in a few statements. Return the number of entries.
    """
    is_whole = waiting[0].priority is None
    alike = list(takewhile(lambda dropped: (dropped.priority is None) == is_whole, waiting[:_ROWS]))
    together = _count_fitting(connection, alike, most) if len(alike) > 1 else 0
    if together:
        del waiting[:together]
        return _drop_all(connection, alike[:together])
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


def _count_fitting(connection: Connection, dropped: list[Dropped], most: int) -> int:
    """Return how many of the first items have less than `most` entries together. All are of one kind."""
    among = "e.queue = column2"
    rows: list[tuple[int, ...]] = [(number, item.queue) for number, item in enumerate(dropped)]
    if dropped[0].priority is not None:
        among += " AND e.priority = column3 AND e.position > column4 AND e.position < column5"
        rows = [(*row, item.priority or 0, item.after, item.before) for row, item in zip(rows, dropped, strict=True)]
    ((some, values),) = _tables(rows, len(rows[0]))
    numbers = f"SELECT column1 AS number FROM {some} CROSS JOIN entries AS e ON {among} LIMIT ?"  # noqa: S608 # marks
    count, last = connection.execute(f"SELECT COUNT(*), MAX(number) FROM ({numbers})", (*values, most)).fetchone()  # noqa: S608 # marks
    return len(dropped) if count < most else int(last)


def _drop_all(connection: Connection, dropped: list[Dropped]) -> int:
    """Delete all entries of items of one kind. Return their number."""
    if dropped[0].priority is not None:
        places = [(item.queue, item.priority or 0, item.after + 1, item.before - 1) for item in dropped]
        conditions = _conditions("entries", _PLACE, places)
        return sum(delete_entries(connection, condition, values) for condition, values in conditions)
    queues = [item.queue for item in dropped]
    _forget_records(connection, DELETED, [str(queue) for queue in queues])
    ((some, values),) = _tables(zip(queues), 1)
    return delete_entries(connection, f"queue IN {some}", values)


def delete_entries(connection: Connection, condition: str, values: Sequence[object]) -> int:
    """Delete entries by an SQL condition, and the bodies that no other entry refers to. Return their number."""
    shared = f"SELECT body, COUNT(*) AS count FROM entries WHERE {condition} AND flags & {SHARED} GROUP BY body"  # noqa: S608 # see above
    counted = f"UPDATE bodies SET refs = refs - gone.count FROM ({shared}) AS gone WHERE id = gone.body"  # noqa: S608 # see above
    if connection.execute(counted, values).rowcount:
        unused = f"DELETE FROM bodies WHERE refs <= 0 AND id IN (SELECT body FROM ({shared}))"  # noqa: S608 # see above
        connection.execute(unused, values)
    own = f"SELECT body FROM entries WHERE {condition} AND NOT flags & {SHARED}"  # noqa: S608 # see above
    connection.execute(f"DELETE FROM bodies WHERE id IN ({own})", values)  # noqa: S608 # see above
    return connection.execute(f"DELETE FROM entries WHERE {condition}", values).rowcount  # noqa: S608 # see above


def read(connection: Connection, wanted: Wanted, path: Path, ends_at: float) -> tuple[Found, list[Place]]:
    """Read entries of the store at a path, and log the damaged ones. The second list has entries whose message is lost.

    It also ends with the first row read after `ends_at`, in seconds on the monotonic clock: each row releases the
    interpreter's lock, so beside a busy event loop 4,096 rows could take a second instead of 11 ms.
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
        if last > wanted.after and time.monotonic() > ends_at:
            break
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


def _runs(numbers: list[int]) -> Sequence[tuple[int, int]]:
    """Sort different numbers, and return the first and the last one of each run of consecutive numbers."""
    numbers.sort()
    if numbers and numbers[-1] - numbers[0] == len(numbers) - 1:
        return [(numbers[0], numbers[-1])]
    gaps = [(number, following) for number, following in pairwise(numbers) if following > number + 1]
    firsts = chain(numbers[:1], (following for _, following in gaps))
    return list(zip(firsts, chain((number for number, _ in gaps), numbers[-1:]), strict=True))


def _conditions(
    table: str, key: tuple[str, ...], ranges: Sequence[Sequence[int]]
) -> Iterator[tuple[str, Sequence[object]]]:
    """Yield SQL conditions that cover ranges of rows, each with its values.

    Args:
        table: The table.
        key: Its key.
        ranges: For each range the values of all columns of the key but the last one, and the first and the last value
            of that one.
    """
    *same, last = key
    if len(ranges) <= _FEW:
        condition = " AND ".join([*(f"{column} = ?" for column in same), f"{last} BETWEEN ? AND ?"])
        for values in ranges:
            yield condition, values
        return
    columns = ", ".join(f"t.{column}" for column in key)
    equal = [f"t.{column} = column{number}" for number, column in enumerate(same, 1)]
    among = " AND ".join([*equal, f"t.{last} BETWEEN column{len(key)} AND column{len(key) + 1}"])
    for some, parameters in _tables(ranges, len(key) + 1):
        # The order of a CROSS JOIN is kept: SQLite looks each range up in the table.
        yield f"({', '.join(key)}) IN (SELECT {columns} FROM {some} CROSS JOIN {table} AS t ON {among})", parameters  # noqa: S608 # marks


def _tables(rows: Iterable[Sequence[object]], columns: int) -> Iterator[tuple[str, list[object]]]:
    """Yield tables of rows for statements, each with its values. Their columns are column1, column2, and so on."""
    waiting = iter(rows)
    while some := list(islice(waiting, _ROWS)):
        room = 1 << (len(some) - 1).bit_length()  # only a few different statements, each parsed once by SQLite
        values = list(chain.from_iterable(some))
        values += [None] * (columns * (room - len(some)))
        values.append(len(some))
        yield _table(columns, room), values


@cache
def _table(columns: int, rows: int) -> str:
    row = f"({', '.join('?' * columns)})"
    return f"(SELECT * FROM (VALUES {', '.join([row] * rows)}) LIMIT ?)"  # noqa: S608 # marks
