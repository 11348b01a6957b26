"""A disk that fails under a running broker: confirmed messages survive, and nothing is written after the error.

strace injects the errors into the broker's system calls.
"""

import re
import shutil
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import pika
import pika.exceptions
import pytest

from rabbitry.broker._store import errors
from rabbitry.broker._store.batch import Batch
from rabbitry.broker._store.sqlite import SQLiteStore
from rabbitry.broker.message import Entry, Message
from tests.broker.store import test_damage as damage
from tests.support import programs
from tests.support.embedded import BrokerProcess

_CALLS: Final = "pwrite64,fdatasync,fsync,ftruncate,unlink,rename"
_MOST: Final = 200


@pytest.fixture
def strace() -> None:
    programs.require(None if shutil.which("strace") else "strace is not installed")


def _publish_until_it_fails(broker: BrokerProcess) -> list[bytes]:
    """Publish until the broker closes the connection; return the confirmed bodies."""
    confirmed: list[bytes] = []
    with pytest.raises(pika.exceptions.AMQPError):  # noqa: PT012 # any of these steps may meet the error
        connection = pika.BlockingConnection(pika.URLParameters(broker.url))
        channel = connection.channel()
        channel.confirm_delivery()
        channel.queue_declare("q", durable=True)
        for number in range(_MOST):
            body = b"%d" % number
            channel.basic_publish("", "q", body, pika.BasicProperties(delivery_mode=2))
            confirmed.append(body)
    return confirmed


def _bodies(broker: BrokerProcess, found: list[bytes] | None = None) -> list[bytes]:
    """Take all messages; those taken are in `found` whatever comes after them."""
    found = [] if found is None else found
    with pika.BlockingConnection(pika.URLParameters(broker.url)) as connection:
        channel = connection.channel()
        channel.queue_declare("q", durable=True)
        while (got := channel.basic_get("q", auto_ack=True))[0] is not None:
            found.append(got[2])
        return found


@pytest.mark.usefixtures("strace")
@pytest.mark.parametrize(
    ("call", "error", "when", "name"),
    [
        ("fdatasync", "EIO", "30", "SQLITE_IOERR_FSYNC"),  # once, as Linux does
        ("pwrite64", "EROFS", "60+", "SQLITE_IOERR_WRITE"),
    ],
)
def test_an_error_of_the_disk_ends_the_broker(tmp_path: Path, call: str, error: str, when: str, name: str) -> None:
    folder, traced = tmp_path / "data", tmp_path / "strace"
    traced_files = ("-P", str(folder / "broker.sqlite"), "-P", str(folder / "broker.sqlite-wal"))
    injected = ("-e", f"trace={_CALLS}", "-e", f"inject={call}:error={error}:when={when}")
    strace = ("strace", "-f", "-qq", "-o", str(traced), *traced_files, *injected)
    broker = BrokerProcess("--data", str(folder), prefix=strace)
    with broker:
        confirmed = _publish_until_it_fails(broker)
        assert broker.wait() == 1
        lines = [line for line in broker.output().splitlines() if "CRITICAL" in line or "ERROR" in line]
        assert len(lines) == 1
        assert name in lines[0]
        assert "nothing is confirmed that is not written: see dmesg" in lines[0]
    after = traced.read_text().partition("(INJECTED)")[2]
    assert after  # the line's end
    written = [line for line in after.splitlines() if re.search(r"\b(pwrite64|fdatasync|fsync|ftruncate)\(", line)]
    assert [line for line in written if "INJECTED" not in line] == []
    assert len(written) <= 1  # SQLite itself tries a failed write of a commit's last frame once more
    with BrokerProcess("--data", str(folder)) as again:
        found = _bodies(again)
    assert found[: len(confirmed)] == confirmed
    assert len(found) <= len(confirmed) + 1  # one was sent that was not confirmed


def _failing(path: Path, whens: Mapping[str, str]) -> Sequence[str]:
    """Return the command that lets system calls on a file fail, each of them from a certain one on."""
    injected = [word for call, when in whens.items() for word in ("-e", f"inject={call}:error=EIO:when={when}")]
    return ("strace", "-f", "-qq", "-o", "/dev/null", "-P", str(path), *injected)


def _stored(store: SQLiteStore, count: int) -> list[bytes]:
    """Put messages of five pages each into a queue "q", and return their bodies."""
    store.open()
    bodies = [b"%d:" % number + bytes(20_000) for number in range(count)]
    added: dict[Entry, int] = {}
    for number, body in enumerate(bodies):
        header = damage._HEADER + len(body).to_bytes(8, "big") + b"\x10\0\2"
        message = Message(b"\0\1q", header, body, True)
        message.id = number + 1
        message.copies = 1
        added[Entry(number, message)] = 1
    store.apply(Batch(records=damage._record("q", 1), added=added))
    return bodies


@pytest.mark.usefixtures("strace")
def test_a_failing_read_ends_the_broker_and_loses_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    store = SQLiteStore(folder)
    bodies = _stored(store, 300)
    store.close()
    # The start needs few of the 1,500 pages, and the consumer all of them. SQLite reads each with `pread64`, and the
    # repair with `read`, from Python 3.14 on 32 at a time.
    prefix = _failing(folder / "broker.sqlite", {"pread64": "800+", "read": "20+"})
    with BrokerProcess("--data", str(folder), prefix=prefix) as broker:
        taken: list[bytes] = []  # a busy machine reads the messages in parts
        with pytest.raises(pika.exceptions.AMQPError):
            _bodies(broker, taken)
        assert broker.wait() == 1
        (line,) = [line for line in broker.output().splitlines() if "CRITICAL" in line or "ERROR" in line]
        assert f"the disk can't read a part of the store {folder / 'broker.sqlite'}: see dmesg" in line
        assert f"run rabbitry broker repair {folder}; nothing was changed" in line
    with BrokerProcess("--data", str(folder)) as again:
        left = _bodies(again)  # also some that were taken, if the broker ended before it had written that
        assert (taken, left) == (bodies[: len(taken)], bodies[len(bodies) - len(left) :])
        assert len(taken) + len(left) >= len(bodies)
        assert "ERROR" not in again.output()


@pytest.mark.usefixtures("strace")
@pytest.mark.parametrize("whens", [{"read": "1+", "pread64": "1+"}, {"pread64": "5"}], ids=["all", "one"])
def test_an_unreadable_log_is_left_unchanged(tmp_path: Path, whens: Mapping[str, str]) -> None:
    store = SQLiteStore(tmp_path / "running")
    bodies = _stored(store, 10)
    folder = tmp_path / "data"
    shutil.copytree(tmp_path / "running", folder)
    store.close()
    log = folder / "broker.sqlite-wal"
    before = log.read_bytes()
    with pytest.raises(RuntimeError, match=f"broker repair {folder}"):
        BrokerProcess("--data", str(folder), prefix=_failing(log, whens)).__enter__()
    assert log.read_bytes() == before
    with BrokerProcess("--data", str(folder)) as again:
        assert _bodies(again) == bodies
        assert "ERROR" not in again.output()


def test_a_read_only_file_system_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = sqlite3.OperationalError("disk I/O error")
    text = errors.failure(error, tmp_path / "broker.sqlite")
    assert "read-only" not in text
    assert not errors.is_read_only(tmp_path)
    assert not errors.is_read_only(tmp_path / "missing")
    monkeypatch.setattr(errors, "is_read_only", lambda folder: folder == tmp_path)
    text = errors.failure(error, tmp_path / "broker.sqlite")
    assert "its file system is read-only now" in text
    assert "\n" not in text
