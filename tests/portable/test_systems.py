"""Client, flow and broker as they run on each system: Linux, macOS and Windows (CI runs this folder on all three).

    python -m pytest --confcutdir tests/portable tests/portable

Nothing here needs more than the package, its extra `test` and pytest-asyncio; the other tests need Linux.
"""

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import rabbitry
from rabbitry.testing import RunningBroker
from tests.portable.apps import app
from tests.support.waiting import WITHIN, eventually_blocking

if sys.platform == "win32":
    _FLAGS, _END = subprocess.CREATE_NEW_PROCESS_GROUP, signal.CTRL_BREAK_EVENT
else:
    _FLAGS, _END = 0, signal.SIGINT


async def _send_through(url: str) -> str:
    """Return what became of a message."""
    async with app.publisher(url) as publisher, rabbitry.connect(url) as connection:
        await publisher.publish("x", key="a")
        channel = await connection.channel()
        async with channel.consume("portable.d") as deliveries:
            delivery = await anext(deliveries)
            delivery.ack()
            return delivery.body.decode()


class _Command:
    """A program that runs until it is told to end, and what it printed."""

    def __init__(self, *words: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-u", "-m", *words],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8",
            creationflags=_FLAGS,
        )  # fmt: skip
        self.printed = ""
        self._reading = threading.Thread(target=self._read)
        self._reading.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self.printed += line

    def wait_for(self, pattern: str) -> "re.Match[str]":
        eventually_blocking(
            lambda: re.search(pattern, self.printed) or self._process.poll() is not None, f"{pattern!r} in its output"
        )
        found = re.search(pattern, self.printed)
        assert found is not None, self.printed
        return found

    def end(self) -> int:
        """Tell it to end as a terminal does, and return its exit code."""
        self._process.send_signal(_END)
        return self._process.wait(WITHIN)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._reading.join()


@contextmanager
def _running(*words: str) -> Iterator[_Command]:
    command = _Command(*words)
    try:
        yield command
    finally:
        command.kill()


async def test_a_worker_handles_messages_in_processes_threads_and_tasks() -> None:
    with RunningBroker() as broker:
        async with app.worker(broker.url):
            assert await _send_through(broker.url) == "x123"


def test_a_second_broker_is_refused_on_a_data_folder(tmp_path: Path) -> None:
    with RunningBroker(data=tmp_path) as broker:
        with pytest.raises(rabbitry.RabbitryError, match=f"another broker uses .*{broker.port}"):
            with RunningBroker(data=tmp_path):
                pass
    with RunningBroker(data=tmp_path) as again, rabbitry.connect_blocking(again.url):
        pass


def test_scripts_publish_and_get() -> None:
    with RunningBroker() as broker, rabbitry.connect_blocking(broker.url) as connection:
        with connection.channel() as channel:
            channel.declare_queue("q")
            channel.publish(b"y", routing_key="q")
            found = channel.get("q", no_ack=True)
            assert found is not None
            assert found.body == b"y"


def test_a_broker_keeps_what_is_durable(tmp_path: Path) -> None:
    found: list[bytes] = []
    for number in range(3):
        with RunningBroker(data=tmp_path / "data") as broker, rabbitry.connect_blocking(broker.url) as connection:
            with connection.channel() as channel:
                channel.declare_queue("kept", durable=True)
                while (delivery := channel.get("kept", no_ack=True)) is not None:
                    found.append(delivery.body)
                channel.publish(b"%d" % number, routing_key="kept")
    assert found == [b"0", b"1"]


async def test_broker_and_worker_run_as_commands_until_they_are_told_to_end(tmp_path: Path) -> None:
    with _running("rabbitry", "broker", "--port", "0", "--data", str(tmp_path / "data"), "--no-management") as broker:
        url = broker.wait_for(r"ready (amqp://\S+)")[1]
        with _running("rabbitry", "worker", "tests.portable.apps:app", "--broker", url) as worker:
            worker.wait_for("portable: first, second, third")
            assert await _send_through(url) == "x123"
            assert worker.end() == 0, worker.printed
        assert broker.end() == 0, broker.printed


def test_a_broker_for_tests_runs_until_it_is_told_to_end() -> None:
    with _running("rabbitry.testing") as broker:
        url = broker.wait_for(r"amqp://\S+")[0]
        with rabbitry.connect_blocking(url) as connection, connection.channel() as channel:
            channel.declare_queue("q")
        assert broker.end() == 0, broker.printed
