"""A private PostgreSQL from Debian's package: a data folder of its own, on a free port of 127.0.0.1."""

import contextlib
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from tests.support import shared
from tests.support.ports import free_port
from tests.support.rabbitmq import Process, Spawn

_DEADLINE = 120.0
_HAS_STRATEGY = 15
"""The first version in which CREATE DATABASE has a strategy."""
_databases = itertools.count(1)


def _folder() -> Path | None:
    """Return the folder of the newest version's programs."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


def why_missing() -> str | None:
    """Why no server can be started here, or None when one can."""
    if _folder() is None:
        return "postgresql is not installed (as root: scripts/system-deps)"
    return None


def _spawn(command: list[str], environment: Mapping[str, str], output: int, cwd: str | None) -> Process:
    """Start a server of this process's own."""
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        env=environment,
        cwd=cwd,
        start_new_session=True,
    )


def for_all() -> "PostgreSQL":
    """Return the server that all tests share. A start takes a second of CPU, and it runs until the tests have ended."""

    def start() -> PostgreSQL:
        return PostgreSQL(spawn=shared.spawn).__enter__()

    return shared.once("postgresql", start)


class PostgreSQL:
    """A server of the tests' own. A context manager. It does not wait for the disk: tests don't cut the power."""

    def __init__(self, *, spawn: Spawn = _spawn) -> None:
        self.port = free_port()
        self._data = Path(tempfile.mkdtemp(prefix="rabbitry-postgresql-"))
        self._spawn = spawn
        self._process: Process | None = None
        # As root it refuses to run. It ends when the process does that started it.
        self._as = ["setpriv", "--pdeathsig=QUIT"]
        if os.geteuid() == 0:
            names = [name for name in ("postgres", "nobody") if _exists(name)]
            user = pwd.getpwnam(names[0])
            os.chown(self._data, user.pw_uid, user.pw_gid)
            self._as += [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]

    def __enter__(self) -> "PostgreSQL":
        with contextlib.ExitStack() as stack:
            stack.callback(self.end)
            self._start()
            stack.pop_all()
        return self

    def _start(self) -> None:
        folder = _folder()
        assert folder is not None, why_missing()
        data = self._data / "data"
        with open(self._data / "log", "wb") as log:
            subprocess.run(
                [*self._as, folder / "initdb", "-D", data, "-U", "rabbitry", "-A", "trust", "-E", "UTF8", "-N"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=True, cwd=self._data, timeout=_DEADLINE,
            )  # fmt: skip
            settings = {
                "autovacuum": "off",  # in hundreds of small databases
                "fsync": "off",
                "listen_addresses": "127.0.0.1",
                "max_connections": "400",
                "unix_socket_directories": "",
            }
            options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
            command = [*self._as, str(folder / "postgres"), "-D", str(data), "-p", str(self.port), *options]
            self._process = self._spawn(command, os.environ, log.fileno(), str(self._data))
        self._wait()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        """End it at once, with the sessions of clients that are still connected, and delete its data."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(_DEADLINE)
        shutil.rmtree(self._data, ignore_errors=True)

    def create_database(self) -> str:
        """Create an empty database; return its URL."""
        name = f"test_{os.getpid()}_{next(_databases)}"
        import psycopg

        folder = _folder()
        assert folder is not None, why_missing()
        # From 15 on the default writes each page into the log, for twice the CPU.
        how = " STRATEGY file_copy" if int(folder.parent.name) >= _HAS_STRATEGY else ""
        with psycopg.connect(self._url("postgres"), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"{how}'.encode())
        return self._url(name)

    def _url(self, database: str) -> str:
        return f"postgresql://rabbitry@127.0.0.1:{self.port}/{database}"

    def _wait(self) -> None:
        import psycopg

        deadline = time.monotonic() + _DEADLINE
        while True:
            with contextlib.suppress(psycopg.OperationalError), psycopg.connect(self._url("postgres")):
                return
            process = self._process
            if time.monotonic() > deadline or process is None or process.poll() is not None:
                raise RuntimeError(f"postgresql did not start:\n{(self._data / 'log').read_text(errors='replace')}")
            time.sleep(0.05)


def _exists(name: str) -> bool:
    with contextlib.suppress(KeyError):
        pwd.getpwnam(name)
        return True
    return False
