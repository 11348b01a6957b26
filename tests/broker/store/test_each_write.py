"""A broker that dies at its Nth write, for each N, and again while it recovers: its promises are kept.

strace counts the calls and sends SIGKILL. A client (pika) runs a fixed script and records the broker's promises; after
the restart it checks them.
"""

import contextlib
import fcntl
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pika
import pika.exceptions
import pytest

from tests.support import programs
from tests.support.embedded import BrokerProcess
from tests.support.waiting import eventually_blocking

_DIED: Final = (pika.exceptions.AMQPError, OSError)
_MOST_WRITES: Final = 2000


@dataclass
class _Promises:
    """The broker's positive answers, and the requests."""

    declared: set[str] = field(default_factory=set)
    deleted: set[str] = field(default_factory=set)
    sent: set[bytes] = field(default_factory=set)
    confirmed: set[bytes] = field(default_factory=set)
    acked: set[bytes] = field(default_factory=set)
    committed: bool = False


def _open(broker: BrokerProcess) -> Any:
    return pika.BlockingConnection(pika.URLParameters(broker.url))


def _script(broker: BrokerProcess, promises: _Promises) -> None:
    """Go through everything that a store has to keep. Raises one of _DIED when the broker does."""
    with _open(broker) as connection:
        channel = connection.channel()
        channel.confirm_delivery()

        def declare(queue: str, **arguments: object) -> None:
            channel.queue_declare(queue, durable=True, arguments=arguments)
            promises.declared.add(queue)

        def publish(queue: str, body: bytes) -> None:
            promises.sent.add(body)
            channel.basic_publish("", queue, body, pika.BasicProperties(delivery_mode=2))
            promises.confirmed.add(body)

        declare("q")
        for number in range(6):
            publish("q", b"%d" % number)
        for _ in range(3):
            method, _, body = channel.basic_get("q")
            promises.acked.add(body)
            channel.basic_ack(method.delivery_tag)
        publish("q", b"x" * 20_000)
        declare("dead")
        declare("work", **{"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"})
        publish("work", b"dies")
        method, _, _ = channel.basic_get("work")
        channel.basic_reject(method.delivery_tag, requeue=False)
        declare("gone")
        publish("gone", b"with its queue")
        channel.queue_delete("gone")
        promises.deleted.add("gone")
        declare("tx")
        publish("tx", b"before")
        in_transaction = connection.channel()
        in_transaction.tx_select()
        method, _, _ = in_transaction.basic_get("tx")
        in_transaction.basic_ack(method.delivery_tag)
        for body in (b"one", b"two"):
            in_transaction.basic_publish("", "tx", body, pika.BasicProperties(delivery_mode=2))
        in_transaction.tx_commit()
        promises.committed = True
        publish("q", b"last")


def _check(broker: BrokerProcess, promises: _Promises) -> None:
    with _open(broker) as connection:
        found = {queue: _drain(connection, queue) for queue in ("q", "dead", "work", "gone", "tx")}
    there = {queue for queue, bodies in found.items() if bodies is not None}
    assert promises.declared - {"gone"} - there == set(), "declared and lost"
    assert promises.deleted & there == set(), "deleted and back"
    bodies = found["q"] or []
    assert len(bodies) == len(set(bodies)), "twice"
    mine = {body for body in promises.confirmed if body.isdigit() or body in (b"x" * 20_000, b"last")}
    assert mine - promises.acked - set(bodies) == set(), "confirmed and lost"
    assert set(bodies) - promises.sent == set(), "never published"
    letters = [*(found["work"] or []), *(found["dead"] or [])]
    if b"dies" in promises.confirmed:
        assert letters == [b"dies"], "a dead letter is in one queue, whole"
    transaction = found["tx"] or []
    if promises.committed:
        assert transaction == [b"one", b"two"]
    elif b"before" in promises.confirmed:
        assert transaction in ([b"before"], [b"one", b"two"]), "a transaction is there or it is not"


def _drain(connection: Any, queue: str) -> list[bytes] | None:
    channel = connection.channel()
    try:
        channel.queue_declare(queue, passive=True)
    except pika.exceptions.ChannelClosedByBroker:
        return None
    bodies: list[bytes] = []
    while True:
        method, _, body = channel.basic_get(queue)
        if method is None:
            channel.close()  # nothing was acknowledged: all goes back
            return bodies
        bodies.append(body)


def _die_at(folder: Path, call: str, when: int, promises: _Promises | None, module: str = "rabbitry") -> bool:
    """Start a broker, go through the script (None: do nothing), and have it killed at a system call.

    Gives whether it came so far.
    """
    inject = f"inject={call}:signal=SIGKILL:when={when}"
    strace = ("strace", "-f", "-qq", "-o", os.devnull, "-e", f"trace={call}", "-e", inject)
    broker = BrokerProcess("--data", str(folder), prefix=strace, module=module)
    with contextlib.ExitStack() as stack:
        stack.push(broker)
        try:
            broker.start()
            if promises is not None:
                _script(broker, promises)
        except (RuntimeError, *_DIED):
            return True
    return False


def _die_and_look(folder: Path, call: str, when: int, again: int, module: str = "rabbitry") -> bool:
    """Let a broker die at a call and, with `again`, at that call of its recovery; then check its contents."""
    promises = _Promises()
    died = _die_at(folder, call, when, promises, module)
    _wait_for_its_end(folder)
    if again:
        _die_at(folder, call, again, None)
        _wait_for_its_end(folder)
    with BrokerProcess("--data", str(folder)) as broker:
        _check(broker, promises)
    return died


def _wait_for_its_end(folder: Path) -> None:
    """Wait until a broker has let go of its data folder: a thread of it may still be in a write when it was killed."""

    def is_free() -> bool:
        with open(folder / "lock", "a+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
        return True

    if (folder / "lock").exists():
        eventually_blocking(is_free, f"the end of the broker on {folder}")


@pytest.fixture(autouse=True)
def strace() -> None:
    programs.require(None if shutil.which("strace") else "strace is not installed")


@pytest.mark.parametrize(("call", "when", "again"), [
    ("pwrite64", 1, 0), ("pwrite64", 30, 0), ("pwrite64", 61, 2), ("fdatasync", 9, 0), ("fdatasync", 17, 1),
])  # fmt: skip
def test_a_broker_that_dies_at_a_write_keeps_its_promises(tmp_path: Path, call: str, when: int, again: int) -> None:
    assert _die_and_look(tmp_path, call, when, again)


def test_a_broker_that_confirms_before_it_writes_is_caught(tmp_path: Path) -> None:
    def die() -> None:
        for when in range(20, 80, 3):  # before a write: what it is about was confirmed however slow the client is
            _die_and_look(tmp_path / f"{when}", "pwrite64", when, 0, "tests.support.hasty_broker")

    with pytest.raises(AssertionError, match="confirmed and lost"):
        die()


@pytest.mark.faults
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("call", ["pwrite64", "fdatasync", "ftruncate"])
def test_a_broker_that_dies_at_any_write_keeps_its_promises(tmp_path: Path, call: str) -> None:
    for when in range(1, _MOST_WRITES):
        if not _die_and_look(tmp_path / f"{when}", call, when, when % 4):
            print(f"died at each of {when - 1} {call}")
            assert when > 1
            return
    pytest.fail(f"the script has more than {_MOST_WRITES} {call}")
