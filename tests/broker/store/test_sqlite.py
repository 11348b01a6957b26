"""The store alone: data written is read back, damage is reported, and files that it can't open stay unchanged."""

import contextlib
import logging
import random
import resource
import shutil
import sqlite3
import struct
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

import pytest

from rabbitry.broker._store import rows
from rabbitry.broker._store.batch import DELETED, Batch, Dropped, StoreFull, Wanted
from rabbitry.broker._store.room import RESERVE
from rabbitry.broker._store.schema import VERSION
from rabbitry.broker._store.sqlite import SQLiteStore
from rabbitry.broker.exceptions import StoreFailed
from rabbitry.broker.message import Entry, Message

HEADER = bytes(14)


def _entry(number: int, *, priority: int = 0, message: Message | None = None) -> Entry:
    if message is None:
        message = Message(b"\x01e\x01k", HEADER, b"body %d" % number, True)
        message.id = number + 1
    message.copies += 1
    entry = Entry(number, message)
    entry.priority = priority
    entry.stored = True
    return entry


def _added(queue: int, count: int) -> Batch:
    return Batch(added={_entry(number): queue for number in range(count)})


def _read(
    store: SQLiteStore, queue: int = 1, after: int = -1, limit: int = 1000, priority: int = 0, most: int = 1 << 30
) -> list[bytes]:
    (found,) = store.apply(Batch(wanted=[Wanted(queue, priority, 1, after, limit, most)]))
    return [entry.message.body for entry in found.entries]


@pytest.fixture
def store(tmp_path: Path) -> SQLiteStore:
    store = SQLiteStore(tmp_path / "data")
    contents = store.open()
    assert contents.clean
    assert not contents.records
    return store


def _again(store: SQLiteStore) -> SQLiteStore:
    store.close()
    other = SQLiteStore(store.path.parent)
    other.open()
    return other


def test_written_batches_are_read_back(store: SQLiteStore, tmp_path: Path) -> None:
    store.apply(_added(1, 300))
    store.apply(Batch(records={("queue", "a"): {"name": "a", "list": [1, {"b": None}]}, ("queue", "b"): {"x": 1}}))
    store.apply(Batch(records={("queue", "b"): None}))
    store.close()
    other = SQLiteStore(tmp_path / "data")
    contents = other.open()
    assert contents.clean
    assert contents.records == {("queue", "a"): {"name": "a", "list": [1, {"b": None}]}}
    (backlog,) = contents.backlogs
    assert (backlog.queue, backlog.priority, backlog.messages, backlog.last_position) == (1, 0, 300, 299)
    assert contents.last_message == 300
    assert _read(other, after=9, limit=3) == [b"body 10", b"body 11", b"body 12"]
    other.close()


def test_an_unclosed_store_is_detected(store: SQLiteStore, tmp_path: Path) -> None:
    store.apply(_added(1, 3))
    store._abandon()  # as a process does that is killed
    other = SQLiteStore(tmp_path / "data")
    assert not other.open().clean
    assert len(_read(other)) == 3
    other.close()


def test_removing_entries_removes_their_bodies(store: SQLiteStore) -> None:
    batch = _added(1, 400)
    store.apply(batch)
    store.apply(Batch(removed={entry: 1 for entry in batch.added if entry.position not in (7, 300)}))
    assert _read(store) == [b"body 7", b"body 300"]
    assert _bodies(store) == 2
    store.close()


def _bodies(store: SQLiteStore) -> int:
    connection = store._open_connection()
    return int(connection.execute("SELECT COUNT(*) FROM bodies").fetchone()[0])


def test_a_shared_body_stays_until_its_last_entry_is_removed(store: SQLiteStore) -> None:
    message = Message(b"\0\0", HEADER, b"shared", True)
    message.id = 1
    first, second, third = (_entry(0, message=message) for _ in range(3))
    store.apply(Batch(added={first: 1, second: 2, third: 3}))
    store.apply(Batch(removed={first: 1}))
    assert _read(store, 1) == []
    assert _read(store, 2) == [b"shared"]
    store.apply(Batch(dropped=[Dropped(2)]))
    assert _read(store, 3) == [b"shared"]
    store.apply(Batch(removed={third: 3}))
    assert _bodies(store) == 0
    store.close()


def test_entries_at_scattered_positions_are_changed_and_removed(store: SQLiteStore) -> None:
    chance = random.Random(5)
    messages = [Message(b"\0\0", HEADER, b"body %d" % number, True) for number in range(700)]
    for number, message in enumerate(messages):
        message.id = number + 1
    added = {_entry(number, message=messages[number]): 1 for number in range(700)}
    added |= {_entry(number, message=messages[number]): 2 for number in range(0, 700, 2)}
    added |= {_entry(number, message=messages[number]): 3 for number in range(0, 700, 4)}
    store.apply(Batch(added=added))
    changed = {entry: queue for entry, queue in added.items() if chance.random() < 0.4}
    for entry in changed:
        entry.redelivered, entry.deliveries = True, chance.randrange(3)
    store.apply(Batch(changed=changed))
    left = dict(added)
    for count in (1, 2, 3, 40, 129, 300, 0):
        some = chance.sample(sorted(left, key=lambda entry: (left[entry], entry.position)), count)
        first = [entry for entry, queue in left.items() if queue == 1 and entry not in some][5:50]  # a run without gaps
        store.apply(Batch(removed={entry: left.pop(entry) for entry in (*some, *first)}))
        for queue in (1, 2, 3):
            (found,) = store.apply(Batch(wanted=[Wanted(queue, 0, 1, -1, 1000, 1 << 30)]))
            assert [(entry.position, entry.redelivered, entry.deliveries) for entry in found.entries] == sorted(
                (entry.position, entry.redelivered, entry.deliveries) for entry, of in left.items() if of == queue
            )
        assert _bodies(store) == len({entry.message for entry in left})
    store.apply(Batch(dropped=[Dropped(2), Dropped(3)]))
    assert _bodies(store) == len({entry.message for entry, queue in left.items() if queue == 1})
    store.close()


def test_a_batch_takes_few_statements_however_many_queues_it_has(store: SQLiteStore) -> None:
    """Beside a busy event loop, the store's thread waits for the interpreter's lock after each statement."""
    own = {_entry(number): number % 500 for number in range(0, 3000, 2)}
    message = Message(b"\0\0", HEADER, b"shared", True)
    message.id = 5000
    shared = {_entry(number, message=message): number % 500 for number in range(1, 1500, 2)}
    connection = store._open_connection()
    statements: list[str] = []

    def apply(batch: Batch) -> None:
        statements.clear()
        connection.set_trace_callback(statements.append)
        store.apply(batch)
        connection.set_trace_callback(None)
        assert len(statements) < 30, statements

    apply(Batch(added={**own, **shared}))
    for entry in own:
        entry.redelivered, entry.deliveries = True, entry.position % 7
    apply(Batch(changed=own))
    first = [entry for entry in own if entry.position < 1000]
    apply(Batch(removed={**shared, **{entry: own.pop(entry) for entry in first}}))
    assert _bodies(store) == len(own) == 1000
    apply(Batch(dropped=[Dropped(queue, 0, -1, 2000) for queue in range(500)]))
    assert _bodies(store) == 500
    (found,) = store.apply(Batch(wanted=[Wanted(2, 0, 1, -1, 10, 1 << 30)]))
    assert [(entry.position, entry.redelivered, entry.deliveries) for entry in found.entries] == [
        (2002, True, 0),
        (2502, True, 3),
    ]
    apply(Batch(dropped=[Dropped(queue) for queue in range(500)]))
    assert _bodies(store) == 0
    apply(Batch(records={("queue", f"q{number}"): {"a": number} for number in range(2000)}))
    apply(Batch(records={("queue", f"q{number}"): None for number in range(2000)}))
    (left,) = connection.execute("SELECT COUNT(*) FROM records WHERE kind = 'queue'").fetchone()
    assert left == 0
    store.close()


def test_a_tail_is_dropped_between_two_positions(store: SQLiteStore) -> None:
    store.apply(_added(1, 10))
    store.apply(Batch(dropped=[Dropped(1, 0, 2, 8)]))
    assert _read(store) == [b"body 0", b"body 1", b"body 2", b"body 8", b"body 9"]
    assert _bodies(store) == 5
    store.close()


def test_a_reading_ends_with_the_entry_that_makes_it_large(store: SQLiteStore) -> None:
    store.apply(_added(1, 5))
    bodies = _read(store)
    assert _read(store, most=len(bodies[0])) == bodies[:1]
    assert _read(store, most=len(bodies[0]) + 1) == bodies[:2]
    assert _read(store, after=1, most=1) == bodies[2:3]
    store.close()


def test_a_read_that_takes_long_ends_after_a_row(store: SQLiteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.apply(_added(1, 3))
    store._open_connection().execute("DELETE FROM bodies WHERE id = 1")
    monkeypatch.setattr("rabbitry.broker._store.sqlite._READS_FOR", 0.0)
    (damaged,) = store.apply(Batch(wanted=[Wanted(1, 0, 1, -1, 10, 1 << 30)]))
    assert (damaged.entries, damaged.damaged, damaged.last_position) == ([], 1, 0)
    assert _read(store, after=0) == [b"body 1"]
    assert _read(store, after=1) == [b"body 2"]
    store.close()


def test_changes_of_an_entry_are_stored(store: SQLiteStore) -> None:
    batch = _added(1, 1)
    (entry,) = batch.added
    store.apply(batch)
    entry.redelivered, entry.deliveries = True, 3
    store.apply(Batch(changed={entry: 1}))
    (found,) = store.apply(Batch(wanted=[Wanted(1, 0, 1, -1, 9, 1000)]))
    assert (found.entries[0].redelivered, found.entries[0].deliveries) == (True, 3)
    store.close()


def test_transient_messages_do_not_outlive_the_process(store: SQLiteStore) -> None:
    batch = _added(1, 2)
    for entry in batch.added:
        entry.message.persistent = entry.position == 1
    store.apply(batch)
    assert len(_read(store)) == 2
    other = _again(store)
    assert _read(other) == [b"body 1"]
    assert _bodies(other) == 1
    other.close()


def test_priorities_are_read_separately(store: SQLiteStore) -> None:
    store.apply(Batch(added={_entry(0, priority=1): 1, _entry(1, priority=5): 1}))
    assert _read(store, priority=1) == [b"body 0"]
    assert _read(store, priority=5) == [b"body 1"]
    store.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE bodies SET content = x'00' WHERE id = 2",
        "DELETE FROM bodies WHERE id = 2",
        "UPDATE entries SET body = 1 WHERE position = 1",
    ],
)
def test_a_damaged_row_is_reported_and_skipped(
    store: SQLiteStore, statement: str, caplog: pytest.LogCaptureFixture
) -> None:
    store.apply(_added(1, 3))
    store._open_connection().execute(statement)
    with caplog.at_level(logging.ERROR):
        (found,) = store.apply(Batch(wanted=[Wanted(1, 0, 1, -1, 9, 1000)]))
    assert [entry.message.body for entry in found.entries] == [b"body 0", b"body 2"]
    assert (found.damaged, found.last_position) == (1, 2)
    assert "damaged" in caplog.text
    assert "position 1 of queue number 1" in caplog.text
    store.close()


def test_a_second_broker_is_refused(store: SQLiteStore) -> None:
    with pytest.raises(StoreFailed, match="another broker uses the data folder"):
        SQLiteStore(store.path.parent).open()
    store.close()


def test_a_newer_store_is_refused_and_unchanged(store: SQLiteStore) -> None:
    store.close()
    with sqlite3.connect(store.path) as connection:
        connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    connection.close()
    before = {path.name: path.read_bytes() for path in store.path.parent.iterdir()}
    with pytest.raises(StoreFailed, match="written by a newer Rabbitry"):
        SQLiteStore(store.path.parent).open()
    assert {path.name: path.read_bytes() for path in store.path.parent.iterdir()} == before


_VERSION_1 = """
CREATE TABLE records (kind TEXT, key TEXT, value BLOB, crc INTEGER, PRIMARY KEY (kind, key)) WITHOUT ROWID;
CREATE TABLE bodies (
    id INTEGER PRIMARY KEY, refs INTEGER, destination BLOB, header BLOB, body BLOB, crc INTEGER);
CREATE TABLE entries (
    queue INTEGER, priority INTEGER, position INTEGER, body INTEGER, flags INTEGER, expires REAL, size INTEGER,
    crc INTEGER, PRIMARY KEY (queue, priority, position)) WITHOUT ROWID;
CREATE TABLE state (clean INTEGER);
INSERT INTO state VALUES (1);
PRAGMA user_version = 1;
"""


def test_a_store_of_version_1_is_upgraded(tmp_path: Path) -> None:
    path = tmp_path / "broker.sqlite"
    messages = {1: (b"\x01e\x01k", b"\xff\x00" * 7, b"a\x00\xff"), 2: (b"\0\0", HEADER, b"")}
    with sqlite3.connect(path) as connection:
        connection.executescript(_VERSION_1)
        for number, parts in messages.items():
            crc = crc32(b"".join((number.to_bytes(8, "big"), *parts)))
            connection.execute("INSERT INTO bodies VALUES (?, 1, ?, ?, ?, ?)", (number, *parts, crc))
            size = len(parts[2])
            crc = crc32(struct.pack(">QHQQdQ", 1, 0, number, number, 0.0, size))
            connection.execute("INSERT INTO entries VALUES (1, 0, ?, ?, 0, 0.0, ?, ?)", (number, number, size, crc))
    connection.close()
    store = SQLiteStore(tmp_path)
    assert store.open().last_message == 2
    for _ in range(2):
        (found,) = store.apply(Batch(wanted=[Wanted(1, 0, 1, -1, 9, 1000)]))
        parts_found = [(entry.message.destination, entry.message.header, entry.message.body) for entry in found.entries]
        assert parts_found == list(messages.values())
        store = _again(store)
    store.close()


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "broker.sqlite").write_bytes(b"something else, which is long enough to be looked at" * 3)
    with pytest.raises(StoreFailed, match="is not a store of Rabbitry's broker"):
        SQLiteStore(tmp_path).open()


def test_a_full_disk_writes_nothing_of_a_batch(store: SQLiteStore) -> None:
    store.apply(_added(1, 1))
    connection = store._open_connection()
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")
    message = Message(b"\0\0", HEADER, b"x" * 1_000_000, True)
    message.id = 50
    with pytest.raises(StoreFull, match="no room in"):
        store.apply(Batch(added={_entry(50, message=message): 1}, records={("queue", "q"): {"a": 1}}))
    assert _read(store) == [b"body 0"]
    connection.execute("PRAGMA max_page_count = 100000")
    store.apply(Batch(added={_entry(51, message=message): 1}))
    store.close()


def test_dropped_entries_are_deleted_over_several_batches(store: SQLiteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rabbitry.broker._store.sqlite._MOST_DROPPED", 40)
    for queue in (1, 2):
        store.apply(_added(queue, 100) if queue == 1 else Batch(added={_entry(n + 200): queue for n in range(100)}))
    dropping = Batch(dropped=[Dropped(1, 0, 9, 95), Dropped(2)], records={("queue", "a"): {"name": "a"}})
    held = []
    while dropping.dropped:
        store.apply(dropping)
        held.append((len(_read(store)), len(_read(store, 2))))
        assert not dropping.records, "what is written is taken out, since the batch comes again"
    assert held == [(60, 100), (20, 100), (15, 75), (15, 35), (15, 0)]
    assert _read(store)[9:] == [b"body 9", b"body 95", b"body 96", b"body 97", b"body 98", b"body 99"]
    (bodies,) = store._open_connection().execute("SELECT COUNT(*) FROM bodies").fetchone()
    assert bodies == 15
    store.close()


def test_many_queues_are_deleted_with_their_records(store: SQLiteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rabbitry.broker._store.sqlite._MOST_DROPPED", 40)
    filled = {7: 5, 300: 90, 400: 3}
    for queue, count in filled.items():
        store.apply(Batch(added={_entry(queue * 100 + n): queue for n in range(count)}))
    store.apply(Batch(records={("queue", f"q{n}"): {"id": n} for n in range(1, 401)}))
    batch = Batch(
        records={("queue", f"q{n}"): None for n in range(1, 400)}, dropped=[Dropped(n) for n in range(1, 400)]
    )
    store.apply(batch)
    crashed = SQLiteStore(_crashed(store))
    left = {number for kind, number in crashed.open().records if kind == DELETED}
    assert left == {str(dropped.queue) for dropped in batch.dropped}, "the queues whose deletion is to be continued"
    assert "300" in left
    rest = batch.dropped
    while rest:
        batch = Batch(dropped=rest, noted=len(rest))
        crashed.apply(batch)
        rest = batch.dropped
    assert [len(_read(crashed, queue)) for queue in filled] == [0, 0, 3]
    crashed.close()
    after = SQLiteStore(crashed.path.parent)
    assert after.open().records == {("queue", "q400"): {"id": 400}}
    after.close()


def test_entries_of_many_queues_are_read_in_their_order(store: SQLiteStore) -> None:
    added: dict[Entry, int] = {}
    for position in range(50):
        first = _entry(position)
        for queue in (3, 1, 2):
            added[first if queue == 3 else _entry(position, message=first.message)] = queue
    store.apply(Batch(added=added))
    for queue in (1, 2, 3):
        assert _read(store, queue) == [b"body %d" % position for position in range(50)]
    store.close()


def _crashed(store: SQLiteStore) -> Path:
    """Copy a store's files as they are, as if its process had ended here."""
    folder = store.path.parent.with_name("crashed")
    shutil.copytree(store.path.parent, folder)
    store.close()
    return folder


def test_a_log_with_a_damaged_header_is_reported_and_set_aside(
    store: SQLiteStore, caplog: pytest.LogCaptureFixture
) -> None:
    store.apply(_added(1, 3))
    folder = _crashed(store)
    log = folder / "broker.sqlite-wal"
    whole = log.read_bytes()
    log.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    after = SQLiteStore(folder)
    after.open()
    (aside,) = folder.glob("damaged-*")
    assert "the header of its log is damaged" in caplog.text
    assert aside.name in caplog.text
    assert (aside / "broker.sqlite-wal").read_bytes()[1:] == whole[1:]
    assert _read(after) == [b"body 0", b"body 1", b"body 2"]
    after.close()


@pytest.mark.parametrize("is_removed", [False, True])
def test_a_missing_log_is_reported(is_removed: bool, store: SQLiteStore, caplog: pytest.LogCaptureFixture) -> None:
    store.apply(_added(1, 3))
    store._checkpoint()
    store.apply(Batch(added={_entry(7): 1}))
    folder = _crashed(store)
    if is_removed:
        (folder / "broker.sqlite-wal").unlink()
    after = SQLiteStore(folder)
    after.open()
    assert ("it was removed" in caplog.text) == is_removed
    assert len(_read(after)) == (3 if is_removed else 4)
    after.close()


def test_a_damaged_record_is_reported_and_left_out(store: SQLiteStore, caplog: pytest.LogCaptureFixture) -> None:
    store.apply(Batch(records={("queue", "a"): {"name": "a"}, ("queue", "b"): {"name": "b"}}))
    store._open_connection().execute("UPDATE records SET crc = crc + 1 WHERE key = 'a'")
    store.close()
    after = SQLiteStore(store.path.parent)
    assert after.open().records == {("queue", "b"): {"name": "b"}}
    after.close()
    assert "record queue 'a' can't be used (its checksum is wrong); it is left out" in caplog.text


@contextlib.contextmanager
def _largest_file(size: int) -> Iterator[None]:
    """Limit the size of files: like an exhausted quota, which SQLite reports as a write error."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def _large(first: int, count: int) -> Batch:
    batch = _added(1, 0)
    for number in range(first, first + count):
        message = Message(b"\0\0", HEADER, bytes(50_000), True)
        message.id = number + 1
        batch.added[_entry(number, message=message)] = 1
    return batch


def _has_room_for(store: SQLiteStore, batch: Batch) -> bool:
    try:
        store.apply(batch)
    except StoreFull:
        return False
    return True


def test_acks_reads_and_a_restart_need_no_room(store: SQLiteStore) -> None:
    entries: list[Entry] = []
    with _largest_file(RESERVE):  # the log has so much already
        while _has_room_for(store, batch := _large(len(entries), 10)):
            entries += batch.added
        assert len(entries) > 50
        assert len(_read(store)) == len(entries)
        first, second = entries[:40], entries[40:]
        store.apply(Batch(removed=dict.fromkeys(first, 1), records={("queue", "q"): {"a": 1}}))
        store = _again(store)
        assert len(_read(store)) == len(second)
        store.apply(Batch(removed=dict.fromkeys(second, 1)))
        assert _read(store) == []
        store.apply(_large(10_000, 20))  # into the pages that are free now
        assert store.reusable > 1_000_000
        store.close()


def test_more_acks_than_the_log_has_room_for_are_written_in_pieces(store: SQLiteStore) -> None:
    entries = {_entry(number): number % 7 + 1 for number in range(30_000)}
    store.apply(Batch(added=entries))
    store.tidy(is_short=True)
    size = store.path.stat().st_size
    assert store._room.log_size() == RESERVE
    acked = {entry: queue for entry, queue in entries.items() if entry.position % 3}
    with _largest_file(max(size, RESERVE)):
        store.apply(Batch(removed=dict(acked)))
    assert _bodies(store) == len(entries) - len(acked)
    store.close()


def test_an_emptied_store_frees_its_space(store: SQLiteStore) -> None:
    batch = _large(0, 400)
    store.apply(batch)
    store.apply(Batch(removed=batch.added))
    assert store.path.stat().st_size > 10_000_000
    store.tidy(is_short=True)
    assert store.path.stat().st_size < 3_000_000
    assert store._room.log_size() == RESERVE
    assert store.reusable < 1_000_000
    store.close()


@pytest.mark.parametrize("dropped", [Dropped(1), Dropped(1, 0, 99, 20_000)], ids=["deleted queue", "purge"])
def test_dropping_in_pieces_costs_the_same_for_each_entry(store: SQLiteStore, dropped: Dropped) -> None:
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    store.apply(_added(1, 20_000))
    connection = store._open_connection()
    waiting, pieces = [dropped], 0
    connection.set_progress_handler(count, 100)
    while waiting:
        rows.drop(connection, waiting, 500)
        pieces += 1
    connection.set_progress_handler(None, 0)
    assert pieces >= 39
    assert steps * 100 < 20_000 * 200
    connection.commit()
    assert len(_read(store, limit=20_000)) == (0 if dropped.priority is None else 100)
    store.close()
