"""The embedded broker for tests: in a thread of the test process, or as a process of its own."""

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import Future
from types import TracebackType
from typing import Any

from warren.broker import Broker

_DEADLINE = 20.0


class BrokerThread:
    """An embedded broker with an event loop of its own in a thread, so that blocking clients can use it.

    A context manager; `url` is valid inside. An exception that the broker's loop was left with
    (a task or a callback that failed) is raised when the block is left.
    """

    url: str
    port: int

    def __init__(self) -> None:
        self._started: Future[Broker] = Future()
        self._thread = threading.Thread(target=self._run, name="embedded-broker")
        self._failures: list[BaseException] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.Event | None = None

    def __enter__(self) -> "BrokerThread":
        self._thread.start()
        broker = self._started.result(_DEADLINE)
        self.url, self.port = broker.url, broker.port
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._loop is not None
        assert self._ended is not None
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(_DEADLINE)
        if self._thread.is_alive():
            raise TimeoutError(f"the embedded broker did not close within {_DEADLINE} s")
        if self._failures:
            raise BaseExceptionGroup("the embedded broker's event loop", self._failures)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve(), debug=True)
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits for it
            if self._started.done():
                self._failures.append(error)
            else:
                self._started.set_exception(error)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(self._failed)
        self._ended = asyncio.Event()
        async with Broker(host="127.0.0.1", port=0) as broker:
            self._started.set_result(broker)
            await self._ended.wait()

    def _failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self._failures.append(error if isinstance(error, BaseException) else RuntimeError(context["message"]))


class BrokerProcess:
    """`warren broker` as a process of its own, on a free port; to be killed and paused.

    A context manager. `options` are added to the command line; without `--data` it keeps everything in memory.
    After `kill` or `stop`, `start` starts
    it anew on the same port.
    """

    def __init__(self, *options: str) -> None:
        self.port = 0
        self._options = options if "--data" in options else (*options, "--memory")
        self._process: subprocess.Popen[bytes] | None = None
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed in __exit__

    @property
    def url(self) -> str:
        """The URL of its virtual host "/"."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    @property
    def pid(self) -> int:
        """Process id of the running broker."""
        return self._running().pid

    def start(self) -> None:
        """Start it and wait for its ready line; raises RuntimeError with its output where none comes."""
        self._output.seek(0)
        self._output.truncate()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "warren", "broker", "--port", str(self.port), *self._options],
            stdin=subprocess.DEVNULL, stdout=self._output.fileno(), stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        deadline = time.monotonic() + _DEADLINE
        while True:
            text = os.pread(self._output.fileno(), 65536, 0).decode(errors="replace")
            if found := re.search(r"^warren broker ready amqp://127\.0\.0\.1:(\d+)/.*\n", text, re.MULTILINE):
                self.port = int(found[1])
                return
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"warren broker printed no ready line:\n{text}")
            time.sleep(0.01)

    def stop(self) -> int:
        """Shut it down in order (SIGTERM) and return its exit code."""
        process = self._running()
        process.terminate()
        code = process.wait(_DEADLINE)
        self._process = None
        return code

    def kill(self) -> None:
        """End it at once (SIGKILL)."""
        process = self._running()
        process.kill()
        process.wait()
        self._process = None

    def pause(self) -> None:
        """Stop the process (SIGSTOP): it keeps its sockets and answers nothing."""
        self._running().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused broker go on."""
        self._running().send_signal(signal.SIGCONT)

    def __enter__(self) -> "BrokerProcess":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.closing(self._output):
            if self._process is not None:
                self.kill()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("the embedded broker does not run")
        return self._process
