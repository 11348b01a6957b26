"""A minimal blocking client: it sends given bytes, and counts the frames that come back."""

import socket
import struct
from collections.abc import Callable, Iterator
from typing import Final, Self
from urllib.parse import urlsplit

from rabbitry.amqp.protocol import hot
from rabbitry.amqp.protocol import methods as m
from rabbitry.amqp.protocol.constants import PROTOCOL_HEADER
from rabbitry.amqp.protocol.encoding import decode_method, encode_method
from rabbitry.amqp.protocol.layouts import NO_ARGUMENTS
from rabbitry.amqp.protocol.methods import Method
from rabbitry.amqp.protocol.properties import Properties, encode_header
from rabbitry.amqp.protocol.tables import Table

METHOD: Final = 1
HEADER: Final = 2
_FRAME: Final = struct.Struct(">BHI")
_PATIENCE: Final = 600.0
_MUCH: Final = 1 << 18


class Raw:
    """A connection to a virtual host, with channel 1 open."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._socket = socket.create_connection((parts.hostname or "", parts.port or 0), timeout=_PATIENCE)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._data = bytearray()
        self._frames: Iterator[tuple[int, bytes]] = iter(())
        self.send(PROTOCOL_HEADER)
        self.wait_for(m.ConnectionStart)
        self.call(m.ConnectionStartOk({}, "PLAIN", b"\0guest\0guest", "en_US"), m.ConnectionTune, 0)
        self.send(frame(m.ConnectionTuneOk(2047, 131072, 0), 0))
        self.call(m.ConnectionOpen("/"), m.ConnectionOpenOk, 0)
        self.call(m.ChannelOpen(), m.ChannelOpenOk)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, data: bytes) -> None:
        """Send bytes unchanged."""
        self._socket.sendall(data)

    def call(self, method: Method, answer: type[Method], channel: int = 1) -> Method:
        """Send a method and wait for its answer."""
        self.send(frame(method, channel))
        return self.wait_for(answer)

    def wait_for(self, *answers: type[Method]) -> Method:
        """Wait for one of some methods, and drop other frames. Raises RuntimeError if the broker closes."""
        while True:
            kind, payload = self.next_frame()
            if kind == METHOD:
                method = decode_method(payload)
                if isinstance(method, answers):
                    return method
                if isinstance(method, m.ChannelClose | m.ConnectionClose):
                    raise RuntimeError(f"the broker closed: {method}")

    def wait_for_all(self, count: int, is_one: Callable[[int, bytes], bool]) -> None:
        """Wait for a number of matching frames."""
        while count:
            count -= is_one(*self.next_frame())

    def next_frame(self) -> tuple[int, bytes]:
        """Return the type and the payload of the next frame."""
        while (found := next(self._frames, None)) is None:
            received = self._socket.recv(_MUCH)
            if not received:
                raise RuntimeError("the broker closed the connection")
            self._data += received
            self._frames = iter(self._scan())
        return found

    def _scan(self) -> list[tuple[int, bytes]]:
        frames = []
        data, at = self._data, 0
        while len(data) - at >= _FRAME.size:
            kind, _, size = _FRAME.unpack_from(data, at)
            end = at + _FRAME.size + size + 1
            if end > len(data):
                break
            frames.append((kind, bytes(data[at + _FRAME.size : end - 1])))
            at = end
        del data[:at]
        return frames

    def declare(self, queue: str, *, durable: bool = False, arguments: Table = NO_ARGUMENTS) -> None:
        """Declare a queue."""
        self.call(m.QueueDeclare(queue, durable=durable, arguments=arguments), m.QueueDeclareOk)

    def fill(self, queue: str, count: int, *, persistent: bool) -> None:
        """Publish messages of 100 bytes to a queue, and wait until the last one is confirmed."""
        self.call(m.ConfirmSelect(), m.ConfirmSelectOk)
        one = publish("", queue, bytes(100), persistent=persistent)
        confirmed = sent = 0
        while confirmed < count:
            while sent < count and sent - confirmed < 20_000:
                burst = min(1_000, count - sent)
                self.send(one * burst)
                sent += burst
            ack = self.wait_for(m.BasicAck)
            assert isinstance(ack, m.BasicAck)  # wait_for returns nothing else
            confirmed = max(confirmed, ack.delivery_tag)


def frame(method: Method, channel: int = 1) -> bytes:
    """Encode a method as a frame."""
    return hot.encode_method_frame(channel, encode_method(method))


def publish(
    exchange: str, routing_key: str, body: bytes = b"", *, persistent: bool = False, **properties: object
) -> bytes:
    """Encode a publish on channel 1."""
    header = encode_header(Properties(delivery_mode=2 if persistent else 1, **properties), len(body))  # type: ignore[arg-type] # names of properties
    return frame(m.BasicPublish(exchange, routing_key)) + hot.encode_content(1, header, body, 131072 - 8)
