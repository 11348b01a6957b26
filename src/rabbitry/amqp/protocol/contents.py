"""Contents that arrive in pieces; those that arrive whole have a fast way in hot.py.

A large body can be read from the socket into its own memory, with each frame's payload in its place. In pieces, 1 MiB
would be read into four new chunks, be copied into a fifth piece of memory, and all would be freed: 2 MiB, which malloc
may return to the system and get again, with a page fault for every 4 KiB. `benchmarks/client.py` measures it (consume,
1 MiB).
"""

from __future__ import annotations

import struct
import sys
from functools import cache, partial
from io import BytesIO
from typing import TYPE_CHECKING, Final

from rabbitry.amqp.protocol.constants import FRAME_BODY, FRAME_END, FRAME_OVERHEAD, Reply
from rabbitry.exceptions import ProtocolViolation

if TYPE_CHECKING:
    from collections.abc import Callable

LONG_PART: Final = 4096
"""Size of a body frame, in bytes, from which on its first part is processed before the rest has arrived."""
MISSING_FOR_MEMORY: Final = 1 << 17
"""Bytes missing of a body from which on they are read into its own memory."""
_LARGEST_MEMORY: Final = 1 << 27
"""Size of the largest body with memory of its own: RabbitMQ's default limit. A header can claim any size."""
_MOST_AT_ONCE: Final = 1 << 20
"""Bytes of a body after which no further frame is read at once: 1 MiB takes about 0.2 ms."""
_MOST_FRAMES: Final = 64
"""Most frames that are read at once, each into two pieces of memory: the system takes at most 1,024 of them."""
_KEPT_BY_MALLOC: Final = 4 << 20
"""Half of the freed memory, in bytes, that the process keeps for the next large bodies: see `keep_freed_memory`."""
_AFTER: Final = 2 * LONG_PART
"""Bytes read at once with the end of a body: method, header and the first part of the body of the next message."""
_BETWEEN: Final = struct.Struct(">BBHI")
"""What is between the payloads of two frames: the end of one, and type, channel and size of the next."""


@cache
def keep_freed_memory() -> None:
    """Have the C library keep the memory of some large bodies when they are freed, instead of returning it.

    glibc's malloc gets a block of this size from the system by itself. When such a block is freed, malloc takes blocks
    up to its size from the heap from then on, and returns the heap's end only beyond twice the size
    (M_MMAP_THRESHOLD in mallopt(3)). Without this, a body of 1 MiB causes up to 60 page faults, which take 50 µs.
    Elsewhere it has no effect: memory that nobody touches is not allotted.
    """
    bytes(_KEPT_BY_MALLOC)


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
        # `CutFrame.take` has dropped the views that `room` returned. With a view, this would be a copy.
        self.memory.view.release()
        return self.memory.bytes.getvalue()


@cache
def _allot() -> Callable[[int], bytes]:
    """Return a function that allots so many bytes without filling them: zeros would take a tenth of a body's CPU.

    Only CPython's C API does it (PyBytes_FromStringAndSize), which takes ctypes; elsewhere the bytes are filled.
    """
    if sys.implementation.name != "cpython":
        return bytes
    try:
        import ctypes  # takes milliseconds, and most programs get no large bodies

        prototype = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_ssize_t)
        allot = prototype(("PyBytes_FromStringAndSize", ctypes.pythonapi))
    except (ImportError, OSError, AttributeError):  # this Python was built without libffi, or without loading libraries
        return bytes
    return partial(allot, None)


class _Bytes(BytesIO):
    """A file of bytes that is not closed when it is dropped.

    BytesIO can't close while there are views of it, and Python reports that if it drops file and views together, as it
    does with what a lost connection leaves.
    """

    __slots__ = ()

    def __del__(self) -> None:
        """Do nothing: there is only memory to free."""


class _Memory:
    """The memory of a whole body, filled up to `end`; `between` is for what is read with it and no part of it.

    What is behind `end` may be anything that this process has freed: nobody is to see it.
    """

    __slots__ = ("between", "bytes", "end", "view")

    def __init__(self, size: int) -> None:
        self.bytes = _Bytes(_allot()(size))  # the only class whose memory can be written, and be had as bytes uncopied
        self.view = self.bytes.getbuffer()
        self.between = memoryview(bytearray(_MOST_FRAMES * FRAME_OVERHEAD + _AFTER))
        self.end = 0

    def append(self, part: bytes | memoryview) -> None:
        end = self.end + len(part)
        self.view[self.end : end] = part
        self.end = end


class CutFrame:
    """A long body frame of which a part has arrived: the next bytes are its rest, whatever they look like."""

    __slots__ = ("_octets", "_room", "_size", "channel", "content", "missing")

    def __init__(self, channel: int, content: Content, size: int, octets: bytes) -> None:
        """octets: the first 64 bytes of the frame's payload."""
        self.channel = channel
        self.content = content
        self.missing = size
        self._size = size
        self._octets = octets
        self._room: list[memoryview] = []

    @property
    def octets(self) -> bytes:
        """The first bytes of the frame's payload, for an error's text, once the payload has arrived."""
        memory = self.content.memory
        return self._octets if memory is None else bytes(memory.view[memory.end - self._size : memory.end][:64])

    def add(self, part: memoryview, chunk: int) -> None:
        """Append a part of the frame, taken from a chunk of `chunk` bytes."""
        self.missing -= len(part)
        self.content.add(part, chunk)

    def room(self) -> list[memoryview] | None:
        """Return the memory to read the next bytes into, piece by piece; None if too few are missing, or far too many.

        The payloads of this frame and of those that follow go to their places in the body, and what is between them
        elsewhere, provided that all frames are as long as this one, except the last one.
        """
        content = self.content
        if content.memory is None:
            if content.missing < MISSING_FOR_MEMORY or content.too_large:
                return None
            if int.from_bytes(content.header[4:12], "big") > _LARGEST_MEMORY:
                return None
        memory = content.own_memory()
        view, between = memory.view, memory.between
        begin, end = memory.end, memory.end + self.missing
        room = [view[begin:end]]
        at = 0
        while end < len(view) and end - begin < _MOST_AT_ONCE and len(room) < 2 * _MOST_FRAMES:
            room.append(between[at : at + FRAME_OVERHEAD])
            at += FRAME_OVERHEAD
            begin_of_next, end = end, min(end + self._size, len(view))
            room.append(view[begin_of_next:end])
        room.append(between[at : at + (FRAME_OVERHEAD if end < len(view) else _AFTER)])
        self._room = room
        return room

    def take(self, received: int) -> bytes:
        """Process `received` bytes that were read into `room`: the rest of this frame, and the frames that follow.

        The last frame becomes this one. Returns the bytes from the end of a frame on which no other follows as
        `room` expected it, or is cut within its header.
        """
        room, rest = self._room, b""
        received -= self._fill(min(self.missing, received))
        for at in range(1, len(room), 2):
            if not received:
                break
            size = min(self._size, self.content.missing)
            expected = _BETWEEN.pack(FRAME_END, FRAME_BODY, self.channel, size)
            if received < FRAME_OVERHEAD or room[at] != expected:  # the last piece is longer, and never equal
                rest = b"".join(room[at:])[:received]
                break
            self.missing = self._size = size
            received -= FRAME_OVERHEAD
            received -= self._fill(min(size, received))
        room.clear()  # `os.readv`'s caller has this list too
        return rest

    def _fill(self, size: int) -> int:
        """Count `size` bytes of the payload that were read to their place in the body, and return their number."""
        self.missing -= size
        self.content.missing -= size
        self.content.own_memory().end += size
        return size


def no_content(content: Content) -> ProtocolViolation:
    """Return error 505 for another frame in place of the header or body of a content (RabbitMQ's text)."""
    if content.header:
        text = "UNEXPECTED_FRAME - expected content body, got non content body frame instead"
    else:
        text = "UNEXPECTED_FRAME - expected content header for class 60, got non content header frame instead"
    return ProtocolViolation(Reply.UNEXPECTED_FRAME, text, 60, content.signature & 0xFFFF)
