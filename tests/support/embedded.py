"""The embedded broker as a process of its own; `rabbitry.testing.RunningBroker` runs one in the test process."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from types import TracebackType

import psutil

from tests.support.launcher import Launched, launch
from tests.support.ports import free_port
from tests.support.processes import is_gone
from tests.support.waiting import eventually_blocking

_DEADLINE = 90.0


class BrokerProcess:
    """`rabbitry broker` as a process of its own, on a free port; to be killed and paused.

    A context manager. `options` are added to the command line; without `--data` it keeps everything in memory, and
    without `--management-port` it has no management API. anew: with a Python of its own, whose memory is not the
    launcher's. After `kill` or `stop`, `start` starts it anew on the same port.
    """

    def __init__(self, *options: str, module: str = "rabbitry", prefix: Sequence[str] = (), anew: bool = False) -> None:
        # No port that the system chose: while the broker is down, an outgoing connection could be given that one.
        self.port = free_port()
        self._command = [*prefix, sys.executable, "-m", module]
        self._is_prefixed = bool(prefix)
        self._is_launched = not (anew or prefix or module != "rabbitry")
        self._options = [*options, *([] if "--data" in options else ["--memory"])]
        self._options += [] if "--management-port" in options else ["--no-management"]
        self._process: Launched | subprocess.Popen[bytes] | None = None
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed in __exit__

    @property
    def url(self) -> str:
        """The URL of its virtual host "/"."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    @property
    def pid(self) -> int:
        """Process id of the running broker."""
        return self._running().pid

    def output(self) -> str:
        """Return its output so far."""
        return os.pread(self._output.fileno(), 1 << 20, 0).decode(errors="replace")

    def start(self) -> None:
        """Start it and wait for its ready line; raises RuntimeError with its output if none appears."""
        self._output.seek(0)
        self._output.truncate()
        arguments = ["broker", "--port", str(self.port), *self._options]
        environment = os.environ | {"PYTHONUNBUFFERED": "1"}
        output = self._output.fileno()
        if self._is_launched:
            self._process = launch(arguments, environment, output, output)
        else:
            self._process = subprocess.Popen(
                [*self._command, *arguments],
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environment,
            )  # fmt: skip
        deadline = time.monotonic() + _DEADLINE
        while True:
            has_ended = self._process.poll() is not None  # first, since its last words may come just before its end
            text = os.pread(self._output.fileno(), 65536, 0).decode(errors="replace")
            if re.search(rf"^rabbitry broker ready amqp://127\.0\.0\.1:{self.port}/.*\n", text, re.MULTILINE):
                return
            if has_ended or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"rabbitry broker printed no ready line:\n{text}")
            time.sleep(0.002)

    def stop(self) -> int:
        """Shut it down in order (SIGTERM) and return its exit code."""
        process = self._running()
        process.terminate()
        code = process.wait(_DEADLINE)
        self._process = None
        return code

    def wait(self) -> int:
        """Wait until it ends by itself, and return its exit code."""
        code = self._running().wait(_DEADLINE)
        self._process = None
        return code

    def kill(self) -> None:
        """End it at once (SIGKILL), with the command in front of it (`prefix`)."""
        process = self._running()
        children: list[psutil.Process] = []
        if self._is_prefixed:  # else there are none: looking for them takes long, while the broker goes on
            with contextlib.suppress(psutil.NoSuchProcess):  # it may have ended by itself
                children = psutil.Process(process.pid).children(recursive=True)
            for child in children:
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
        process.kill()
        process.wait()
        for child in children:  # which is not ours to wait for, and has the data folder until it is gone
            eventually_blocking(lambda child=child: is_gone(child), f"the end of {child}")  # type: ignore[misc] # bound
        self._process = None

    def pause(self) -> None:
        """Stop the process (SIGSTOP): it keeps its sockets and answers nothing."""
        self._running().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused broker go on."""
        self._running().send_signal(signal.SIGCONT)

    def __enter__(self) -> "BrokerProcess":
        try:
            self.start()
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.closing(self._output):
            if self._process is not None:
                self.kill()

    def _running(self) -> Launched | subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("the embedded broker does not run")
        return self._process
