"""A broker scripted by a test: it agrees to everything, and confirms and returns on demand."""

import asyncio
from types import TracebackType
from typing import Final, Self

from rabbitry.amqp.driver import Driver
from rabbitry.amqp.protocol import hot
from rabbitry.amqp.protocol.connection import Connection as Core
from rabbitry.amqp.protocol.connection import Role
from rabbitry.amqp.protocol.events import HEADER, METHOD, PUBLISH, Event
from rabbitry.amqp.protocol.methods import (
    BasicAck,
    BasicCancel,
    BasicCancelOk,
    BasicConsume,
    BasicConsumeOk,
    BasicDeliver,
    BasicNack,
    BasicQos,
    BasicQosOk,
    BasicReturn,
    ChannelClose,
    ChannelCloseOk,
    ChannelOpen,
    ChannelOpenOk,
    ConfirmSelect,
    ConnectionClose,
    ConnectionCloseOk,
    ConnectionOpen,
    ConnectionOpenOk,
    ConnectionStart,
    ConnectionStartOk,
    ConnectionTune,
    Method,
    QueueDeclare,
    QueueDeclareOk,
)

_FRAME_MAX: Final = 131_072
_CHANNEL_MAX: Final = 100


class ScriptedLink:
    """One client's connection.

    published: (exchange, routing key, header, body), in the order of the delivery tags. channels: where each of them
    came. closed: channels that the client closed. confirming: channels with confirms. consumed: consumer tags of
    basic.consume in their order; answered at once while `agrees`.
    """

    def __init__(self, frame_max: int) -> None:
        self.frame_max = frame_max
        self.core = Core(Role.BROKER, frame_max=_FRAME_MAX, channel_max=_CHANNEL_MAX, max_body_size=1 << 20)
        self.driver = Driver(self.core, self)
        self.published: list[tuple[str, str, bytes, bytes]] = []
        self.channels: list[int] = []
        self.closed: list[int] = []
        self.confirming: set[int] = set()
        self.published_before_confirming = 0
        self.consumed: list[str] = []
        self.agrees = True
        self.lost = False

    def on_events(self, events: list[Event]) -> None:
        for event in events:
            if event[0] == HEADER:
                self.send(0, ConnectionStart(0, 9, {"product": "scripted"}, b"PLAIN", b"en_US"))
            elif event[0] == PUBLISH:
                exchange, routing_key, _, _ = hot.parse_publish(event[2])
                self.published.append((exchange, routing_key, event[3], event[4]))
                self.channels.append(event[1])
                self.published_before_confirming += event[1] not in self.confirming
            elif event[0] == METHOD:
                self._on_method(event[1], event[2])

    def on_lost(self, error: Exception | None) -> None:
        self.lost = True

    def on_writable(self) -> None: ...

    def _on_method(self, channel: int, method: Method) -> None:
        if isinstance(method, ConnectionStartOk):
            self.send(0, ConnectionTune(_CHANNEL_MAX, self.frame_max, 0))
        elif isinstance(method, ConnectionOpen):
            self.send(0, ConnectionOpenOk())
        elif isinstance(method, ConnectionClose):
            self.send(0, ConnectionCloseOk())
            self.driver.close()
        elif isinstance(method, ConnectionCloseOk):
            self.driver.close()
        elif isinstance(method, ChannelOpen):
            self.send(channel, ChannelOpenOk())
        elif isinstance(method, ConfirmSelect):
            self.confirming.add(channel)
        elif isinstance(method, BasicQos):
            self.send(channel, BasicQosOk())
        elif isinstance(method, QueueDeclare):
            self.send(channel, QueueDeclareOk(method.queue, 0, 0))
        elif isinstance(method, BasicConsume):
            self.consumed.append(method.consumer_tag)
            if self.agrees:
                self.send(channel, BasicConsumeOk(method.consumer_tag))
        elif isinstance(method, BasicCancel):
            self.send(channel, BasicCancelOk(method.consumer_tag))
        elif isinstance(method, ChannelClose):
            self.closed.append(channel)
            self.send(channel, ChannelCloseOk())

    # -- for tests, on channel 1 ------------------------------------------------------------

    def send(self, channel: int, method: Method) -> None:
        """Send any method."""
        self.driver.write(self.core.send_method(channel, method))

    def ack(self, tag: int, *, multiple: bool = False) -> None:
        """Confirm a message, or all up to it."""
        self.send(1, BasicAck(tag, multiple))

    def nack(self, tag: int, *, multiple: bool = False) -> None:
        """Refuse a message, or all up to it."""
        self.send(1, BasicNack(tag, multiple, False))

    def _send_content(self, method: Method, header: bytes, body: bytes) -> None:
        content = hot.encode_content(1, header, body, self.core.frame_limit)
        self.driver.write(self.core.send_method(1, method) + content)

    def give_back(self, tag: int) -> None:
        """Return a message as unroutable; its confirm is another matter."""
        exchange, routing_key, header, body = self.published[tag - 1]
        method = BasicReturn(312, "NO_ROUTE", exchange, routing_key)
        self._send_content(method, header, body)

    def deliver(self, consumer_tag: str, delivery_tag: int, body: bytes) -> None:
        """Deliver a message without properties."""
        header = hot.encode_header(len(body), 0, b"")
        method = BasicDeliver(consumer_tag, delivery_tag, False, "", "q")
        self._send_content(method, header, body)


class ScriptedBroker:
    """Listens on a free port of 127.0.0.1: an async context manager.

    links: a `ScriptedLink` for each connection. frame_max: bytes, what it offers to those that come.
    """

    def __init__(self, link: type[ScriptedLink] = ScriptedLink) -> None:
        """link: the class of each connection."""
        self._link = link
        self.frame_max = _FRAME_MAX
        self.links: list[ScriptedLink] = []
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """Where it is."""
        assert self._server is not None
        return f"amqp://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/"

    def _accept(self) -> Driver:
        link = self._link(self.frame_max)
        self.links.append(link)
        return link.driver

    async def __aenter__(self) -> Self:
        self._server = await asyncio.get_running_loop().create_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for link in self.links:
            link.driver.abort()
        await self._server.wait_closed()
