"""A private Redis from Debian's package, on a free port of 127.0.0.1, which keeps nothing."""

import importlib
import importlib.util
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.support.ports import free_port

_DEADLINE = 120.0


def why_missing() -> str | None:
    """Return why no server can be started and used here; None if one can."""
    if shutil.which("redis-server") is None:
        return "redis-server is not installed (as root: scripts/system-deps)"
    if importlib.util.find_spec("redis") is None:
        return "the package redis is not installed (make)"
    return None


def empty(url: str) -> None:
    """Delete all keys of a server."""
    client = importlib.import_module("redis").Redis.from_url(url)
    client.flushall()
    client.close()


@contextmanager
def running() -> Iterator[str]:
    """Run a server, and yield its URL without the number of a database."""
    port = free_port()
    options = {"port": port, "bind": "127.0.0.1", "save": "", "appendonly": "no"}
    words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    with tempfile.TemporaryDirectory(prefix="rabbitry-redis-") as folder:
        process = subprocess.Popen(["redis-server", *words], stdout=subprocess.DEVNULL, cwd=folder)
        try:
            _wait(port, process)
            yield f"redis://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(_DEADLINE)


def _wait(port: int, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + _DEADLINE
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise RuntimeError("redis-server did not start")
