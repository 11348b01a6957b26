"""Contents that arrive in pieces; those that arrive whole have a fast way in hot.py.

A large body can be read from the socket into its own memory. In pieces, 1 MiB would be read into four new chunks, be
copied into a fifth piece of memory, and all would be freed: 2 MiB, which malloc may return to the system and get again,
with a page fault for every 4 KiB. `benchmarks/client.py` measures both (consume, 1 MiB).
"""

from __future__ import annotations

import struct
from io import BytesIO
from typing import Final

from rabbitry.amqp.protocol.constants import FRAME_BODY, FRAME_END, FRAME_OVERHEAD, Reply
from rabbitry.exceptions import ProtocolViolation

LONG_PART: Final = 4096
"""Size of a body frame, in bytes, from which on its first part is processed before the rest has arrived."""
_MISSING_FOR_MEMORY: Final = 1 << 17
"""Bytes missing of a body from which on they are read into its own memory."""
_LARGEST_MEMORY: Final = 1 << 27
"""Size of the largest body with memory of its own: RabbitMQ's default limit. A header can claim any size."""
_MOST_AT_ONCE: Final = 1 << 20
"""Most bytes that are read into a body's memory at once, which takes about 0.2 ms."""
_NEXT_FRAME: Final = struct.Struct(">BBHI")
"""The end of a frame, and type, channel and size of the next one."""


class Content:
    """A content whose header or body is incomplete, or whose body frame was cut by a chunk's end."""

    __slots__ = ("arguments", "event", "header", "memory", "missing", "parts", "signature", "too_large")

    def __init__(self, signature: int, event: int, arguments: bytes) -> None:
        self.signature = signature
        self.event = event
        self.arguments = arguments
        self.header = b""
        self.missing = 0
        self.too_large = False
        self.parts: list[bytes | memoryview] = []
        self.memory: _Memory | None = None

    def add(self, part: memoryview, chunk: int) -> None:
        """Append a part of the body, taken from a chunk of `chunk` bytes.

        The part is copied only if most of the chunk is something else: an uncopied part keeps its chunk in memory.
        """
        self.missing -= len(part)
        if self.memory is not None:
            self.memory.append(part)
        elif part and not self.too_large:  # an empty frame is legal, but would only fill the list
            self.parts.append(part if len(part) * 4 >= chunk else bytes(part))

    def own_memory(self) -> _Memory:
        """Return the memory of the body, allotted by the first call, which copies the parts that have arrived."""
        if self.memory is None:
            self.memory = _Memory(self.missing + sum(map(len, self.parts)))
            for part in self.parts:
                self.memory.append(part)
            self.parts.clear()
        return self.memory

    def body(self) -> bytes:
        """Return the whole body."""
        if self.memory is None:
            return b"".join(self.parts)
        # The views that `room` returned are gone: the last bytes never fit into one. With a view, this would be a copy.
        self.memory.view.release()
        return self.memory.bytes.getvalue()


class _Memory:
    """The memory of a whole body, filled up to `end`."""

    __slots__ = ("bytes", "end", "view")

    def __init__(self, size: int) -> None:
        self.bytes = BytesIO(bytes(size))  # the only class whose memory can be written, and be had as bytes uncopied
        self.view = self.bytes.getbuffer()
        self.end = 0

    def append(self, part: bytes | memoryview) -> None:
        end = self.end + len(part)
        self.view[self.end : end] = part
        self.end = end


class CutFrame:
    """A long body frame of which a part has arrived: the next bytes are its rest, whatever they look like."""

    __slots__ = ("_octets", "_size", "channel", "content", "missing")

    def __init__(self, channel: int, content: Content, size: int, octets: bytes) -> None:
        """octets: the first 64 bytes of the frame's payload."""
        self.channel = channel
        self.content = content
        self.missing = size
        self._size = size
        self._octets = octets

    @property
    def octets(self) -> bytes:
        """The first bytes of the frame's payload, for an error's text, once the payload has arrived."""
        memory = self.content.memory
        return self._octets if memory is None else bytes(memory.view[memory.end - self._size : memory.end][:64])

    def add(self, part: memoryview, chunk: int) -> None:
        """Append a part of the frame, taken from a chunk of `chunk` bytes."""
        self.missing -= len(part)
        self.content.add(part, chunk)

    def room(self) -> memoryview | None:
        """Return the memory of the body to read the next bytes into; None if too few are missing, or far too many."""
        content = self.content
        if content.missing < _MISSING_FOR_MEMORY or content.too_large:
            return None
        if int.from_bytes(content.header[4:12], "big") > _LARGEST_MEMORY:
            return None
        memory = content.own_memory()
        return memory.view[memory.end : memory.end + _MOST_AT_ONCE]

    def take(self, received: int, limit: int) -> bytes:
        """Process `received` bytes that were read into `room`: the rest of this frame, and the frames that follow.

        Long body frames of the same channel, of at most `limit` bytes, are moved together, without what is between
        their payloads, and the last one becomes this frame.

        Returns the bytes from the end of a frame on which another frame follows, or a header that was cut.
        """
        memory = self.content.own_memory()
        view, begin = memory.view, memory.end
        to = at = begin
        stop = begin + received
        while True:
            size = min(self.missing, stop - at)
            if at != to:
                view[to : to + size] = view[at : at + size]
            to, at = to + size, at + size
            self.missing -= size
            if stop - at < FRAME_OVERHEAD:
                break
            end, kind, channel, size = _NEXT_FRAME.unpack_from(view, at)
            is_next = end == FRAME_END and kind == FRAME_BODY and channel == self.channel
            if not is_next or not LONG_PART <= size <= min(limit, len(view) - to):
                break
            at += FRAME_OVERHEAD
            self.missing = self._size = size
        memory.end = to
        self.content.missing -= to - begin
        return bytes(view[at:stop])


def no_content(content: Content) -> ProtocolViolation:
    """Return error 505 for another frame in place of the header or body of a content (RabbitMQ's text)."""
    if content.header:
        text = "UNEXPECTED_FRAME - expected content body, got non content body frame instead"
    else:
        text = "UNEXPECTED_FRAME - expected content header for class 60, got non content header frame instead"
    return ProtocolViolation(Reply.UNEXPECTED_FRAME, text, 60, content.signature & 0xFFFF)
