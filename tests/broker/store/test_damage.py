"""Damage in every part of a store: readable messages are served, the others are reported and the files kept."""

import asyncio
import contextlib
import json
import logging
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

import rabbitry
from rabbitry.amqp.protocol.tables import Table
from rabbitry.broker import Broker, BrokerConfig, StoreFailed
from rabbitry.broker._policies import Policy
from rabbitry.broker._queues.stream_log import OVERHEAD
from rabbitry.broker._store.batch import Batch, Wanted
from rabbitry.broker._store.rescue import alone, rebuild, survey
from rabbitry.broker._store.sqlite import SQLiteStore
from rabbitry.broker.message import Entry, Message
from tests.support.logs import records
from tests.support.steps import take_all

_PAGE = 4096
_COUNT = 60
_HEADER = b"\x00\x3c\x00\x00"


def _content(number: int) -> bytes:
    return b"%d:" % number + b"x" * 600


def _batch(start: int, count: int) -> Batch:
    added: dict[Entry, int] = {}
    for number in range(start, start + count):
        body = _content(number)
        message = Message(b"\x00\x01q", _HEADER + len(body).to_bytes(8, "big") + b"\x00\x00", body, True)
        message.id = number + 1
        message.copies = 1
        added[Entry(number, message)] = 1
    return Batch(added=added)


def _record(name: str, number: int) -> dict[tuple[str, str], Table | None]:
    value: Table = {
        "vhost": "/", "name": name, "id": number, "auto_delete": False, "recovered_to": 0, "arguments": b"\0\0\0\0"
    }  # fmt: skip
    return {("queue", f"%2F/{name}"): value}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    store = SQLiteStore(tmp_path / "data")
    store.open()
    store.apply(Batch(records=_record("q", 1)))
    store.apply(_batch(0, _COUNT))
    store.close()
    return tmp_path / "data"


def _served(folder: Path) -> set[bytes]:
    store = SQLiteStore(folder)
    contents = store.open()
    got: set[bytes] = set()
    for backlog in contents.backlogs:
        (found,) = store.apply(Batch(wanted=[Wanted(backlog.queue, backlog.priority, 1, -1, 10_000, 1 << 30)]))
        got |= {entry.message.body for entry in found.entries}
    store.apply(_batch(max(1000, contents.last_message), 1))
    store.close()
    return got


def _pages(folder: Path) -> dict[str, list[int]]:
    connection = sqlite3.connect(folder / "broker.sqlite")
    roots = dict(connection.execute("SELECT name, rootpage FROM sqlite_master WHERE type = 'table'").fetchall())
    connection.close()
    used = set(roots.values()) | {1}
    last = (folder / "broker.sqlite").stat().st_size // _PAGE
    return {name: [root] for name, root in roots.items()} | {"leaf": [n for n in range(2, last) if n not in used][:3]}


def _overwrite(path: Path, page: int, data: bytes) -> None:
    with open(path, "r+b") as file:
        file.seek((page - 1) * _PAGE)
        file.write(data)


@pytest.mark.parametrize("what", ["noise", "zeros"])
@pytest.mark.parametrize("place", ["bodies", "entries", "records", "state", "header", "leaf"])
def test_a_damaged_page_loses_only_its_own_rows(
    folder: Path, place: str, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    page = 1 if place == "header" else _pages(folder)[place][0]
    _overwrite(
        folder / "broker.sqlite", page, random.Random(page).randbytes(_PAGE) if what == "noise" else bytes(_PAGE)
    )  # no secret
    damaged = (folder / "broker.sqlite").read_bytes()[(page - 1) * _PAGE : page * _PAGE]
    got = _served(folder)
    least = _COUNT - 8 if place == "leaf" else _COUNT
    assert len(got) >= least, "only a page of messages may be lost"
    assert got <= {_content(number) for number in range(_COUNT)}
    (aside,) = folder.glob("damaged-*")
    assert damaged in (aside / "broker.sqlite").read_bytes()
    assert str(aside) in caplog.text
    assert [json.loads(line) for line in (aside / "lost.jsonl").read_text().splitlines()]
    caplog.clear()
    assert len(_served(folder)) >= least + 1
    assert not [record for record in records(caplog) if record.levelno >= logging.ERROR], "it is damaged once"


def test_a_damaged_page_is_repaired_while_the_store_is_open(folder: Path) -> None:
    page = _pages(folder)["leaf"][1]
    _overwrite(folder / "broker.sqlite", page, b"\xff" * _PAGE)
    store = SQLiteStore(folder)
    (backlog,) = store.open().backlogs
    assert backlog.messages == _COUNT
    (found,) = store.apply(Batch(wanted=[Wanted(1, 0, 1, -1, 10_000, 1 << 30)]))
    assert len(found.entries) + found.damaged == _COUNT, "who counted them finds all of them"
    assert 0 < found.damaged < 9
    store.apply(Batch(removed=dict.fromkeys(found.entries, 1)))
    store.close()


@pytest.mark.parametrize("part", [0, 1, 3])
def test_a_database_that_was_cut_serves_what_is_left(folder: Path, part: int) -> None:
    path = folder / "broker.sqlite"
    used = sqlite3.connect(path)
    (pages,) = used.execute("PRAGMA page_count").fetchone()
    used.close()
    path.write_bytes(path.read_bytes()[: pages * part // 4 * _PAGE])
    got = _served(folder)
    assert len(got) >= (_COUNT // 4 if part == 3 else 0)


@pytest.mark.parametrize("is_removed", [False, True])
def test_the_log_without_a_database_is_enough(
    tmp_path: Path, is_removed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    store = SQLiteStore(tmp_path / "data")
    store.open()
    store.apply(Batch(records=_record("q", 1)))
    store.apply(_batch(0, _COUNT))
    crashed = tmp_path / "crashed"
    crashed.mkdir()
    if not is_removed:
        (crashed / "broker.sqlite").touch()
    (crashed / "broker.sqlite-wal").write_bytes((tmp_path / "data" / "broker.sqlite-wal").read_bytes())
    store.close()
    assert len(_served(crashed)) == _COUNT
    assert "empty or gone" in caplog.text


def test_an_empty_database_is_named(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "broker.sqlite").write_bytes(b"")
    assert _served(folder) == set()
    assert "is empty or gone, though a broker used this data folder before" in caplog.text


@pytest.mark.parametrize("application", [0, 7])
def test_a_database_of_another_program_is_left_alone(tmp_path: Path, application: int) -> None:
    path = tmp_path / "broker.sqlite"
    with sqlite3.connect(path) as connection:
        connection.executescript(f"CREATE TABLE theirs (a); PRAGMA application_id = {application};")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreFailed, match="is not a store of Rabbitry's broker"):
        SQLiteStore(tmp_path).open()
    assert path.read_bytes() == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["broker.sqlite", "lock"]


_RECORDS = {
    "a queue's arguments": ("queue", "%2F/q", {"arguments": b"\0\0\0\x09\x05x-ttlZ"}),
    "a queue's number": ("queue", "%2F/q", {"id": "none"}),
    "a queue's time-to-live": ("queue", "%2F/q", {"arguments": {"x-message-ttl": "soon"}}),
    "an exchange's type": ("exchange", "%2F/x", {"vhost": "/", "name": "x", "type": "none", "arguments": {}}),
    "a binding": ("binding", "b", {"vhost": "/"}),
    "a user": ("user", "u", {"tags": []}),
    "a permission": ("permission", "u", {"vhost": "/"}),
    "a policy": ("policy", "p", {"vhost": "/"}),
    "a parameter": ("global-parameter", "p", {"name": "p", "value": "{"}),
    "a virtual host": ("vhost", "v", {}),
}


@pytest.mark.parametrize("what", _RECORDS)
async def test_an_unusable_record_leaves_the_others_intact(
    tmp_path: Path, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    kind, key, change = _RECORDS[what]
    async with Broker(BrokerConfig(port=0, data=tmp_path)):
        pass  # makes the user guest
    store = SQLiteStore(tmp_path)
    store.open()
    records = {**_record("q", 1), **_record("other", 2)}
    changed: Table = {**(records.get((kind, key)) or {}), **change}  # type: ignore[dict-item] # as damaged as it is
    store.apply(Batch(records={**records, (kind, key): changed}))
    store.apply(_batch(0, 3))
    store.close()
    async with Broker(BrokerConfig(port=0, data=tmp_path)) as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        await channel.declare_queue("other", passive=True)
        name = "rabbitry.recovered.1" if kind == "queue" else "q"
        assert (await channel.declare_queue(name, passive=True)).message_count == 3
    assert f"record {kind}" in caplog.text
    (line,) = (tmp_path / "damaged-records.jsonl").read_text().splitlines()
    assert json.loads(line)["key"] == key
    caplog.clear()
    async with Broker(BrokerConfig(port=0, data=tmp_path)):
        assert "damaged" not in caplog.text, "it was set aside"


@pytest.mark.parametrize("lost", [0, 1, 2, 9])
async def test_messages_of_a_segment_whose_record_is_lost_are_served(tmp_path: Path, lost: int) -> None:
    """Each of ten messages of a stream is a segment; those before the third one were dropped."""
    arguments: Table = {"x-queue-type": "stream", "x-stream-max-segment-size-bytes": 1}
    async with Broker(BrokerConfig(port=0, data=tmp_path)) as broker, rabbitry.connect(broker.url) as connection:
        channel = await connection.channel()
        await channel.declare_queue("s", durable=True, arguments=arguments)
        for number in range(12):
            await channel.publish(b"%d" % number, routing_key="s")
        size = (OVERHEAD + 1) * 10 + 2
        take_all(broker.putting_policy(Policy("/", "short", "^s$", {"max-length-bytes": size})))
        assert len(broker.vhosts["/"].queues["s"]) == 10
    with contextlib.closing(sqlite3.connect(tmp_path / "broker.sqlite", isolation_level=None)) as database:
        damage = "UPDATE records SET crc = crc + 1 WHERE kind = 'segment' AND key LIKE ?"
        assert database.execute(damage, (f"%{lost + 2:020}",)).rowcount == 1
    for _ in range(2):  # also after the next restart, when the damaged record has been set aside
        async with Broker(BrokerConfig(port=0, data=tmp_path)) as broker, rabbitry.connect(broker.url) as connection:
            channel = await connection.channel(prefetch=20)
            async with asyncio.timeout(120), channel.consume("s", arguments={"x-stream-offset": "first"}) as deliveries:
                assert [(await anext(deliveries)).body for _ in range(10)] == [
                    b"%d" % number for number in range(2, 12)
                ]


def test_an_undamaged_store_is_reported_as_undamaged(folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    found = survey(folder)
    assert found.is_whole, found.lines()
    assert found.queues == {"'q' of '/'": _COUNT}
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_messages_in_the_log_of_a_killed_broker_are_served(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path)
    store.open()
    store.apply(Batch(records=_record("q", 1)))
    store.apply(_batch(0, _COUNT))
    assert survey(tmp_path).queues == {"'q' of '/'": _COUNT}
    assert survey(tmp_path).is_whole
    with pytest.raises(StoreFailed, match="a broker uses the data folder"), alone(tmp_path):
        pass
    store.close()


def test_deleted_messages_do_not_come_back(folder: Path) -> None:
    store = SQLiteStore(folder)
    store.open()
    (found,) = store.apply(Batch(wanted=[Wanted(1, 0, 1, -1, 10_000, 1 << 30)]))
    store.apply(Batch(removed=dict.fromkeys(found.entries[:40], 1)))
    store.close()
    page = _pages(folder)["entries"][0]
    _overwrite(folder / "broker.sqlite", page, bytes(_PAGE))
    rebuild(folder)
    assert _served(folder) == {_content(number) for number in range(40, _COUNT)}


def _noise(chance: random.Random, path: Path) -> None:
    data = bytearray(path.read_bytes())
    at, size = chance.randrange(len(data)), chance.choice((1, 20, 5000))
    data[at : at + size] = chance.randbytes(len(data[at : at + size]))
    path.write_bytes(data)


def _cut(chance: random.Random, path: Path) -> None:
    with open(path, "r+b") as file:
        file.truncate(chance.randrange(path.stat().st_size))


def _damage_at_random(folder: Path, seed: int) -> None:
    chance = random.Random(seed)  # no secret
    act: Callable[[random.Random, Path], None] = chance.choice((_noise, _noise, _noise, _cut))
    act(chance, chance.choice((folder / "broker.sqlite", folder / "broker.sqlite-wal")))
    try:
        got = _served(folder)
    except StoreFailed as error:
        assert "newer Rabbitry" in str(error) or "not a store" in str(error), seed  # noqa: PT017 # others are defects
    else:
        assert got <= {_content(number) for number in range(_COUNT)}, seed
        assert _content(1000) in _served(folder), seed


def _crashed(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture
def crashed(tmp_path: Path) -> dict[str, bytes]:
    """The files of a broker that was killed: half of its contents are only in its log."""
    store = SQLiteStore(tmp_path / "killed")
    store.open()
    store.apply(Batch(records=_record("q", 1)))
    store.apply(_batch(0, _COUNT // 2))
    store._checkpoint()
    store.apply(_batch(_COUNT // 2, _COUNT // 2))
    files = {path.name: path.read_bytes() for path in (tmp_path / "killed").iterdir()}
    files = {name: data[: 400 << 10] for name, data in files.items()}
    store.close()
    return files


def test_damage_at_random_never_ends_a_store(tmp_path: Path, crashed: dict[str, bytes]) -> None:
    for seed in range(12):
        _damage_at_random(_crashed(tmp_path / str(seed), crashed), seed)


@pytest.mark.faults
@pytest.mark.timeout(1800)
def test_much_damage_at_random_never_ends_a_store(tmp_path: Path, crashed: dict[str, bytes]) -> None:
    for seed in range(1000, 2000):
        _damage_at_random(_crashed(tmp_path / str(seed), crashed), seed)
