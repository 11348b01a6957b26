"""A data folder that is removed or replaced under a running store: nothing is confirmed into it."""

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

import rabbitry
from rabbitry.broker import Broker, BrokerConfig, StoreFailed
from rabbitry.broker._store.batch import Batch
from rabbitry.broker._store.sqlite import SQLiteStore


def _remove_folder(folder: Path) -> None:
    shutil.rmtree(folder)


def _replace_folder(folder: Path) -> None:
    folder.rename(folder.with_name("before"))
    shutil.copytree(folder.with_name("before"), folder)


def _remove_database(folder: Path) -> None:
    (folder / "broker.sqlite").unlink()


def _remove_log(folder: Path) -> None:
    (folder / "broker.sqlite-wal").unlink()


@pytest.mark.parametrize("damage", [_remove_folder, _replace_folder, _remove_database, _remove_log])
async def test_nothing_is_confirmed_once_the_files_are_gone_or_replaced(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    with pytest.raises(StoreFailed, match="while the broker ran"):
        await _publish_after(damage, tmp_path / "data")


async def _publish_after(damage: Callable[[Path], None], folder: Path) -> None:
    async with (
        Broker(BrokerConfig(port=0, data=folder)) as broker,
        rabbitry.connect(broker.url, recover=False) as connection,
    ):
        channel = await connection.channel()
        await channel.declare_queue("q", durable=True)
        await channel.publish(b"before", routing_key="q")
        damage(folder)
        receipt = await channel.send(b"after", routing_key="q")
        error = await broker.failed
        assert "while the broker ran" in str(error)
        assert not receipt.done()
        receipt.cancel()


def test_closing_leaves_the_files_that_replaced_its_own(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "data")
    store.open()
    store.apply(Batch(records={("queue", "q"): {"a": 1}}))
    _replace_folder(tmp_path / "data")
    before = {path.name: path.read_bytes() for path in (tmp_path / "data").iterdir()}
    assert "broker.sqlite-wal" in before
    with pytest.raises(StoreFailed, match="replaced while the broker ran"):
        store.close()
    assert {path.name: path.read_bytes() for path in (tmp_path / "data").iterdir()} == before
    other = SQLiteStore(tmp_path / "data")
    assert other.open().records == {("queue", "q"): {"a": 1}}
    other.close()


def test_a_failed_checkpoint_is_logged_once_and_its_end_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = SQLiteStore(tmp_path)
    store.open()
    store.apply(Batch(records={("queue", "q"): {"a": 1}}))
    connection = store._open_connection()

    class Failing:
        def execute(self, statement: str) -> sqlite3.Cursor:
            if "wal_checkpoint" in statement:
                raise sqlite3.OperationalError("disk I/O error")
            return connection.execute(statement)

    with monkeypatch.context() as patch:
        patch.setattr(store, "_open_connection", Failing)
        store.tidy(is_short=False)
        store._was_busy = True
        store.tidy(is_short=False)
    store._was_busy = True
    store.tidy(is_short=False)
    assert caplog.text.count("can't copy its log into the database (disk I/O error)") == 1
    assert caplog.text.count("can copy its log into the database again") == 1
    store.close()
