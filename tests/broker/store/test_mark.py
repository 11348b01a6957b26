"""Store files that were cut, removed or replaced while no broker ran: the next start reports it."""

import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from rabbitry.broker._store.batch import Batch
from rabbitry.broker._store.files import log_path, mark_path
from rabbitry.broker._store.rescue import survey
from rabbitry.broker._store.sqlite import SQLiteStore
from tests.support.logs import messages

_PAGE: Final = 4096
_FRAME: Final = 24 + _PAGE
_RECORDS: Final = [f"q{number}" for number in range(6)]


def _put(store: SQLiteStore, name: str) -> None:
    store.apply(Batch(records={("queue", name): {"name": name}}))


def _names(store: SQLiteStore) -> list[str]:
    """Open a store, return the names of its records, and close it."""
    records = store.open().records
    store.close()
    return sorted(key for _, key in records)


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """The data folder of a broker that was killed after six commits."""
    store = SQLiteStore(tmp_path / "running")
    store.open()
    for name in _RECORDS:
        _put(store, name)
    folder = tmp_path / "data"
    shutil.copytree(tmp_path / "running", folder)
    store.close()
    return folder


def _commits(log: Path) -> list[int]:
    """Return the end offset of each commit in a log."""
    data = log.read_bytes()
    salts, ends = data[16:24], []
    for at in range(32, len(data) - _FRAME + 1, _FRAME):
        if data[at + 8 : at + 16] != salts:
            break
        if struct.unpack_from(">I", data, at + 4)[0]:
            ends.append(at + _FRAME)
    return ends


def _cut(log: Path, end: int) -> None:
    log.write_bytes(log.read_bytes()[:end])


def _zero(log: Path, end: int) -> None:
    data = log.read_bytes()
    log.write_bytes(data[:end] + bytes(len(data) - end))


def _spoil(log: Path, end: int) -> None:
    data = bytearray(log.read_bytes())
    data[end + 100] ^= 1  # in the next frame
    log.write_bytes(data)


def test_an_intact_log_is_not_reported(killed: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert survey(killed).is_whole
    for _ in range(2):
        assert _names(SQLiteStore(killed)) == _RECORDS
    assert messages(caplog) == []


@pytest.mark.parametrize("damage", [_cut, _zero, _spoil])
@pytest.mark.parametrize("lost", [1, 3, len(_RECORDS)])
def test_a_log_cut_before_the_last_commit_is_reported(
    killed: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path, int], None], lost: int
) -> None:
    log = log_path(killed / "broker.sqlite")
    damage(log, _commits(log)[-1 - lost])
    assert any("it was cut or damaged" in line or "are lost" in line for line in survey(killed).lines())
    assert _names(SQLiteStore(killed)) == _RECORDS[: len(_RECORDS) - lost]
    assert [message for message in messages(caplog) if "it was cut or damaged" in message] == messages(caplog)[:1]
    caplog.clear()
    assert _names(SQLiteStore(killed)) == _RECORDS[: len(_RECORDS) - lost]
    assert messages(caplog) == []


@pytest.mark.parametrize("header", [None, b"", bytes(32)])
def test_a_removed_log_is_reported(killed: Path, caplog: pytest.LogCaptureFixture, header: bytes | None) -> None:
    log = log_path(killed / "broker.sqlite")
    log.unlink()
    if header is not None:
        log.write_bytes(header)
    _names(SQLiteStore(killed))
    assert len(messages(caplog)) == 1
    assert "it was removed" in caplog.text
    caplog.clear()
    _names(SQLiteStore(killed))
    assert messages(caplog) == []


def test_an_older_log_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = SQLiteStore(tmp_path / "running")
    store.open()
    _put(store, "early")
    shutil.copytree(tmp_path / "running", tmp_path / "early")
    assert store._checkpoint()
    _put(store, "late")
    shutil.copytree(tmp_path / "running", tmp_path / "data")
    store.close()
    shutil.copyfile(log_path(tmp_path / "early/broker.sqlite"), log_path(tmp_path / "data/broker.sqlite"))
    assert "early" in _names(SQLiteStore(tmp_path / "data"))
    assert "its log is older than the one that the last broker wrote" in caplog.text


def test_a_note_older_than_the_log_is_ignored(killed: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    mark = mark_path(killed / "broker.sqlite")
    note = mark.read_bytes()
    store = SQLiteStore(killed)
    store.open()
    assert store._checkpoint()
    _put(store, "late")
    shutil.copytree(killed, tmp_path / "later")
    store.close()
    mark_path(tmp_path / "later/broker.sqlite").write_bytes(note)  # as after a power failure
    assert _names(SQLiteStore(tmp_path / "later")) == ["late", *_RECORDS]
    for damaged in (b"", note[:-1], bytes(len(note)), b"x" * 100):
        mark_path(tmp_path / "later/broker.sqlite").write_bytes(damaged)
        assert _names(SQLiteStore(tmp_path / "later")) == ["late", *_RECORDS]
    mark_path(tmp_path / "later/broker.sqlite").unlink()
    assert _names(SQLiteStore(tmp_path / "later")) == ["late", *_RECORDS]
    assert messages(caplog) == []


def _other(folder: Path) -> SQLiteStore:
    """Make the store of another folder."""
    store = SQLiteStore(folder)
    store.open()
    _put(store, "other")
    return store


def test_a_database_of_another_folder_is_reported_and_served(
    killed: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _other(tmp_path / "other").close()
    shutil.copyfile(tmp_path / "other/broker.sqlite", killed / "broker.sqlite")
    log = log_path(killed / "broker.sqlite").read_bytes()
    assert _names(SQLiteStore(killed)) == ["other"]
    assert len(messages(caplog)) == 1
    assert "it was replaced" in caplog.text
    (aside,) = killed.glob("replaced-*/broker.sqlite-wal")
    assert str(aside.parent) in caplog.text
    assert aside.read_bytes() == log
    caplog.clear()
    assert _names(SQLiteStore(killed)) == ["other"]
    assert messages(caplog) == []


def test_a_database_that_comes_with_its_log_is_served_with_it(
    killed: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = _other(tmp_path / "other")
    for name in ("broker.sqlite", "broker.sqlite-wal"):
        shutil.copyfile(tmp_path / "other" / name, killed / name)
    other.close()
    assert _names(SQLiteStore(killed)) == ["other"]
    assert len(messages(caplog)) == 1
    assert "it was replaced" in caplog.text
    assert list(killed.glob("replaced-*")) == []


def test_a_completely_restored_folder_is_not_reported(
    killed: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(killed, tmp_path / "copy")
    store = SQLiteStore(killed)
    store.open()
    _put(store, "late")
    store.close()
    shutil.rmtree(killed)
    shutil.copytree(tmp_path / "copy", killed)
    assert _names(SQLiteStore(killed)) == _RECORDS
    assert messages(caplog) == []
