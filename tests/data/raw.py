"""AMQP frames put together by hand, for what no client library would send."""

import contextlib
import socket
import struct
from collections.abc import Iterator

import pika

_END = b"\xce"


def frame(kind: int, channel: int, payload: bytes) -> bytes:
    """A frame of any kind."""
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + _END


def method(channel: int, class_id: int, method_id: int, arguments: bytes) -> bytes:
    """A method frame with arguments encoded already."""
    return frame(1, channel, struct.pack(">HH", class_id, method_id) + arguments)


def header(channel: int, size: int, flags_and_values: bytes) -> bytes:
    """A content header frame of class basic for a body of `size` bytes."""
    return frame(2, channel, struct.pack(">HHQ", 60, 0, size) + flags_and_values)


def short(text: str | bytes) -> bytes:
    """A short string."""
    data = text.encode() if isinstance(text, str) else text
    return bytes([len(data)]) + data


def long(text: str | bytes) -> bytes:
    """A long string, or a table or array whose fields are encoded already."""
    data = text.encode() if isinstance(text, str) else text
    return struct.pack(">I", len(data)) + data


class Peer:
    """A blocking connection that sends bytes and waits for methods."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._stream = sock.makefile("rb")

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._socket.sendall(data)

    def wait_for(self, class_id: int, method_id: int) -> None:
        """Read frames up to this method; raises EOFError when the server hangs up or closes before."""
        while True:
            start = self._stream.read(7)
            if len(start) < 7:
                raise EOFError(f"the server hung up before method {class_id}.{method_id}")
            kind, _, size = struct.unpack(">BHI", start)
            payload = self._stream.read(size + 1)
            if kind == 1 and struct.unpack_from(">HH", payload) == (class_id, method_id):
                return
            if kind == 1 and payload[:4] in (b"\x00\x0a\x00\x32", b"\x00\x14\x00\x28"):
                raise EOFError(f"the server closed before method {class_id}.{method_id}: {payload!r}")

    def answer_close(self) -> None:
        """Wait for the server's connection.close and answer it."""
        self.wait_for(10, 50)
        self.send(method(0, 10, 51, b""))
        with contextlib.suppress(ConnectionResetError):  # RabbitMQ may reset once all is said
            self._stream.read()

    def close(self) -> None:
        """Close the connection in order."""
        self.send(method(0, 10, 50, struct.pack(">H", 200) + short("done") + b"\x00" * 4))
        self.wait_for(10, 51)


@contextlib.contextmanager
def connected(parameters: pika.ConnectionParameters) -> Iterator[Peer]:
    """A peer that has logged in and opened the virtual host."""
    with socket.create_connection((parameters.host, parameters.port), 10) as sock:
        peer = Peer(sock)
        peer.send(b"AMQP\x00\x00\x09\x01")
        peer.wait_for(10, 10)
        capabilities = short("authentication_failure_close") + b"t\x01"
        properties = long(short("capabilities") + b"F" + long(capabilities))
        peer.send(method(0, 10, 11, properties + short("PLAIN") + long("\0guest\0guest") + short("en_US")))
        peer.wait_for(10, 30)
        peer.send(method(0, 10, 31, struct.pack(">HIH", 2047, 131072, 60)))
        peer.send(method(0, 10, 40, short(parameters.virtual_host) + b"\x00\x00"))
        peer.wait_for(10, 41)
        yield peer
