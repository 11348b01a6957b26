"""Commands of `rabbitry`, and programs of the tests, as processes that have imported everything when they start.

Importing takes a command up to a second of CPU, and the tests start some six hundred. A launcher, a process without
threads, imports everything once and forks itself for each command. What it forks is a process like any other: with its
own id, environment, folder, output, signals and exit code. It shows the launcher's command line in `ps`, and an import
that a command forgot may be there already: test_extras.py, test_dist.py and some others start commands anew.

All processes of a test run share one launcher: pytest's first process starts it, and the others find its address in
their environment. What they have launched may live longer than they do, and at most until the run ends.
"""

import asyncio
import atexit
import contextlib
import faulthandler
import functools
import gc
import importlib
import io
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Mapping, Sequence
from multiprocessing import resource_tracker
from pathlib import Path
from typing import IO, Any, Final, NamedTuple, NoReturn

_IMPORTED: Final = (
    "alembic.command",
    "alembic.config",
    "anyio._backends._asyncio",
    "encodings.ascii",
    "encodings.idna",
    "fastapi.telemetry._runtime",
    "h11",
    "httpcore._backends.anyio",
    "httpx",
    "multiprocessing.popen_fork",
    "multiprocessing.popen_spawn_posix",
    "pika",
    "psutil",
    "pydantic.v1",
    "sqlalchemy.dialects.sqlite",
    "tests.support.patience",
    "typer._click.decorators",
    "uvicorn",
    "uvicorn.lifespan.on",
    "uvicorn.protocols.http.h11_impl",
    "uvicorn.protocols.websockets.websockets_sansio_impl",
    "uvloop",
    "websockets",
)
"""What commands and programs import when they run, beside the modules of Rabbitry itself."""
_NOT_IMPORTED: Final = ("__main__", ".migrations.", ".testing.")
"""Parts of names: what runs when it is imported, and what imports pytest, as no command does."""
_ADDRESS: Final = "TESTS_LAUNCHER"
_LARGEST: Final = 200_000


class Job(NamedTuple):
    """What a process is to be."""

    module: str
    arguments: list[str]
    environment: dict[str, str]
    cwd: str


class Launched:
    """A process that the launcher started, with the part of `subprocess.Popen` that tests use."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        message, descriptors, _, _ = socket.recv_fds(channel, 64, 1)
        if not descriptors:
            channel.close()
            raise RuntimeError("the launcher ended")
        self.pid = int(message)
        self.returncode: int | None = None
        self._descriptor = descriptors[0]  # a signal never meets another process that got its id

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal; None while it runs."""
        return self._result(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return the exit code. Raises subprocess.TimeoutExpired."""
        code = self._result(timeout)
        if code is None:
            raise subprocess.TimeoutExpired("rabbitry", timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal; does nothing if the process has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._descriptor, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def leave(self) -> int:
        """Detach it, so that nothing waits for it, and return its id."""
        self._channel.close()
        os.close(self._descriptor)
        return self.pid

    def _result(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._channel], [], [], timeout)[0]:
            said = self._channel.recv(64)
            self._channel.close()
            os.close(self._descriptor)
            if not said:
                raise RuntimeError("the launcher ended")
            self.returncode = int(said)
        return self.returncode


class Launcher:
    """The process that launches, as the one that started it sees it; it ends when that one does.

    It is `python -m module`, which imports what its forks need, and whose address is in the environment under `name`.
    """

    def __init__(
        self, module: str = "tests.support.launcher", arguments: Sequence[str] = (), *, name: str = _ADDRESS
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="rabbitry-launcher-")
        address = f"{self._folder.name}/socket"
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
            listening.bind(address)
            listening.listen()
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, str(listening.fileno()), *arguments],
                cwd=Path(__file__).parents[2], stdin=subprocess.PIPE, pass_fds=[listening.fileno()],
            )  # fmt: skip
        os.environ[name] = address

    def close(self) -> None:
        """End the launcher."""
        self._process.communicate()  # closes its input
        self._folder.cleanup()


class _Connection:
    """This process's connection to the launcher."""

    def __init__(self) -> None:
        if _ADDRESS not in os.environ:  # no pytest started one: a benchmark, or a program of the tests by itself
            atexit.register(Launcher().close)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        atexit.register(self._socket.close)
        self._socket.connect(os.environ[_ADDRESS])
        self._lock = threading.Lock()

    def launch(self, job: Job, standard: Sequence[int]) -> Launched:
        """Have a process forked; `standard` are its standard input, output and error."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, self._lock:
            socket.send_fds(self._socket, [json.dumps(job).encode()], [theirs.fileno(), *standard])
        return Launched(ours)


@functools.cache
def _connection() -> _Connection:
    return _Connection()


def prepare() -> None:
    """Connect to the launcher, which imports everything when the first one does."""
    _connection()


def launch(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    stdout: int,
    stderr: int,
    *,
    stdin: int | None = None,
    cwd: Path | str | None = None,
    module: str = "rabbitry",
) -> Launched:
    """Start `python -m module` with these arguments and this environment.

    It writes to these descriptors, and reads from `stdin`, or nothing where that is None.
    """
    job = Job(module, list(arguments), dict(environment), os.getcwd() if cwd is None else str(cwd))
    if stdin is not None:
        return _connection().launch(job, (stdin, stdout, stderr))
    with open(os.devnull, "rb") as nothing:
        return _connection().launch(job, (nothing.fileno(), stdout, stderr))


def main() -> None:
    """Fork for each command that is asked for, until the input is closed."""
    listening = wait_for_first()
    if listening is None:
        return  # no test launches anything
    import rabbitry
    from tests.support import authorities

    own = [module.name for module in pkgutil.walk_packages(rabbitry.__path__, "rabbitry.")]
    for name in [*_IMPORTED, *(name for name in own if not any(part in name for part in _NOT_IMPORTED))]:
        importlib.import_module(name)
    authorities.share()
    _mount_commands()
    _make_dashboard()
    freeze()
    serve(listening, until=[sys.stdin])


def _mount_commands() -> None:
    """Make the commands of their Typer apps, which would take each forked process up to 0.1 s."""
    from typer.main import get_command

    from rabbitry.apps.installed import installed
    from rabbitry.cli import _root

    root: Any = get_command(_root.root)
    for name in (*_root.COMMANDS, *installed().plugins):
        root.get_command(None, name)
    installed.cache_clear()  # a forked process may have other apps


def _make_dashboard() -> None:
    """Make a dashboard, which starts nothing, but fills caches of FastAPI and pydantic: forked ones start faster."""
    from rabbitry.apps import Site
    from rabbitry.apps.installed import installed
    from rabbitry.apps.settings import Settings
    from rabbitry.web.server import create_app, mounts

    broker = "amqp://localhost/"
    create_app(Settings(broker=broker, port=0), mounts(Site(broker=broker)))
    installed.cache_clear()  # a forked process may have other apps


def wait_for_first() -> socket.socket | None:
    """Return the socket that the command line names when somebody connects to it; None if the input is closed."""
    listening = socket.socket(fileno=int(sys.argv[1]))
    # A Ctrl-C at the terminal is for the tests. One that is sent to a process just forked waits until that is ready.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    return listening if listening in select.select([listening, sys.stdin], [], [])[0] else None


def freeze() -> None:
    """Make this process, which has imported everything, ready to be forked."""
    if threading.active_count() > 1:
        raise RuntimeError("an import started a thread: a process with threads can't be forked safely")
    gc.collect()
    gc.freeze()  # or each process would copy the pages of all objects with its first collection


def serve(listening: socket.socket, *, until: Sequence[IO[str]] = ()) -> None:
    """Fork for each command that is asked for; return when one of `until` can be read, and in no forked process."""
    if (job := next_job(listening, until)) is not None:
        _become(job)
        if job.arguments[:1] == ["up"]:
            from tests.support.forking import fork_children

            fork_children(_run_child)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        _run(job)


def next_job(listening: socket.socket, until: Sequence[IO[str]]) -> Job | None:
    """Return None when one of `until` can be read, and in each forked process its job."""
    running: dict[int, socket.socket] = {}
    connections: list[socket.socket] = []
    woken, waker = socket.socketpair()
    woken.setblocking(False)
    waker.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
    while True:
        asking: list[IO[str] | socket.socket] = [*until, woken, listening, *connections]
        readable, _, _ = select.select(asking, [], [])
        if any(one in readable for one in until):
            signal.set_wakeup_fd(-1)  # what still runs ends later: its signal must find no closed socket
            return None
        if woken in readable:
            woken.recv(4096)
            _reap(running)
        if listening in readable:
            connections.append(listening.accept()[0])
        for connection in [connection for connection in connections if connection in readable]:
            message, descriptors, _, _ = socket.recv_fds(connection, _LARGEST, 4)
            if not message:
                connection.close()
                connections.remove(connection)
                continue
            channel = socket.socket(fileno=descriptors[0])
            if (pid := os.fork()) == 0:
                for number, descriptor in enumerate(descriptors[1:]):
                    os.dup2(descriptor, number)
                _forget([listening, woken, waker, channel, *connections, *running.values()])
                return Job(*json.loads(message))
            for descriptor in descriptors[1:]:
                os.close(descriptor)
            own = os.pidfd_open(pid)
            with contextlib.suppress(OSError):  # who asked has ended
                socket.send_fds(channel, [str(pid).encode()], [own])
            os.close(own)
            running[pid] = channel


def _reap(running: dict[int, socket.socket]) -> None:
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        with running.pop(pid) as channel, contextlib.suppress(OSError):  # nobody waits for it any more
            channel.send(str(os.waitstatus_to_exitcode(status)).encode())


def _forget(sockets: Sequence[socket.socket]) -> None:
    """Close the launcher's own sockets, and let multiprocessing start a resource tracker of this process's own."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for one in sockets:
        one.close()
    os.closerange(3, max(map(int, os.listdir("/proc/self/fd"))) + 1)
    # The tracker's pipe was among them: it would write into whatever gets the number.
    vars(resource_tracker._resource_tracker).update(_fd=None, _pid=None)


def _become(job: Job) -> None:
    """Turn into the process that `python -u -m` with the job's module would start as."""
    os.environ.clear()
    os.environ.update(job.environment)
    time.tzset()
    tempfile.tempdir = None
    if job.environment.get("PYTHONDEVMODE"):  # asyncio asks for PYTHONASYNCIODEBUG itself
        faulthandler.enable()
        warnings.simplefilter("default")
        # As in tests/conftest.py: asyncio's debug mode checks, but records no stack of each callback.
        asyncio.BaseEventLoop.get_debug = lambda self: False  # type: ignore[method-assign] # for the whole process
    from tests.support import patience  # imports what the commands do

    patience.be_patient()
    os.chdir(job.cwd)
    sys.path[0:1] = [job.cwd, *filter(None, job.environment.get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv = [job.module, *job.arguments]
    sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)), encoding="utf-8")
    for name, descriptor, errors in (("stdout", 1, "strict"), ("stderr", 2, "backslashreplace")):
        raw = io.FileIO(descriptor, "w", closefd=False)
        setattr(sys, name, io.TextIOWrapper(raw, encoding="utf-8", errors=errors, write_through=True))
        setattr(sys, f"__{name}__", getattr(sys, name))


def _run_child(arguments: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
    job = Job("rabbitry", [*arguments], {**environment}, os.getcwd())
    _become(job)
    _run(job)


def _run(job: Job) -> NoReturn:
    """Run the module and end as Python does, but without freeing each object.

    Freeing them copies the pages that are shared with the launcher: 80 of a command's 100 ms of CPU.
    """
    code = 0
    try:
        runpy.run_module(job.module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException as error:  # noqa: BLE001 - it ends the process
        sys.excepthook(type(error), error, error.__traceback__)
        if isinstance(error, KeyboardInterrupt):
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            signal.raise_signal(signal.SIGINT)
        code = 1
    if job.environment.get("PYTHONDEVMODE"):
        sys.exit(code)  # frees them, and warns of what is still open
    finish(code)


def finish(code: int) -> NoReturn:
    """End this process as Python does, but without freeing each object."""
    threading._shutdown()  # type: ignore[attr-defined] # waits for the threads, as at each end of Python
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code & 0xFF)


if __name__ == "__main__":
    main()
