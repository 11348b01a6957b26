"""The embedded broker: it listens, and holds what all connections share."""

import asyncio
import logging
import platform
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import quote

from warren import __version__
from warren.amqp.protocol.constants import DEFAULT_CHANNEL_MAX, DEFAULT_FRAME_MAX, DEFAULT_HEARTBEAT, Reply
from warren.amqp.protocol.tables import Table
from warren.broker.connection import ClientConnection
from warren.broker.queues import Queue, ReplyTo
from warren.broker.records import BINDING, EXCHANGE, QUEUE, queue_record, read_exchange, restore_binding
from warren.broker.store.journal import Journal
from warren.broker.store.sqlite import SQLiteStore
from warren.broker.vhost import VirtualHost
from warren.exceptions import UsageError

_log = logging.getLogger(__name__)
MAX_MESSAGE_SIZE: Final = 128 << 20
_ORDER: Final = (EXCHANGE, QUEUE, BINDING)
"""In which order records are restored: a binding needs its ends."""
_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")


class Broker:
    """An AMQP 0-9-1 broker with RabbitMQ's behaviour, in this process: an async context manager.

    host, port: where it listens; port 0 takes a free one. users: name → password. vhosts: names of virtual
    hosts. heartbeat: seconds, what clients are offered. listener: a socket that listens already, in place of
    host and port. data: the folder for what is durable; without one everything is in memory. close_timeout:
    seconds that clients have to answer the broker's close. Raises UsageError for `guest` with its known password
    on an address that others can reach, OSError where it can't listen there, StoreFailed where the folder can't
    be used.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 5672,
        *,
        users: Mapping[str, str] | None = None,
        vhosts: Sequence[str] = ("/",),
        heartbeat: int = DEFAULT_HEARTBEAT,
        frame_max: int = DEFAULT_FRAME_MAX,
        channel_max: int = DEFAULT_CHANNEL_MAX,
        max_message_size: int = MAX_MESSAGE_SIZE,
        listener: socket.socket | None = None,
        data: Path | None = None,
        close_timeout: float = 1.0,
    ) -> None:
        if users is None and host not in _LOOPBACK:
            raise UsageError(f"a broker on {host} can be reached by others: give it a user and a password")
        self.host = host
        self.port = port
        self.users = dict(users) if users is not None else {"guest": "guest"}
        self.journal = Journal()
        self.last_queue = 0
        self.vhosts = {name: VirtualHost(name, self) for name in vhosts}
        self.nowhere = VirtualHost("", self)
        self.heartbeat = heartbeat
        self.frame_max = frame_max
        self.channel_max = channel_max
        self.max_message_size = max_message_size
        self.connections: set[ClientConnection] = set()
        self.dirty: set[Queue | ReplyTo] = set()
        self.replies: dict[str, ReplyTo] = {}
        self._failed: asyncio.Future[Exception] | None = None
        self.server_properties = _server_properties()
        self._listener = listener
        self._data = data
        self._close_timeout = close_timeout
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """URL of the first virtual host, with the first user's name and password."""
        user, password = next(iter(self.users.items()))
        vhost = next(iter(self.vhosts))
        path = "" if vhost == "/" else quote(vhost, safe="")
        return f"amqp://{quote(user, safe='')}:{quote(password, safe='')}@{self.host}:{self.port}/{path}"

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._failed = loop.create_future()
        listener = self._listener or socket.create_server(
            (self.host, self.port), family=_family(self.host), backlog=1024
        )
        try:
            if self._data is not None:
                await self._recover(self._data)
        except BaseException:
            listener.close()
            raise
        self._server = await loop.create_server(lambda: ClientConnection(self).driver, sock=listener, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close: no new connections, each client is told (320) and has `close_timeout` to answer."""
        if self._server is None:
            return
        self._server.close()
        connections = list(self.connections)
        for connection in connections:
            connection.hang_up(
                Reply.CONNECTION_FORCED, "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'"
            )
        closed = [connection.closed for connection in connections]
        if closed:
            await asyncio.wait(closed, timeout=self._close_timeout)
        for connection in connections:
            connection.driver.abort()
        if closed:
            await asyncio.wait(closed)
        await self._server.wait_closed()
        self._server = None
        for vhost in self.vhosts.values():
            for queue in vhost.queues.values():
                queue.close()
        await self.journal.close()

    # -- what is durable -------------------------------------------------------------------------------

    async def _recover(self, folder: Path) -> None:
        """Open the store and make what it holds again."""
        journal = Journal(SQLiteStore(folder), on_failure=self._fail)
        contents = await journal.open()
        for (kind, _), value in sorted(contents.records.items(), key=lambda record: _ORDER.index(record[0][0])):
            vhost = self.vhosts.setdefault(str(value["vhost"]), VirtualHost(str(value["vhost"]), self))
            if kind == EXCHANGE:
                exchange = read_exchange(value)
                vhost.exchanges[exchange.name] = exchange
            elif kind == QUEUE:
                self.last_queue = max(self.last_queue, vhost.restore_queue(value).id)
            else:
                restore_binding(vhost, value)
        self.journal = journal
        queues = {queue.id: queue for vhost in self.vhosts.values() for queue in vhost.queues.values()}
        for backlog in contents.backlogs:
            queue = queues[backlog.queue]
            queue.recover(backlog.priority, backlog.messages, backlog.size, backlog.last_position)
            if not contents.clean:
                queue.recovered_to = max(queue.recovered_to, backlog.last_position)
        if not contents.clean:
            for queue in {backlog.queue: queues[backlog.queue] for backlog in contents.backlogs}.values():
                journal.put(QUEUE, *queue_record(queue.vhost.name, queue))

    @property
    def failed(self) -> asyncio.Future[Exception]:
        """Done when the store failed for good, with why: the broker confirms nothing any more and has to end."""
        assert self._failed is not None  # noqa: S101 # there is one from the start on
        return self._failed

    def _fail(self, error: Exception) -> None:
        """End what can't be durable any more: `failed` tells whoever runs the broker."""
        _log.critical("the broker ends: %s", error)
        if not self.failed.done():
            self.failed.set_result(error)

    # -- delivering ------------------------------------------------------------------------------------

    def touch(self, queue: Queue) -> None:
        """Note that a queue may have something to deliver."""
        self.dirty.add(queue)

    def dispatch(self) -> None:
        """Deliver from every queue that was touched."""
        while self.dirty:
            self.dirty.pop().dispatch()


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _server_properties() -> Table:
    """What clients are told. They decide by product and version, so these are RabbitMQ's whose behaviour this has."""
    return {
        "capabilities": {
            "publisher_confirms": True,
            "exchange_exchange_bindings": True,
            "basic.nack": True,
            "consumer_cancel_notify": True,
            "connection.blocked": True,
            "consumer_priorities": True,
            "authentication_failure_close": True,
            "per_consumer_qos": True,
            "direct_reply_to": True,
        },
        "cluster_name": f"warren@{platform.node()}",
        "copyright": "Apache-2.0",
        "information": f"Warren {__version__}, an embedded broker; not RabbitMQ",
        "platform": f"Warren {__version__} on Python {platform.python_version()}",
        "product": "RabbitMQ",
        "version": "3.10.8",
    }
