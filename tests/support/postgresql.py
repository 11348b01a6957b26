"""A private PostgreSQL from Debian's package: a data folder of its own, on a free port of 127.0.0.1."""

import contextlib
import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

from tests.support.ports import free_port

_DEADLINE = 120.0
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


class PostgreSQL:
    """A server of the tests' own. A context manager. It does not wait for the disk: tests don't cut the power."""

    def __init__(self) -> None:
        self.port = free_port()
        self._data = Path(tempfile.mkdtemp(prefix="rabbitry-postgresql-"))
        self._process: subprocess.Popen[bytes] | None = None
        # As root it refuses to run.
        self._as: list[str] = []
        if os.geteuid() == 0:
            names = [name for name in ("postgres", "nobody") if _exists(name)]
            user = pwd.getpwnam(names[0])
            os.chown(self._data, user.pw_uid, user.pw_gid)
            self._as = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]

    def __enter__(self) -> "PostgreSQL":
        with contextlib.ExitStack() as stack:
            stack.callback(self._end)
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
            settings = {"fsync": "off", "unix_socket_directories": "", "listen_addresses": "127.0.0.1"}
            options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
            self._process = subprocess.Popen(
                [*self._as, folder / "postgres", "-D", data, "-p", str(self.port), *options],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._data,
            )  # fmt: skip
        self._wait()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:  # a client is still connected
                self._process.kill()
                self._process.wait()
        shutil.rmtree(self._data, ignore_errors=True)

    def create_database(self) -> str:
        """Create an empty database; return its URL."""
        name = f"test{next(_databases)}"
        import psycopg

        with psycopg.connect(self._url("postgres"), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"'.encode())
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
