"""Repairs that are interrupted, have no room, or meet a disk or a folder that can't be read."""

import errno
import os
import shutil
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Final

import pytest

from rabbitry.broker._store import pages, rescue
from rabbitry.broker._store.batch import Batch
from rabbitry.broker._store.files import read_at
from rabbitry.broker._store.pages import Image
from rabbitry.broker._store.rescue import alone, rebuild, room_for_repair, survey
from rabbitry.broker._store.sqlite import SQLiteStore
from rabbitry.broker.exceptions import StoreFailed
from rabbitry.broker.message import Entry, Message
from rabbitry.runtime.files import sync
from tests.broker.store import test_damage as damage

_NOBODY: Final = 65534
_STEPS: Final = 7
"""Files and folders that a repair syncs."""


class _Killed(BaseException):
    """The process ends."""


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """The folder of a killed broker, with a damaged page of its database, and messages in its log alone."""
    store = SQLiteStore(tmp_path / "running")
    store.open()
    store.apply(Batch(records=damage._record("q", 1)))
    store.apply(damage._batch(0, damage._COUNT))
    assert store._checkpoint()
    store.apply(damage._batch(100, 10))
    folder = tmp_path / "data"
    shutil.copytree(tmp_path / "running", folder)
    store.close()
    size = (folder / "broker.sqlite").stat().st_size
    page = next(n for n in range(4, size // 4096) if damage._content(3) in _page(folder, n))
    damage._overwrite(folder / "broker.sqlite", page, bytes(4096))
    return folder


def _page(folder: Path, number: int) -> bytes:
    return (folder / "broker.sqlite").read_bytes()[(number - 1) * 4096 : number * 4096]


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name != "lock"}


@pytest.mark.parametrize("step", range(_STEPS + 1))
def test_a_repair_that_is_killed_is_done_again_or_finished(
    damaged: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    whole = shutil.copytree(damaged, damaged.parent / "whole")
    rebuild(whole)
    expected = damage._served(whole)
    assert damage._content(105) in expected
    assert len(expected) >= damage._COUNT + 10 - 8
    done = 0

    def dying(path: Path) -> None:
        nonlocal done
        if done == step:
            raise _Killed
        done += 1
        sync(path)

    monkeypatch.setattr(rescue, "sync", dying)
    try:
        rebuild(damaged)
    except _Killed:
        assert step < _STEPS
    else:
        assert step == _STEPS
    monkeypatch.undo()
    assert damage._served(damaged) == expected
    assert [path.name for path in damaged.iterdir() if path.name.endswith(("-new", "-rebuilt", "-link"))] == []


def test_a_repair_without_room_changes_nothing(damaged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed, _ = room_for_repair(damaged)
    before = _contents(damaged)
    assert needed > sum(len(damage._content(number)) for number in range(damage._COUNT))
    usage = shutil.disk_usage(damaged)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=needed - 1))
    with pytest.raises(StoreFailed, match=r"no room in .* to rebuild the damaged store: that needs [0-9.]+ MB"):
        rebuild(damaged)
    assert _contents(damaged) == before
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=needed))
    rebuild(damaged)
    assert damage._content(105) in damage._served(damaged)


def test_a_file_system_without_links_needs_room_for_copies(damaged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed, _ = room_for_repair(damaged)
    before = _contents(damaged)

    def link(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    copies = sum(len(before[name]) for name in ("broker.sqlite", "broker.sqlite-wal"))
    assert room_for_repair(damaged)[0] == needed + copies
    _, aside = rebuild(damaged)
    assert (aside / "broker.sqlite").read_bytes() == before["broker.sqlite"]
    assert (aside / "broker.sqlite-wal").read_bytes() == before["broker.sqlite-wal"]


@pytest.mark.parametrize("trunk", [2, 5, 1 << 20, (1 << 32) - 1])
def test_a_damaged_list_of_free_pages_loses_nothing(damaged: Path, trunk: int) -> None:
    with open(damaged / "broker.sqlite", "r+b") as file:
        file.seek(32)
        file.write(trunk.to_bytes(4, "big"))
    found = survey(damaged)
    assert not found.is_whole
    rebuild(damaged)
    assert damage._content(105) in damage._served(damaged)


class _BadSector(BytesIO):
    """A file with one unreadable page."""

    def __init__(self, data: bytes, page: int) -> None:
        super().__init__(data)
        self._bad = (page - 1) * 4096

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell() == self._bad:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().read(size)


def test_an_unreadable_page_counts_as_damaged(damaged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = survey(damaged).queues
    data = (damaged / "broker.sqlite").read_bytes()
    bad = next(n for n in range(2, len(data) // 4096) if damage._content(9) in _page(damaged, n))
    made = Image.__init__

    def with_bad_sector(image: Image, database: Path) -> None:
        made(image, database)
        assert image._file is not None
        image._file.close()
        image._file = _BadSector(data, bad)  # type: ignore[assignment] # it reads as a file does

    monkeypatch.setattr(Image, "__init__", with_bad_sector)
    found = survey(damaged)
    assert any(f"page {bad} is not in the file" in line for line in found.lines())
    assert 0 < expected["'q' of '/'"] - found.queues["'q' of '/'"] <= 8


def test_an_unreadable_log_counts_up_to_the_error(damaged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = survey(damaged).queues["'q' of '/'"]
    log = damaged / "broker.sqlite-wal"
    image = Image(damaged / "broker.sqlite")
    image.close()
    bad = 32 + image.log_frames // 2 * (24 + 4096)

    def reading(file: BinaryIO, start: int, size: int) -> bytes | None:
        return None if file.name == str(log) and start == bad else read_at(file, start, size)

    monkeypatch.setattr(pages, "read_at", reading)
    before = _contents(damaged)
    with pytest.raises(StoreFailed, match="the disk can't read a part of the store"):
        rebuild(damaged)
    assert _contents(damaged) == before
    found, _ = rebuild(damaged, despite_errors=True)
    assert "frame" in found.log_damage
    assert whole - 10 <= found.queues["'q' of '/'"] < whole


@contextmanager
def _as_nobody() -> Iterator[None]:
    """Run as a user without access to root's files."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(_NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def _close_folder(folder: Path) -> None:
    folder.chmod(0)


def _close_database(folder: Path) -> None:
    for path in (folder, *folder.parents[:3]):
        path.chmod(0o755)
    (folder / "lock").chmod(0o644)
    (folder / "broker.sqlite").chmod(0)


@pytest.mark.parametrize("close", [_close_folder, _close_database])
@pytest.mark.parametrize("act", [survey, rebuild])
def test_an_unreadable_folder_is_reported(
    damaged: Path, close: Callable[[Path], None], act: Callable[[Path], Any]
) -> None:
    before = _contents(damaged)
    modes = {path: path.stat().st_mode for path in (damaged, *damaged.parents[:3])}
    close(damaged)
    try:
        with _as_nobody(), pytest.raises(StoreFailed, match="Permission denied"), alone(damaged):
            act(damaged)
    finally:
        for path, mode in modes.items():
            path.chmod(mode)
        (damaged / "broker.sqlite").chmod(0o644)
    assert _contents(damaged) == before


def test_damage_beyond_the_limit_is_counted(damaged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rescue, "_MOST_NOTED", 2)
    for page in range(3, 9):
        damage._overwrite(damaged / "broker.sqlite", page, b"\xff" * 4096)
    found = survey(damaged)
    assert found.further >= 1
    assert f"{found.further:,} more damaged parts" in found.lines()


def test_a_repair_holds_few_of_the_messages_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rescue, "_MOST_KEPT", 400_000)
    count, body = 40, bytes(100_000)
    store = SQLiteStore(tmp_path)
    store.open()
    added: dict[Entry, int] = {}
    for number in range(count):
        message = Message(b"\0\1q", damage._HEADER + len(body).to_bytes(8, "big") + b"\0\0", body, True)
        message.id = number + 1
        message.copies = 1
        added[Entry(number, message)] = 1
    store.apply(Batch(records=damage._record("q", 1), added=added))
    store.close()
    tracemalloc.start()
    try:
        found, _ = rebuild(tmp_path)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found.queues == {"'q' of '/'": count}
    assert most < count * len(body) // 3
