"""Alarms: while memory or disk run short, who publishes is told and not read any more (RabbitMQ's docs/alarms).

Memory is what this process has; disk is the file system of the data folder. Both are looked at every few seconds,
off the event loop. A store that is full is an alarm too, until it has room again.
"""

import asyncio
import logging
import os
from typing import TYPE_CHECKING, Final

from rabbitry.amqp.protocol.methods import ConnectionBlocked, ConnectionUnblocked
from rabbitry.broker.store.batch import StoreFailed
from rabbitry.broker.store.sqlite import free_bytes

if TYPE_CHECKING:
    from rabbitry.broker.broker import Broker
    from rabbitry.broker.connection import ClientConnection

_log = logging.getLogger(__name__)
PERIOD: Final = 2.5
DISK_FREE_LIMIT: Final = 50_000_000
"""Bytes; RabbitMQ's default."""
MEMORY_SHARE: Final = 0.4
"""Of the machine's memory; RabbitMQ's default."""


class Alarms:
    """Which alarms are on, and who is blocked by them.

    memory_limit, disk_free_limit: bytes; None takes RabbitMQ's defaults.
    """

    def __init__(self, broker: "Broker", memory_limit: int | None, disk_free_limit: int | None) -> None:
        self.on: set[str] = set()
        self.memory_limit = memory_limit if memory_limit is not None else int(_total_memory() * MEMORY_SHARE)
        self.disk_free_limit = disk_free_limit if disk_free_limit is not None else DISK_FREE_LIMIT
        self._broker = broker
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look."""
        self._task = asyncio.create_task(self._watch(), name="alarms")

    async def stop(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))

    def set(self, what: str, is_on: bool) -> None:
        """Turn an alarm on or off: `memory` or `disk`. Publishers are blocked while any is on."""
        if is_on == (what in self.on):
            return
        was_on = bool(self.on)
        if is_on:
            self.on.add(what)
            _log.warning("alarm: low on %s; publishers are blocked until it is over", what)
        else:
            self.on.discard(what)
            _log.warning("the %s alarm is over", what)
        if bool(self.on) != was_on:
            for connection in list(self._broker.connections):
                connection.is_alarmed = bool(self.on)
                if not self.on:
                    self._unblock(connection)

    def block(self, connection: "ClientConnection") -> None:
        """Block a connection that publishes in spite of an alarm: it is told, where it wants to know, and not read."""
        if not connection.is_blocked:
            connection.is_blocked = True
            if connection.wants_blocked:
                connection.tell(0, ConnectionBlocked(f"low on {' & '.join(sorted(self.on))}"))
            connection.driver.pause_reading()

    def _unblock(self, connection: "ClientConnection") -> None:
        if connection.is_blocked:
            connection.is_blocked = False
            if connection.wants_blocked:
                connection.tell(0, ConnectionUnblocked())
            connection.go_on()

    async def _watch(self) -> None:
        while True:
            self.set("memory", used_memory() > self.memory_limit)
            if self._broker.data is not None:
                try:
                    free = await asyncio.to_thread(free_bytes, self._broker.data)
                except OSError as error:
                    self._broker.fail(StoreFailed(f"the data folder {self._broker.data} is gone: {error.strerror}"))
                    return
                self.set("disk", free < self.disk_free_limit or self._broker.journal.is_full)
            await asyncio.sleep(PERIOD)


def used_memory() -> int:
    """Bytes of memory that this process has; 0 where the system does not say."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def _total_memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
