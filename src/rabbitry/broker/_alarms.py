"""Alarms: while memory or disk run short, publishers are notified and no longer read (RabbitMQ's docs/alarms).

Memory is that of this process, measured every few seconds. Disk is the free space of the data folder's file system plus
the free pages of the store's database, measured as often, and by the store after each batch. In between, bytes that
wait to be written count as used, so publishers are blocked before the disk is full, however fast they are.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import Final, Protocol

from rabbitry.amqp.protocol.methods import ConnectionBlocked, ConnectionUnblocked, Method
from rabbitry.broker._store.journal import Journal
from rabbitry.broker._store.sqlite import free_bytes
from rabbitry.broker.exceptions import StoreFailed
from rabbitry.broker.reading import ReadingGate, Reason
from rabbitry.runtime.resources import memory_in_use, memory_of_machine

_logger = logging.getLogger(__name__)
PERIOD: Final = 2.5
"""Seconds between two checks."""
_PERIOD_OF_ALARMS: Final = 0.5
"""Seconds between two checks while there is an alarm."""
DISK_FREE_LIMIT: Final = 50_000_000
"""Bytes; RabbitMQ's default."""
MEMORY_SHARE: Final = 0.4
"""Fraction of the memory of the machine, or of a smaller container limit; RabbitMQ's default."""
_MARGIN: Final = 0.1
"""Fraction of the limit that must be free above the limit before the disk alarm ends."""


class Blockable(Protocol):
    """A connection that may be blocked by an alarm."""

    @property
    def gate(self) -> ReadingGate:
        """The gate that decides whether the client is read."""

    @property
    def wants_blocked(self) -> bool:
        """Whether the client wants connection.blocked."""

    def tell(self, channel: int, method: Method) -> None:
        """Send a method, unless the connection is closed."""

    def on_unblocked(self) -> None:
        """Take what was held when the connection was blocked."""


class Alarms:
    """The active alarms, and the connections that they block.

    Args:
        connections: The open connections.
        journal: The store's, whose disk is watched.
        folder: The data folder; None if nothing is stored.
        fail: Stops the broker with an error, called if the data folder is gone.
        memory_limit: Bytes; None for RabbitMQ's default.
        disk_free_limit: Bytes; None for RabbitMQ's default.
    """

    def __init__(
        self,
        connections: Collection[Blockable],
        journal: Journal,
        folder: Path | None,
        fail: Callable[[Exception], None],
        *,
        memory_limit: int | None,
        disk_free_limit: int | None,
    ) -> None:
        self.on: set[Reason] = set()
        """The active alarms: memory, disk."""
        self.memory_limit: int = memory_limit if memory_limit is not None else int(total_memory() * MEMORY_SHARE)
        self.disk_free_limit: int = disk_free_limit if disk_free_limit is not None else DISK_FREE_LIMIT
        self._connections = connections
        self._journal = journal
        self._folder = folder
        self._fail = fail
        self._forced: set[Reason] = set()
        self._most_room = 0
        self._is_full = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start checking."""
        self._task = asyncio.create_task(self._watch(), name="alarms")

    async def stop(self) -> None:
        """Stop checking."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))

    def set(self, what: Reason, *, is_on: bool) -> None:
        """Turn the memory or disk alarm on or off. Publishers are blocked while any is on."""
        is_on = is_on or what in self._forced
        if is_on == (what in self.on):
            return
        if is_on:
            self.on.add(what)
            for connection in self._connections:
                if connection.gate.is_blocked:  # by the other alarm; the rest are blocked when they publish
                    connection.gate.pause(what)
        else:
            self.on.discard(what)
            for connection in list(self._connections):
                self._unblock(connection, what)

    def force(self, what: Reason, *, is_on: bool) -> None:
        """Hold an alarm on, for tests, regardless of free memory and disk space, or release it."""
        (self._forced.add if is_on else self._forced.discard)(what)
        self.set(what, is_on=is_on)

    @property
    def disk_free(self) -> int:
        """Free bytes, which are compared with the limit. Without a data folder, those of the working folder."""
        return max(self._journal.room, 0) if self._folder is not None else free_bytes(Path())

    def count_disk(self) -> None:
        """Raise the disk alarm if the bytes that wait to be written would leave less room than the limit."""
        if self._journal.room < self.disk_free_limit and Reason.DISK not in self.on:
            _logger.warning(
                "low on disk: %s after pending writes would have %s free, and the limit is %s; publishers are blocked "
                "until %s are free: consume messages, or free space there",
                self._folder,
                *map(_megabytes, (self.disk_free, self.disk_free_limit, self._enough())),
            )  # fmt: skip
            self.set(Reason.DISK, is_on=True)

    def set_full(self, why: str) -> None:
        """Raise the disk alarm: the store had no room for a batch."""
        if not self._is_full:
            self._is_full = True
            _logger.error("%s; publishes are refused until there is room: consume messages, or free space there", why)
        self.set(Reason.DISK, is_on=True)

    def _enough(self) -> int:
        """Return the free bytes that end the disk alarm: above the limit, but at most the most that was ever free."""
        limit = self.disk_free_limit
        return max(limit, min(int(limit * (1 + _MARGIN)), (limit + self._most_room) // 2))

    def block(self, connection: Blockable) -> None:
        """Block a connection that publishes during an alarm: notify it if it wants that, and stop reading it."""
        if not connection.gate.is_blocked:
            if connection.wants_blocked:
                connection.tell(0, ConnectionBlocked(f"low on {' & '.join(sorted(self.on))}"))
            connection.gate.pause(*self.on)

    def _unblock(self, connection: Blockable, what: Reason) -> None:
        was_blocked = connection.gate.is_blocked
        connection.gate.resume(what)
        if was_blocked and not connection.gate.is_blocked:
            if connection.wants_blocked:
                connection.tell(0, ConnectionUnblocked())
            connection.on_unblocked()

    async def _watch(self) -> None:
        while True:
            self._look_at_memory()
            if self._folder is not None:
                try:
                    await asyncio.to_thread(free_bytes, self._folder)
                except OSError as error:
                    self._fail(StoreFailed(f"the data folder {self._folder} is gone: {error.strerror}"))
                    return
                await self._journal.tidy(is_short=self._journal.room < 2 * self.disk_free_limit)
                self._look_at_disk()
            await asyncio.sleep(_PERIOD_OF_ALARMS if self.on else PERIOD)

    def _look_at_memory(self) -> None:
        used = memory_in_use()
        is_on = used > self.memory_limit
        if is_on and Reason.MEMORY not in self.on:
            _logger.warning(
                "low on memory: the broker uses %s, and the limit is %s; publishers are blocked until it uses less: "
                "consume or purge messages",
                _megabytes(used), _megabytes(self.memory_limit),
            )  # fmt: skip
        elif not is_on and Reason.MEMORY in self.on - self._forced:
            _logger.warning("the memory alarm is over: the broker uses %s", _megabytes(used))
        self.set(Reason.MEMORY, is_on=is_on)

    def _look_at_disk(self) -> None:
        journal = self._journal
        room = journal.room
        self._most_room = max(self._most_room, room)
        self.count_disk()
        if Reason.DISK in self.on - self._forced and room >= self._enough() and not journal.is_stuck:
            self._is_full = False
            _logger.warning("there is room for the store again: %s has %s free", self._folder, _megabytes(room))
            self.set(Reason.DISK, is_on=False)


def _megabytes(size: int) -> str:
    return f"{size / 1_000_000:,.1f} MB"


def total_memory(root: Path = Path("/")) -> int:
    """Return the memory that this process may use, in bytes: the machine's, or its container's limit if that is lower.

    Args:
        root: Parent of /proc and /sys. The limits of the process's control groups and all their parents count, of
            version 2 (memory.max) and version 1 (memory.limit_in_bytes).
    """
    return min([memory_of_machine(), *_limits_of_groups(root)])


def _limits_of_groups(root: Path) -> Iterator[int]:
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return  # the system has no control groups
    mounted = root / "sys/fs/cgroup"
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            folders, name = (mounted, mounted / "unified"), "memory.max"
        elif "memory" in controllers.split(","):
            folders, name = (mounted / controllers, mounted / "memory"), "memory.limit_in_bytes"
        else:
            continue
        # In a container the path may be the host's; the group is then the mounted folder itself.
        place = PurePosixPath("/", path).relative_to("/")
        for group in (place, *place.parents):
            for folder in folders:
                try:
                    text = (folder / group / name).read_text(encoding="ascii").strip()
                except (OSError, UnicodeDecodeError):
                    continue  # not mounted there, or not readable for this user
                if text.isdecimal() and int(text) > 0:  # otherwise "max"
                    yield int(text)
