"""A connection for scripts, and `connect_blocking`, which creates one."""

from __future__ import annotations

import asyncio
import functools
import logging
import warnings
import weakref
from collections.abc import Callable
from ssl import SSLContext
from types import TracebackType
from typing import Self

from rabbitry.amqp.client._channel import DEFAULT_PREFETCH
from rabbitry.amqp.client._receipts import Failures, raise_all
from rabbitry.amqp.client._session import CLOSE_TIMEOUT
from rabbitry.amqp.client.blocking._outbox import Outbox
from rabbitry.amqp.client.blocking.channel import BlockingChannel
from rabbitry.amqp.client.connection import (
    PUBLISH_TIMEOUT,
    REQUEST_TIMEOUT,
    Connecting,
    Connection,
    Credentials,
    Declare,
    RecoveryEvent,
    connect,
)
from rabbitry.amqp.client.url import BrokerURL
from rabbitry.amqp.protocol.tables import FieldValue, Table
from rabbitry.exceptions import ConnectionClosed
from rabbitry.runtime.io_thread import IOThread


class BlockingConnection:
    """A connection to a broker. Created by `connect_blocking`; a context manager that closes it and ends its thread.

    Leaving its block without an error waits until all sent messages are confirmed, and raises the failures that nobody
    has retrieved as one ExceptionGroup. Leaving it with an error closes at once; the number of unconfirmed messages is
    logged. A connection dropped without `close` is closed, with a ResourceWarning.
    """

    def __init__(self, connection: Connection, io: IOThread) -> None:
        self._connection = connection
        self._io = io
        self._failures = Failures(io.loop, str(connection.url))
        self._outboxes: weakref.WeakSet[Outbox] = weakref.WeakSet()
        """The channels' outboxes, used only in the I/O thread. Unconfirmed messages keep an outbox here."""

    def __repr__(self) -> str:
        return repr(self._connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        errors: ExceptionGroup[Exception] | None = None
        try:
            if error is None and self._io.is_running:
                errors = self._io.run(self._settled())
        finally:
            self.close()
        raise_all(errors)

    def __del__(self) -> None:
        if self._io.is_running:
            warnings.warn(f"{self!r} was dropped without close()", ResourceWarning, source=self, stacklevel=2)
            self._io.end_soon(functools.partial(_close_dropped, self._connection, self._failures))

    async def _settled(self) -> ExceptionGroup[Exception] | None:
        for outbox in list(self._outboxes):
            await outbox.settled()
        return self._failures.take_unseen()

    @property
    def is_open(self) -> bool:
        """Whether channels can be used now."""
        return self._connection.is_open

    @property
    def close_reason(self) -> ConnectionClosed | None:
        """Why the connection is closed for good; None while it is not."""
        return self._connection.close_reason

    @property
    def url(self) -> BrokerURL:
        """The broker's URL, with the password of the next login."""
        return self._connection.url

    @property
    def request_timeout(self) -> float:
        """Default timeout, in seconds, of methods that wait for the broker's answer."""
        return self._connection.request_timeout

    @request_timeout.setter
    def request_timeout(self, seconds: float) -> None:
        self._connection.request_timeout = seconds

    @property
    def publish_timeout(self) -> float:
        """Default timeout, in seconds, of `publish` and `send` for a confirm."""
        return self._connection.publish_timeout

    @publish_timeout.setter
    def publish_timeout(self, seconds: float) -> None:
        self._connection.publish_timeout = seconds

    @property
    def frame_limit(self) -> int:
        """The largest payload of a frame in bytes, agreed with the broker; also the limit of a message's properties."""
        return self._connection.frame_limit

    @property
    def channel_max(self) -> int:
        """The most channels at once, agreed with the broker; while there is no connection, the client's own limit."""
        return self._connection.channel_max

    @property
    def server_version(self) -> tuple[int, ...]:
        """The broker's version as numbers, empty if it sends none."""
        return self._connection.server_version

    @property
    def blocked(self) -> str | None:
        """Why the broker blocks publishers; None while it does not."""
        return self._connection.blocked

    @property
    def server_properties(self) -> dict[str, FieldValue]:
        """The broker's description of itself: product, version, capabilities and more."""
        return self._connection.server_properties

    def update_secret(self, secret: str, *, reason: str = "", timeout: float | None = None) -> None:
        """Replace the connection's password, such as an OAuth token. See `Connection.update_secret`."""
        self._io.run(self._connection.update_secret(secret, reason=reason, timeout=timeout))

    def channel(
        self, prefetch: int = DEFAULT_PREFETCH, *, confirms: bool = True, timeout: float | None = None
    ) -> BlockingChannel:
        """Open a channel.

        Args:
            prefetch: Limit on the unsettled deliveries of each consumer (0: no limit).
            confirms: False lets `publish` and `send` return once a message is written; see `Connection.channel`.
            timeout: Seconds for the answer; None for the connection's `request_timeout`.
        """
        return self._io.run(self._open_channel(prefetch, confirms=confirms, timeout=timeout))

    async def _open_channel(self, prefetch: int, *, confirms: bool, timeout: float | None) -> BlockingChannel:
        channel = await self._connection.channel(prefetch, confirms=confirms, timeout=timeout)
        outbox = Outbox(self._io, channel._core.window, self._failures)
        self._outboxes.add(outbox)
        return BlockingChannel(channel, outbox, self._io, self)

    def wait_for_confirms(self) -> None:
        """Wait until everything sent before over any channel is confirmed.

        Raises the failures since the last call as one ExceptionGroup. The messages' own deadlines are the only limit.
        """
        self._io.run(self._confirmed())

    async def _confirmed(self) -> None:
        for outbox in list(self._outboxes):
            await outbox.settled()
        raise_all(self._failures.take())

    def wait_closed(self, *, timeout: float | None = None) -> None:
        """Wait until the connection is closed for good, by either side; `close_reason` then has the reason.

        Raises RequestTimeout past `timeout` seconds (None: no limit).
        """
        self._io.run_at_end(self._connection.wait_closed(timeout=timeout))

    def close(self, *, timeout: float = CLOSE_TIMEOUT) -> None:
        """Close in order and end the I/O thread; unconfirmed messages fail.

        If the broker does not answer within `timeout` seconds, the socket is closed without it. Does nothing if the
        connection is closed, or belongs to the parent process.
        """
        if not self._io.is_running:
            return
        try:
            self._io.run(self._close(timeout))
        finally:
            self._io.stop()
            for outbox in list(self._outboxes):
                outbox.abandon()

    async def _close(self, timeout: float) -> None:
        try:
            await self._connection.close(timeout=timeout)
            for outbox in list(self._outboxes):
                await outbox.settled()  # at once: unsent messages fail as the unconfirmed ones did
        finally:
            self._failures.tell()


async def _close_dropped(connection: Connection, failures: Failures) -> None:
    """Close a connection whose owner dropped it, and log how many messages were unconfirmed."""
    await connection.close()
    await asyncio.sleep(0)  # failures are passed on in the next loop iteration
    failures.tell()


def connect_blocking(  # noqa: PLR0913 - the options of `connect`
    url: str | BrokerURL | None = None,
    *,
    name: str | None = None,
    timeout: float | None = None,
    request_timeout: float = REQUEST_TIMEOUT,
    publish_timeout: float = PUBLISH_TIMEOUT,
    recover: bool = True,
    recovery_timeout: float | None = None,
    on_recovery: Callable[[RecoveryEvent], None] | None = None,
    on_blocked: Callable[[str | None], None] | None = None,
    connect_attempts: int | None = 1,
    recovery_attempts: int | None = None,
    declare: Callable[[BlockingConnection], None] | None = None,
    log_level: int = logging.WARNING,
    heartbeat: int | None = None,
    ssl: SSLContext | None = None,
    credentials: Credentials | None = None,
    client_properties: Table | None = None,
) -> BlockingConnection:
    """Connect to a broker, for programs without an event loop.

    Use it as `with connect_blocking(url) as connection`. The arguments and errors are those of `connect`; `on_recovery`
    and `on_blocked` are called in the I/O thread, and `declare` in another thread.
    """
    return _open(
        declare,
        lambda declare_in_thread: connect(
            url, name=name, timeout=timeout, request_timeout=request_timeout, publish_timeout=publish_timeout,
            recover=recover, recovery_timeout=recovery_timeout, on_recovery=on_recovery, on_blocked=on_blocked,
            connect_attempts=connect_attempts, recovery_attempts=recovery_attempts, declare=declare_in_thread,
            log_level=log_level, heartbeat=heartbeat, ssl=ssl, credentials=credentials,
            client_properties=client_properties,
        ),
    )  # fmt: skip


def _open(
    declare: Callable[[BlockingConnection], None] | None, connecting: Callable[[Declare | None], Connecting]
) -> BlockingConnection:
    """Open a connection over an I/O thread of its own. connecting: calls `connect` with the `declare` passed to it."""
    io = IOThread()
    made: list[BlockingConnection] = []

    def blocking(connection: Connection) -> BlockingConnection:
        if not made:
            made.append(BlockingConnection(connection, io))
        return made[0]

    async def declare_in_thread(connection: Connection) -> None:
        if declare is not None:
            await asyncio.to_thread(declare, blocking(connection))

    async def open_connection() -> Connection:
        # What can't be called is passed on, to be refused.
        return await connecting(declare_in_thread if callable(declare) else declare)

    try:
        return blocking(io.run(open_connection()))
    except BaseException:
        io.stop()
        raise
