"""Bodies of answers: collected as they arrive, within bounds, decoded, and compressed for the processors."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Iterator
from typing import Final, NamedTuple

import zstandard

from rabbitry.apps.crawl.crawler.decoding import decoded
from rabbitry.apps.crawl.problems import Problem

INLINE: Final = 1 << 16
"""Bytes of a collected body up to which it is decoded and compressed in the event loop, in under a millisecond."""
STREAMED: Final = 1 << 20
"""Bytes above which a body without a content encoding is compressed while it arrives."""
CONTEXT: Final = 800_000
"""Memory of an active compressor, in bytes."""
LARGEST_PACKED: Final = 16_000_000
"""The most bytes of a compressed body; brokers bound messages, and text compresses to less."""
HEAD: Final = 512
PIECE: Final = 1 << 14
"""Bytes collected into one piece: many small objects would take many times the memory."""
MOST_TINY: Final = 20_000
TINY: Final = 16
"""Bytes of a tiny chunk. Many of these keep the event loop busy, so a body may have MOST_TINY; no server needs more."""
_LEVEL: Final = 1


class Body(NamedTuple):
    """A complete body. data: compressed with zstd, or as received. size: bytes uncompressed. head: first bytes."""

    data: bytes
    size: int
    head: bytes


_one: Final = zstandard.ZstdCompressor(level=_LEVEL)
"""The event loop's compressor: creating one costs more than compressing a page."""


class BodyReader:
    """Collects a body as it arrives.

    Args:
        encodings: The encodings to undo at the end, see `encodings_of`.
        largest: The most bytes, both as received and decoded.
        is_packed: Whether to compress it.
        may_be_cut: Whether a longer body is cut to `largest` without an error.
    """

    def __init__(self, encodings: list[str], largest: int, *, is_packed: bool = True, may_be_cut: bool = False) -> None:
        self._encodings = encodings
        self._largest = largest
        self._is_packed = is_packed
        self._may_be_cut = may_be_cut
        self._chunks: deque[bytes] = deque()
        self._begun = bytearray()
        """Chunks after the last complete piece."""
        self._count = 0
        self._packing: zstandard.ZstdCompressionObj | None = None
        self._head = b""
        self.came: int = 0
        """Bytes received, before decoding."""
        self.held: int = 0
        """Bytes in memory."""
        self.is_cut: bool = False
        """Whether the limit is reached, so that no more is needed."""

    def take(self, chunk: bytes) -> None:
        """Add the next chunk. Raises Problem if it is too much."""
        self.came += len(chunk)
        self._count += 1
        if self._count > MOST_TINY + self.came // TINY:
            raise Problem("bad-answer", f"{self._count} chunks of {self.came / self._count:.0f} bytes each")
        if self.came > self._largest:
            if not self._may_be_cut:
                raise Problem("too-large", f"more than {self._largest} bytes")
            self.is_cut = True
        if self._packing is None and self.came > STREAMED and self._is_packed and not self._encodings:
            self._pack()
        if self._packing is not None:
            chunk = self._packing.compress(chunk)
        self.held += len(chunk)
        if self._begun or len(chunk) < PIECE:
            self._begun += chunk
            if len(self._begun) >= PIECE:
                self._end_piece()
        else:
            self._chunks.append(chunk)
        if self._packing is not None:
            _check_packed(self.held - CONTEXT)

    async def finish(self, turns: asyncio.Semaphore) -> Body:
        """Return the complete body, once. Raises Problem if it can't be decoded.

        turns: limits the threads that decode and compress large bodies.
        """
        self._end_piece()
        if self._packing is not None:
            self._chunks.append(self._packing.flush())
            return Body(b"".join(self._chunks), self.came, self._head)
        if self.came <= INLINE:
            return self._whole(_one)
        async with turns:
            return await asyncio.to_thread(self._large)

    def _end_piece(self) -> None:
        if self._begun:
            self._chunks.append(bytes(self._begun))
            self._begun.clear()

    def _pack(self) -> None:
        """Start to compress while the body arrives, beginning with the chunks received so far."""
        self._end_piece()
        self._packing = zstandard.ZstdCompressor(level=_LEVEL).compressobj()
        packed = deque[bytes]()
        while self._chunks:
            chunk = self._chunks.popleft()
            self._head += chunk[: HEAD - len(self._head)]
            packed.append(self._packing.compress(chunk))
        self._chunks = packed
        self.held = sum(map(len, packed)) + CONTEXT

    def _pieces(self) -> Iterator[bytes]:
        """Return the decoded pieces, and release the data that they are decoded from."""
        chunks = _taken(self._chunks)
        if self._encodings:
            # A body that may be cut ends at its largest size.
            chunks = decoded(chunks, self._encodings, sys.maxsize if self._may_be_cut else self._largest)
        return self._cut(chunks) if self._may_be_cut else chunks

    def _whole(self, compressor: zstandard.ZstdCompressor) -> Body:
        """Decode and compress a small body."""
        whole = b"".join(self._pieces())
        return Body(compressor.compress(whole) if self._is_packed else whole, len(whole), whole[:HEAD])

    def _large(self) -> Body:
        """Decode and compress a large body piece by piece, so that it is never in memory as a whole."""
        compressor = zstandard.ZstdCompressor(level=_LEVEL)  # two threads must not share one
        if not self._is_packed:
            return self._whole(compressor)
        # The stored size lets a reader allocate its memory at once.
        packing = compressor.compressobj() if self._encodings else compressor.compressobj(size=self.came)
        packed: list[bytes] = []
        size = held = 0
        head = b""
        for piece in self._pieces():
            head += piece[: HEAD - len(head)]
            size += len(piece)
            packed.append(packing.compress(piece))
            held += len(packed[-1])
            _check_packed(held)
        packed.append(packing.flush())
        return Body(b"".join(packed), size, head)

    def _cut(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """Return the pieces up to the largest size; a body cut in transit may end in the middle of a piece."""
        left = self._largest
        try:
            for piece in pieces:
                yield piece[:left]
                left -= len(piece)
                if left <= 0:
                    return
        except Problem as problem:
            if problem.outcome == "broken-encoding" and not self.is_cut:
                raise


def _taken(chunks: deque[bytes]) -> Iterator[bytes]:
    """Return the chunks, and remove each before it is used."""
    while chunks:
        yield chunks.popleft()


def _check_packed(held: int) -> None:
    if held > LARGEST_PACKED:
        raise Problem("too-large", f"more than {LARGEST_PACKED} bytes, compressed")
