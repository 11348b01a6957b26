"""A program as on Windows: `python -m tests.support.portable_program rounds URL`, `broker FOLDER` or `rabbitry WORDS`.

The modules and functions that only POSIX has are gone, the event loop watches no file descriptors and has no signal
handlers, and `sys.platform` is "win32" for everything imported from then on: Rabbitry. The standard library and other
packages are imported before, as they are here; of what Windows has and POSIX has not, small doubles stand in.
"""

import asyncio
import fcntl
import importlib
import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any, Final

_MODULES: Final = ("fcntl", "grp", "pwd", "pty", "readline", "resource", "syslog", "termios", "tty", "uvloop")
_FUNCTIONS: Final = (
    "O_CLOEXEC", "O_DIRECTORY", "chown", "fchmod", "fchown", "fdatasync", "fork", "forkpty", "getgid", "geteuid",
    "getuid", "killpg", "mkfifo", "posix_fallocate", "pread", "pwrite", "register_at_fork", "setsid",
)  # fmt: skip
_SIGNAL_FUNCTIONS: Final = ("SIGHUP", "SIGUSR1", "pause", "pthread_kill", "pthread_sigmask", "sigwait")
_TIME_FUNCTIONS: Final = ("CLOCK_BOOTTIME", "clock_gettime")
_LOOP_METHODS: Final = ("add_reader", "add_signal_handler", "add_writer", "remove_signal_handler")
"""Methods of event loops that Windows' loop has not; asyncio itself calls those that remove."""
_FOREIGN: Final = (
    "anyio._backends._asyncio", "concurrent.futures.thread", "fastapi", "getpass", "httpx", "logging.handlers",
    "multiprocessing.context", "msgspec", "platformdirs", "platformdirs.unix", "psutil", "regex", "rich.console",
    "rich.progress", "rich.table", "sqlite3", "ssl", "subprocess", "tempfile", "typer", "typer.core",
    "typer.rich_utils", "uvicorn", "uvicorn.lifespan.on", "uvicorn.protocols.http.h11_impl", "websockets",
)  # fmt: skip


class _Refusing(MetaPathFinder):
    """Finds no module that only POSIX has."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name in _MODULES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None


def _become_windows() -> None:
    for name in _FOREIGN:
        importlib.import_module(name)
    _put_doubles()
    for name in _MODULES:
        sys.modules.pop(name, None)
    sys.meta_path.insert(0, _Refusing())
    import signal
    import time

    removed = ((os, _FUNCTIONS), (signal, _SIGNAL_FUNCTIONS), (time, _TIME_FUNCTIONS))
    for module, names in removed:
        for name in names:
            if hasattr(module, name):
                delattr(module, name)

    def refuse(*_: object) -> None:
        raise NotImplementedError

    for name in _LOOP_METHODS:
        setattr(asyncio.SelectorEventLoop, name, refuse)
    os.kill = _kill
    sys.platform = "win32"


def _kill(pid: int, number: int) -> None:
    """End a process at once, as Windows does for every signal."""
    os._exit(number if pid == os.getpid() else 1)


def _put_doubles() -> None:
    """Put in place what Windows has: locks of bytes, which here are locks of the file, and the number of handles."""
    import psutil

    msvcrt = ModuleType("msvcrt")
    flock, exclusive, at_once = fcntl.flock, fcntl.LOCK_EX, fcntl.LOCK_NB

    def locking(file: int, mode: int, _size: int) -> None:
        flock(file, exclusive | (at_once if mode == 2 else 0))

    msvcrt.__dict__.update(LK_LOCK=1, LK_NBLCK=2, locking=locking)
    sys.modules["msvcrt"] = msvcrt
    import signal

    system: Any = signal
    system.SIGBREAK = signal.SIGUSR2
    process: Any = psutil.Process
    process.num_handles = psutil.Process.num_fds


async def _work(url: str) -> list[str]:
    """Send a message through handlers of both kinds."""
    import rabbitry

    app = rabbitry.App("portable")

    @app.stage("a", then="b")
    async def first(text: str) -> str:
        return text + "1"

    @app.stage("b", then="c")
    def second(text: str) -> str:
        return text + "2"

    app.output("c", queue="portable.c")
    found: list[str] = []
    async with app.worker(url), app.publisher(url) as publisher:
        await publisher.publish("x", key="a")
        async with rabbitry.connect(url) as connection, await connection.channel() as channel:
            async with channel.consume("portable.c") as deliveries:
                delivery = await anext(deliveries)
                found.append(delivery.body.decode())
                delivery.ack()
    return found


def _block(url: str) -> str:
    import rabbitry

    with rabbitry.connect_blocking(url) as connection, connection.channel() as channel:
        channel.declare_queue("portable.blocking")
        channel.publish(b"y", routing_key="portable.blocking")
        found = channel.get("portable.blocking", no_ack=True)
        assert found is not None
        return found.body.decode()


async def _restart(folder: Path) -> list[str]:
    """Start a broker in this loop three times, with its management API; each finds what the one before it was sent."""
    import httpx

    import rabbitry
    from rabbitry.broker import Broker, BrokerConfig
    from rabbitry.broker.exceptions import StoreFailed

    found: list[str] = []
    for number in range(3):
        async with Broker(BrokerConfig(port=0, data=folder, management_port=0)) as broker:
            url = f"amqp://127.0.0.1:{broker.port}/"
            async with rabbitry.connect(url) as connection, await connection.channel() as channel:
                await channel.declare_queue("kept", durable=True)
                while (delivery := await channel.get("kept")) is not None:
                    found.append(delivery.body.decode())
                    delivery.ack()
                await channel.publish(str(number).encode(), routing_key="kept")
            async with httpx.AsyncClient(auth=("guest", "guest")) as client:
                node = await client.get(f"http://127.0.0.1:{broker.management_port}/api/nodes")
                assert node.json()[0]["mem_used"] > 0, node.text
            try:
                async with Broker(BrokerConfig(port=0, data=folder)):
                    found.append("two brokers use one folder")
            except StoreFailed:
                pass
            found += await _work(url)
    return found


def main(what: str, *words: str) -> None:
    """Become Windows, and do what is asked for."""
    _become_windows()
    if what == "rounds":
        print(*asyncio.run(_work(words[0])), _block(words[0]))
    elif what == "broker":
        print(*asyncio.run(_restart(Path(words[0]))))
    else:
        from rabbitry.cli import main as command

        command(words)
    print(*(name for name in _MODULES if name in sys.modules))


if __name__ == "__main__":
    main(*sys.argv[1:])
