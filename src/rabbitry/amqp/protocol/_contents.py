"""Contents that have not arrived completely: a header or body is missing, or a body frame was cut by a chunk's end."""

from __future__ import annotations

from rabbitry.amqp.protocol.constants import Reply
from rabbitry.exceptions import ProtocolViolation


class Content:
    """A content whose header or body is incomplete."""

    __slots__ = ("arguments", "event", "header", "missing", "parts", "signature", "too_large")

    def __init__(self, signature: int, event: int, arguments: bytes) -> None:
        self.signature = signature
        self.event = event
        self.arguments = arguments
        self.header = b""
        self.missing = 0
        self.too_large = False
        self.parts: list[bytes | memoryview] = []

    def add(self, part: memoryview, chunk: int) -> None:
        """Append a part of the body, taken from a chunk of `chunk` bytes.

        The part is copied only if most of the chunk is something else: an uncopied part keeps its chunk in memory.
        """
        self.missing -= len(part)
        if part and not self.too_large:  # an empty frame is legal, but would only fill the list
            self.parts.append(part if len(part) * 4 >= chunk else bytes(part))


class CutFrame:
    """A long body frame of which a part has arrived: the next bytes are its rest, whatever they look like."""

    __slots__ = ("channel", "content", "missing", "octets")

    def __init__(self, channel: int, content: Content, size: int, octets: bytes) -> None:
        self.channel = channel
        self.content = content
        self.missing = size
        self.octets = octets

    def add(self, part: memoryview, chunk: int) -> None:
        """Append a part of the frame, taken from a chunk of `chunk` bytes."""
        self.missing -= len(part)
        self.content.add(part, chunk)


def no_content(content: Content) -> ProtocolViolation:
    """Return error 505 for another frame in place of the header or body of a content (RabbitMQ's text)."""
    if content.header:
        text = "UNEXPECTED_FRAME - expected content body, got non content body frame instead"
    else:
        text = "UNEXPECTED_FRAME - expected content header for class 60, got non content header frame instead"
    return ProtocolViolation(Reply.UNEXPECTED_FRAME, text, 60, content.signature & 0xFFFF)
