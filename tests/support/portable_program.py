"""A program without the modules and functions that only POSIX has: `python -m tests.support.portable_program URL`.

It uses the client, the blocking client and an app with handlers of both kinds. sys.platform stays, and what libraries
choose by it: the standard library its modules, platformdirs the functions for user ids.
"""

import asyncio
import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Final

_MODULES: Final = ("fcntl", "grp", "pwd", "pty", "readline", "resource", "syslog", "termios", "tty", "uvloop")
_FUNCTIONS: Final = (
    "chown", "fchmod", "fdatasync", "fork", "forkpty", "getgid", "killpg", "posix_fallocate",
    "pread", "pwrite", "register_at_fork", "setsid", "statvfs", "sysconf",
)  # fmt: skip


class _Refusing(MetaPathFinder):
    """Finds no module that only POSIX has, and remembers who asked."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name in _MODULES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None


def _without_posix() -> None:
    for name in _MODULES:
        sys.modules.pop(name, None)
    sys.meta_path.insert(0, _Refusing())
    for name in _FUNCTIONS:
        if hasattr(os, name):
            delattr(os, name)


async def _work(url: str) -> list[str]:
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


if __name__ == "__main__":
    _without_posix()
    broker = sys.argv[1]
    print(*asyncio.run(_work(broker)), _block(broker))
    print(*(name for name in _MODULES if name in sys.modules))
