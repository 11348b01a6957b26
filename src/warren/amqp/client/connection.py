"""A connection to a broker, and `connect`, which makes one."""

import asyncio
from collections.abc import Generator
from types import TracebackType
from typing import Final, Self

from warren.amqp.client.channel import DEFAULT_PREFETCH, Channel
from warren.amqp.client.link import Link
from warren.amqp.client.url import BrokerURL, parse_url
from warren.amqp.protocol.tables import FieldValue
from warren.exceptions import ConnectFailed, ConnectionClosed, LoginRefused, UsageError, VirtualHostRefused

CONNECT_TIMEOUT: Final = 10.0
REQUEST_TIMEOUT: Final = 60.0
PUBLISH_TIMEOUT: Final = 60.0


class Connection:
    """A connection to a broker. Made by `connect`; an async context manager that closes it.

    request_timeout, publish_timeout: seconds, what methods of its channels wait where they are not told
    otherwise.
    """

    def __init__(self, url: BrokerURL, name: str | None, request_timeout: float, publish_timeout: float) -> None:
        self.url = url
        self.name = name
        self.request_timeout = request_timeout
        self.publish_timeout = publish_timeout
        self.blocked: str | None = None
        self.link: Link | None = None
        self._close_reason: ConnectionClosed | None = None
        self._closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def __repr__(self) -> str:
        return f"<Connection to {self.url} {'open' if self.is_open else 'closed'}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def is_open(self) -> bool:
        """Whether channels can be used."""
        return self.link is not None and self.link.is_open

    @property
    def close_reason(self) -> ConnectionClosed | None:
        """Why the connection is closed; None while it is not."""
        return self._close_reason

    @property
    def server_properties(self) -> dict[str, FieldValue]:
        """What the broker says of itself: product, version, capabilities and more."""
        return {} if self.link is None else self.link.server_properties

    async def open(self, timeout: float) -> None:
        """Try the hosts in their order until one takes us; for `connect`.

        Raises ConnectFailed naming every host and cause; LoginRefused and VirtualHostRefused at once, since
        other hosts of the same cluster would say the same.
        """
        causes: list[str] = []
        for host, port in self.url.hosts:
            link = Link(self)
            try:
                async with asyncio.timeout(timeout):
                    await link.open(host, port, self.url, self.name)
            except (LoginRefused, VirtualHostRefused):
                raise
            except TimeoutError:
                causes.append(f"no answer from {host}:{port} within {timeout} s")
            except ConnectFailed as error:
                causes.append(str(error))
            else:
                self.link = link
                return
        raise ConnectFailed("; ".join(causes))

    async def channel(self, prefetch: int = DEFAULT_PREFETCH, *, timeout: float | None = None) -> Channel:
        """Open a channel. prefetch: how many unsettled deliveries each consumer may have (0: no limit).

        Raises ConnectionClosed where the connection is closed, UsageError where all channels are in use.
        """
        channel = Channel(self, prefetch)
        await channel.open(timeout=timeout)
        return channel

    async def close(self) -> None:
        """Close in order: connection.close, wait for close-ok. Channels and what waits end with ConnectionClosed.

        Does nothing where it is closed. A broker that does not answer within 5 s is hung up on; cancelling
        hangs up at once.
        """
        if self.link is not None:
            await self.link.close(ConnectionClosed(0, "the connection was closed by this program"))

    async def wait_closed(self) -> None:
        """Wait until the connection is closed, by whomever; `close_reason` then says why."""
        await asyncio.shield(self._closed)

    def current_link(self) -> Link:
        """Give the link to send over. Raises ConnectionClosed."""
        if self._close_reason is not None:
            raise self._close_reason.fresh()
        if self.link is None:
            raise UsageError("the connection was never opened; use `warren.connect`")
        return self.link

    # -- what the link tells ---------------------------------------------------------------------------

    def on_blocked(self, reason: str | None) -> None:
        """Note whether the broker blocks publishers, and let them go on when it no longer does."""
        self.blocked = reason
        if reason is None:
            self.on_link_writable()

    def on_link_writable(self) -> None:
        """Let the publishers of all channels go on."""
        for channel in self._channels():
            channel.wake_publishers()

    def on_link_lost(self, link: Link, error: ConnectionClosed) -> None:
        """End the channels."""
        self._close_reason = error
        for channel in self._channels():
            channel.on_link_lost(error)
        if not self._closed.done():
            self._closed.set_result(None)

    def _channels(self) -> list[Channel]:
        handlers = [] if self.link is None else self.link.channels.values()
        return [handler for handler in handlers if isinstance(handler, Channel)]


class Connecting:
    """What `connect` gives: to be awaited, or entered with `async with`, which closes the connection at its end."""

    def __init__(self, connection: Connection, timeout: float) -> None:
        self._connection = connection
        self._timeout = timeout

    def __await__(self) -> Generator[object, None, Connection]:
        return self._open().__await__()

    async def _open(self) -> Connection:
        await self._connection.open(self._timeout)
        return self._connection

    async def __aenter__(self) -> Connection:
        return await self._open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._connection.close()


def connect(
    url: str | BrokerURL | None = None,
    *,
    name: str | None = None,
    timeout: float | None = None,
    request_timeout: float = REQUEST_TIMEOUT,
    publish_timeout: float = PUBLISH_TIMEOUT,
) -> Connecting:
    """Connect to a broker: `async with connect(url) as connection`, or `connection = await connect(url)`.

    url: see `warren.amqp.client.url`; None means WARREN_BROKER, and where that is not set, guest on this
    machine. name: what the broker's operator sees. timeout: seconds for each host, default 10 or what the
    URL says. request_timeout, publish_timeout: seconds, see Connection.

    Raises UsageError for a URL that makes no sense, ConnectFailed where no host answers, LoginRefused and
    VirtualHostRefused.
    """
    parsed = url if isinstance(url, BrokerURL) else parse_url(url)
    seconds = timeout if timeout is not None else parsed.connection_timeout or CONNECT_TIMEOUT
    return Connecting(Connection(parsed, name, request_timeout, publish_timeout), seconds)
