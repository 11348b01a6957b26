"""A start that fails half-way, or is cancelled: it raises one error, and leaves nothing behind."""

import asyncio
import contextlib
import os
import resource
import shutil
import socket
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rabbitry.broker import Broker, BrokerConfig, StoreFailed
from rabbitry.broker._management.server import ManagementServer
from rabbitry.broker._recovery import Recovery
from rabbitry.broker._store.sqlite import SQLiteStore
from rabbitry.exceptions import RabbitryError, UsageError
from tests.broker.starting import is_kept, keep_a_message, settings
from tests.support.leaks import no_leaks_in_block

Prepare = Callable[[pytest.MonkeyPatch], None]


async def _fails_to_start(config: BrokerConfig, error: type[Exception], words: str) -> None:
    async with no_leaks_in_block():
        with pytest.raises(error, match=words):
            await Broker(config).__aenter__()


@pytest.mark.parametrize("which", ["port", "tls_port", "management_port"])
async def test_a_port_that_is_taken_undoes_the_start(which: str, tmp_path: Path) -> None:
    await keep_a_message(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        words = f"can't listen on 127.0.0.1 port {port}: Address already in use"
        await _fails_to_start(settings(tmp_path, **{which: port}), OSError, words)
    assert await is_kept(tmp_path)


@pytest.mark.parametrize("failing", ["tls_port", "management_port", "store"])
async def test_sockets_that_were_given_are_closed_if_the_start_fails(failing: str, tmp_path: Path) -> None:
    (tmp_path / "broker.sqlite").mkdir()
    kinds = {"listeners", "tls_listeners", "management_listeners"}
    with socket.create_server(("127.0.0.1", 0)) as server:
        more: dict[str, Any] = {} if failing == "store" else {failing: server.getsockname()[1]}
        kinds -= {failing.replace("_port", "_listeners")}
        given = {kind: [socket.create_server(("127.0.0.1", 0))] for kind in kinds}
        with pytest.raises((OSError, StoreFailed)):
            await Broker(settings(tmp_path, **given, **more)).__aenter__()
    assert [listener.fileno() for (listener,) in given.values()] == [-1] * len(given)


async def test_a_missing_package_undoes_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rabbitry.broker.broker.find_spec", lambda name: None)
    listener = socket.create_server(("127.0.0.1", 0))
    await _fails_to_start(settings(tmp_path, listeners=[listener]), UsageError, "needs 'starlette'")
    assert listener.fileno() == -1


async def test_a_locked_data_folder_undoes_the_start(tmp_path: Path) -> None:
    async with Broker(BrokerConfig(port=0, data=tmp_path)):
        await _fails_to_start(settings(tmp_path), StoreFailed, "another broker uses the data folder")


def _of_a_newer_version(folder: Path) -> None:
    with contextlib.closing(sqlite3.connect(folder / "broker.sqlite")) as store:
        store.execute("CREATE TABLE a (b)")
        store.execute("PRAGMA user_version = 99")


def _a_folder(folder: Path) -> None:
    (folder / "broker.sqlite").mkdir()


def _not_a_store(folder: Path) -> None:
    # Without SQLite's header: Python 3.11 leaves a database open that SQLite found damaged (`SQLiteStore._leave`).
    (folder / "broker.sqlite").write_bytes(b"no database " * 500)


@pytest.mark.parametrize(
    ("damage", "words"),
    [(_of_a_newer_version, "newer Rabbitry"), (_a_folder, "Is a directory"), (_not_a_store, "is not a store")],
)
async def test_a_store_that_cannot_be_opened_undoes_the_start(
    damage: Callable[[Path], None], words: str, tmp_path: Path
) -> None:
    damage(tmp_path)
    await _fails_to_start(settings(tmp_path), StoreFailed, words)
    shutil.rmtree(tmp_path / "broker.sqlite", ignore_errors=True)
    (tmp_path / "broker.sqlite").unlink(missing_ok=True)
    await keep_a_message(tmp_path)  # nobody has the folder


@pytest.mark.parametrize("error", [StoreFailed("broken"), RuntimeError("broken")])
async def test_a_failure_while_opening_or_restoring_a_store_undoes_the_start(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await keep_a_message(tmp_path)
    run, contents = Recovery.run, SQLiteStore._contents

    async def broken(recovery: Recovery) -> None:
        await run(recovery)
        raise error

    def unreadable(store: SQLiteStore) -> object:
        contents(store)
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(Recovery, "run", broken)
        await _fails_to_start(settings(tmp_path), type(error), "broken")
    with monkeypatch.context() as patch:
        patch.setattr(SQLiteStore, "_contents", unreadable)
        await _fails_to_start(settings(tmp_path), type(error), "broken")
    assert await is_kept(tmp_path)


async def test_an_unused_store_is_released_as_it_was_found(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with Broker(BrokerConfig(port=0, data=tmp_path / "running")) as broker:
        await keep_a_message(broker)
        shutil.copytree(tmp_path / "running", tmp_path / "crashed")  # as a crash would leave it
    for folder, is_clean in (("crashed", False), ("running", True)):
        store = SQLiteStore(tmp_path / folder)
        assert store.open().clean == is_clean
        store.give_back()
        again = shutil.copytree(tmp_path / folder, tmp_path / f"{folder}-again")
        opened = SQLiteStore(again)
        contents = opened.open()
        opened.close()
        assert contents.clean == is_clean
        assert [backlog.messages for backlog in contents.backlogs] == [1]
    assert "has no log" not in caplog.text
    assert "lacks" not in caplog.text


@pytest.mark.parametrize("step", ["opening", "restoring", "loading"])
async def test_a_cancelled_start_leaves_nothing_behind(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await keep_a_message(tmp_path)
    loop, reached = asyncio.get_running_loop(), asyncio.Event()

    async def waiting(*_: object) -> None:
        reached.set()
        await asyncio.Event().wait()

    opens = SQLiteStore.open

    def opening(store: SQLiteStore) -> object:
        loop.call_soon_threadsafe(reached.set)
        return opens(store)

    with monkeypatch.context() as patch:
        if step == "opening":
            patch.setattr(SQLiteStore, "open", opening)
        elif step == "restoring":
            patch.setattr(Recovery, "run", waiting)
        else:
            patch.setattr(ManagementServer, "start", waiting)
        async with no_leaks_in_block():
            starting = asyncio.create_task(Broker(settings(tmp_path)).__aenter__())
            await reached.wait()
            starting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await starting
    assert await is_kept(tmp_path)


@contextlib.contextmanager
def _descriptors_left(count: int) -> Iterator[None]:
    """Let this process open only so many more descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    probe = os.open("/dev/null", os.O_RDONLY)  # the lowest free number
    os.close(probe)
    resource.setrlimit(resource.RLIMIT_NOFILE, (probe + count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_a_start_without_descriptors_raises_one_error_at_any_step(tmp_path: Path) -> None:
    await keep_a_message(tmp_path)
    async with Broker(settings(tmp_path)):
        pass  # everything is imported
    has_started = False
    for count in range(40):
        broker = Broker(settings(tmp_path))
        async with no_leaks_in_block():
            try:
                with _descriptors_left(count):
                    await broker.__aenter__()
            except (OSError, RabbitryError):
                assert not has_started, f"{count} descriptors, and fewer were enough"
            else:
                has_started = True
                await broker.__aexit__(None, None, None)
        if has_started:
            break
    assert has_started
    assert count > 5, "it has failed at several steps"
    assert await is_kept(tmp_path)
