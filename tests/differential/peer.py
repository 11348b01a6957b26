"""A client that sends the steps of a script, legal or not, and logs everything that it receives."""

import re
import select
import socket
import struct
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self
from urllib.parse import unquote, urlsplit

from rabbitry.amqp.protocol import methods as m
from rabbitry.amqp.protocol.constants import PROTOCOL_HEADER
from rabbitry.amqp.protocol.encoding import decode_method, encode_method
from rabbitry.amqp.protocol.layouts import BY_TYPE
from rabbitry.amqp.protocol.methods import Method
from rabbitry.amqp.protocol.properties import Properties, decode_header, encode_header
from rabbitry.amqp.protocol.tables import FieldValue, Table

_ANSWER: Final = 90.0
"""Seconds for an answer, enough for every call unless the machine stalls."""
_SILENCE: Final = 0.06
"""Seconds of silence after which nothing more is expected, times the patience."""
_CONFIRMS: Final = 10.0
"""Seconds for the confirms of what was published; some scripts publish what is never confirmed."""
_CONTENT: Final = (m.BasicDeliver, m.BasicGetOk, m.BasicReturn)
_UNASKED: Final = (m.BasicDeliver, m.BasicReturn, m.BasicAck, m.BasicNack, m.BasicCancel)
CAPABILITIES: Final[Table] = {
    "publisher_confirms": True,
    "consumer_cancel_notify": True,
    "basic.nack": True,
    "connection.blocked": True,
    "authentication_failure_close": True,
}


class Peer:
    """A connection with channel 1 open. `log`: a line for each frame received, random parts masked."""

    def __init__(
        self, url: str, *, capabilities: Table = CAPABILITIES, log_in: bool = True, patience: float = 1
    ) -> None:
        self.url = url
        self.patience = patience
        parts = urlsplit(url)
        self.vhost = unquote(parts.path[1:]) or "/"
        self.log: list[str] = []
        self._login = f"\0{parts.username}\0{parts.password}".encode()
        self.queues: set[str] = set()
        self.exchanges: set[str] = set()
        self.is_open = True
        self.answers_closes = True
        self.tag = 0
        self.properties: Properties | None = None
        """Those of the last message."""
        self._data = b""
        self._pending: tuple[int, Method, bytes | None, bytes] | None = None
        self._confirmed: dict[int, set[int]] = {}
        self._published: dict[int, int] = {}
        """Messages sent on each channel since it confirms."""
        self._waits_for_content = 0
        self._socket = socket.create_connection((parts.hostname or "", parts.port or 0))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if log_in:
            self._log_in(capabilities)
            self.call(m.ChannelOpen())
            self.log.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.is_open and error is None:
            self.send(m.ConnectionClose(200, "bye"), 0)
            self._until(lambda: not self.is_open)
        self._socket.close()

    def _log_in(self, capabilities: Table) -> None:
        self.raw(PROTOCOL_HEADER)
        self.call_on(0, None)
        start = m.ConnectionStartOk({"capabilities": capabilities}, "PLAIN", self._login, "en_US")
        self.call_on(0, start)
        self.send(m.ConnectionTuneOk(2047, 131072, 0), 0)
        self.call_on(0, m.ConnectionOpen(self.vhost))

    # -- sending ---------------------------------------------------------------------------------------

    def raw(self, data: bytes) -> None:
        """Send bytes."""
        try:
            self._socket.sendall(data)
        except OSError:
            self.is_open = False

    def frame(self, kind: int, channel: int, payload: bytes) -> None:
        """Send a frame."""
        self.raw(struct.pack(">BHI", kind, channel, len(payload)) + payload + b"\xce")

    def send(self, method: Method, channel: int = 1) -> None:
        """Send a method without waiting for an answer."""
        if isinstance(method, m.QueueDeclare):
            self.queues.add(method.queue)
        elif isinstance(method, m.ExchangeDeclare):
            self.exchanges.add(method.exchange)
        self.frame(1, channel, encode_method(method))

    def call(self, method: Method, channel: int = 1) -> None:
        """Send a method, and wait for its answer, or a close."""
        self.call_on(channel, method)

    def call_on(self, channel: int, method: Method | None) -> None:
        """Send a method, and wait for any answer on that channel except deliveries and confirms."""
        if method is not None:
            self.send(method, channel)
        seen = False

        def answered() -> bool:
            return seen or not self.is_open

        def see(number: int, answer: Method) -> None:
            nonlocal seen
            if number in (channel, 0) and not isinstance(answer, _UNASKED):
                seen = True

        self._until(answered, see)

    def publish(
        self,
        exchange: str,
        routing_key: str,
        body: bytes = b"x",
        properties: Properties | None = None,
        *,
        mandatory: bool = False,
        immediate: bool = False,
        channel: int = 1,
    ) -> None:
        """Send a message."""
        if channel in self._published:
            self._published[channel] += 1
        self.send(m.BasicPublish(exchange, routing_key, mandatory, immediate), channel)
        self.frame(2, channel, encode_header(properties or Properties(), len(body)))
        if body:
            self.frame(3, channel, body)

    def drop(self) -> None:
        """Close the socket without `connection.close`."""
        self.is_open = False
        self._socket.close()

    # -- common steps --------------------------------------------------------------------------

    def queue(self, name: str, **flags: object) -> None:
        """Declare a queue. Keywords that begin with `x_` are its arguments, the others the method's fields."""
        arguments: dict[str, FieldValue] = {}
        fields: dict[str, object] = {}
        for key, value in flags.items():
            if key.startswith("x_"):
                arguments[key.replace("_", "-")] = value  # type: ignore[assignment] # scripts give field values
            else:
                fields[key] = value
        self.call(m.QueueDeclare(queue=name, **fields)._replace(arguments=arguments))  # type: ignore[arg-type] # see above

    def consume(self, queue: str, tag: str = "c", *, channel: int = 1, **flags: object) -> None:
        """Start a consumer."""
        self.call(m.BasicConsume(queue=queue, consumer_tag=tag)._replace(**flags), channel)  # type: ignore[arg-type] # see above

    def get(self, queue: str, *, no_ack: bool = True, channel: int = 1) -> None:
        """Get a message, or log that there is none, after waiting for earlier publishes."""
        self.call(m.BasicGet(queue, no_ack), channel)

    def count(self, queue: str, channel: int = 1) -> None:
        """Log how many messages and consumers a queue has."""
        self.call(m.QueueDeclare(queue=queue, passive=True), channel)

    def until_it_has(self, queue: str, messages: int) -> None:
        """Wait until a queue has `count` messages; log only the confirms that arrive meanwhile."""
        deadline = time.monotonic() + _ANSWER
        while time.monotonic() < deadline:
            self.quiet()
            self.count(queue)
            # A confirm may stand behind the answer.
            answers = [place for place, line in enumerate(self.log) if line.startswith("1: QueueDeclareOk(")]
            answer = answers[-1] if answers else -1
            if f"message_count={messages}," in self.log.pop(answer):
                return
        self.log.append(f"{queue} NEVER HAD {messages}")

    def carried_out(self, channel: int = 1) -> None:
        """Wait until everything sent on a channel is processed, or has closed it; this is logged."""
        self.call(m.BasicQos(), channel)

    def open(self, channel: int) -> None:
        """Open a channel."""
        self.call(m.ChannelOpen(), channel)

    def quiet(self, silence: float = _SILENCE) -> None:
        """Read until nothing more arrives, and confirms are no longer waited for."""
        silence *= self.patience
        given_up_at = time.monotonic() + _CONFIRMS
        quiet_at = time.monotonic() + silence
        while self.is_open and (left := quiet_at - time.monotonic()) > 0:
            if self._read(left, None) or (self._awaits_confirms() and time.monotonic() < given_up_at):
                quiet_at = time.monotonic() + silence
        # Confirms may arrive in any order.
        for index in range(len(self.log)):
            last = index
            while last < len(self.log) and re.fullmatch(r"\d+: n?ack \d+", self.log[last]):
                last += 1
            self.log[index:last] = sorted(self.log[index:last])

    # -- receiving -------------------------------------------------------------------------------------

    def _until(self, done: Callable[[], bool], see: Callable[[int, Method], None] | None = None) -> None:
        deadline = time.monotonic() + _ANSWER
        while not done() or self._pending is not None:
            if not self.is_open:
                return
            left = deadline - time.monotonic()
            if left < 0:
                self.log.append("NO ANSWER")
                return
            self._read(left, see)

    def _read(self, timeout: float, see: Callable[[int, Method], None] | None) -> bool:
        ready, _, _ = select.select([self._socket], [], [], timeout)
        if not ready:
            return False
        try:
            chunk = self._socket.recv(1 << 16)
        except OSError:
            chunk = b""
        if not chunk:
            self.log.append("socket closed")
            self.is_open = False
            return True
        self._data += chunk
        if self._data.startswith(b"AMQP"):
            self.log.append(f"protocol header {self._data[:8]!r}")
            self._data = self._data[8:]
        while len(self._data) >= 8:
            kind, channel, size = struct.unpack_from(">BHI", self._data)
            if len(self._data) < size + 8:
                break
            payload, self._data = self._data[7 : 7 + size], self._data[size + 8 :]
            self._on_frame(kind, channel, payload, see)
        return True

    def _on_frame(self, kind: int, channel: int, payload: bytes, see: Callable[[int, Method], None] | None) -> None:
        if kind == 1:
            method = decode_method(payload)
            if isinstance(method, _CONTENT):
                self._pending = (channel, method, None, b"")
            else:
                self._on_method(channel, method)
                if see is not None:
                    see(channel, method)
        elif kind in (2, 3) and self._pending is not None:
            number, method, header, body = self._pending
            if kind == 2:
                header = payload
            else:
                body += payload
            assert header is not None
            self._pending = (number, method, header, body)
            if len(body) >= int.from_bytes(header[4:12], "big"):
                self._pending = None
                self._note(number, f"{self._words(method)} {self._content(header, body)}")
                if isinstance(method, m.BasicDeliver | m.BasicGetOk):
                    self.tag = method.delivery_tag
                    self.properties = decode_header(header)
                if see is not None:
                    see(number, method)

    def _on_method(self, channel: int, method: Method) -> None:
        if isinstance(method, m.BasicAck | m.BasicNack):
            self._on_confirm(channel, method)
            return
        self._note(channel, self._words(method))
        if isinstance(method, m.ConfirmSelectOk):
            self._published.setdefault(channel, 0)
        elif isinstance(method, m.ChannelClose | m.ChannelCloseOk):
            self._published.pop(channel, None)
            self._confirmed.pop(channel, None)
        if isinstance(method, m.ChannelClose):
            if self.answers_closes:
                self.send(m.ChannelCloseOk(), channel)
        elif isinstance(method, m.ConnectionClose):
            if self.answers_closes:
                self.send(m.ConnectionCloseOk(), 0)
                self.is_open = False
        elif isinstance(method, m.ConnectionCloseOk):
            self.is_open = False

    def _on_confirm(self, channel: int, method: m.BasicAck | m.BasicNack) -> None:
        """Log each tag by itself: the broker chooses how many one confirm covers."""
        confirmed = self._confirmed.setdefault(channel, set())
        for tag in range(1 if method.multiple else method.delivery_tag, method.delivery_tag + 1):
            if tag not in confirmed:
                confirmed.add(tag)
                self._note(channel, f"{'ack' if isinstance(method, m.BasicAck) else 'nack'} {tag}")

    def _awaits_confirms(self) -> bool:
        return any(number > len(self._confirmed.get(channel, ())) for channel, number in self._published.items())

    def _note(self, channel: int, text: str) -> None:
        self.log.append(f"{channel}: {text}")

    # -- words -----------------------------------------------------------------------------------------

    def _words(self, method: Method) -> str:
        if isinstance(method, m.ConnectionStart):
            return f"ConnectionStart({method.mechanisms!r}, {method.locales!r})"
        text = f"{type(method).__name__}({', '.join(f'{name}={value!r}' for name, value in method._asdict().items())})"
        return self.mask(text)

    def _content(self, header: bytes, body: bytes) -> str:
        properties = {name: value for name, value in decode_header(header)._asdict().items() if value is not None}
        return self.mask(f"{_described(properties)} {body[:60]!r}")

    def mask(self, text: str) -> str:
        """Mask the parts that differ between any two brokers, such as generated names."""
        text = text.replace("\\'", "'")
        text = text.replace(f"vhost '{self.vhost}'", "vhost 'V'").replace(f"vhost {self.vhost} ", "vhost V ")
        text = re.sub(r"amq\.gen-[\w-]{22}", "amq.gen-G", text)
        text = re.sub(r"amq\.ctag-[\w-]{22}", "amq.ctag-T", text)
        return re.sub(r"amq\.rabbitmq\.reply-to\.[\w.=+/-]+", "amq.rabbitmq.reply-to.R", text)


def _described(value: object) -> str:
    """Describe a table with sorted keys and masked times."""
    if isinstance(value, dict):
        inside = (f"{key}: {'TIME' if key == 'time' else _described(value[key])}" for key in sorted(value))
        return "{" + ", ".join(inside) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_described, value)) + "]"
    return repr(value)


def signature(method: type[Method]) -> bytes:
    """Return the class id and method id, encoded as in a method's payload."""
    return BY_TYPE[method].signature.to_bytes(4, "big")
