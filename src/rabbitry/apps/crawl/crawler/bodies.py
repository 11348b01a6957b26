"""Bodies of answers: collected as they come, within bounds, decoded, and compressed for the way to the processors."""

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
"""Bytes of a collected body that are decoded and compressed in the event loop, under a millisecond."""
STREAMED: Final = 1 << 20
"""Bytes from which on a body without a content encoding is compressed while it comes."""
CONTEXT: Final = 800_000
"""Bytes of memory of a compressor that has begun."""
LARGEST_PACKED: Final = 16_000_000
"""Bytes of a compressed body; brokers bound messages, and text compresses better than that."""
HEAD: Final = 512
PIECE: Final = 1 << 14
"""Bytes that are collected before they become a piece: objects of few bytes each take many times the memory."""
MOST_TINY: Final = 20_000
TINY: Final = 16
"""Bytes. Smaller chunks keep the event loop busy, so that a body may have MOST_TINY of them; no server needs more."""
_LEVEL: Final = 1


class Body(NamedTuple):
    """A body that is complete. data: compressed with zstd, or as it is. size: bytes before. head: the first ones."""

    data: bytes
    size: int
    head: bytes


_one: Final = zstandard.ZstdCompressor(level=_LEVEL)
"""The event loop's: making one costs more than compressing a page."""


class BodyReader:
    """The part of a body that has come.

    Args:
        encodings: To be undone at the end, see `encodings_of`.
        largest: Bytes that it may have, both as it comes and decoded.
        is_packed: Whether it is to be compressed.
        may_be_cut: Whether a longer one is cut to `largest`, which is no problem then.
    """

    def __init__(self, encodings: list[str], largest: int, *, is_packed: bool = True, may_be_cut: bool = False) -> None:
        self._encodings = encodings
        self._largest = largest
        self._is_packed = is_packed
        self._may_be_cut = may_be_cut
        self._chunks: deque[bytes] = deque()
        self._begun = bytearray()
        """What has come after these and makes no piece yet."""
        self._count = 0
        self._packing: zstandard.ZstdCompressionObj | None = None
        self._head = b""
        self.came: int = 0
        """Bytes that came, before they are decoded."""
        self.held: int = 0
        """Bytes that it takes in memory."""
        self.is_cut: bool = False
        """Whether it has all that it may have, so that nothing more needs to come."""

    def take(self, chunk: bytes) -> None:
        """Take what came next. Raises Problem if it is too much."""
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
        """Return the whole, once. Raises Problem if it can't be decoded.

        turns: for large bodies, which are decoded and compressed in a thread.
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
        """Begin to compress while the body comes, with the chunks that are here already."""
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
        """Return the decoded pieces, and forget what they were decoded from."""
        chunks = _taken(self._chunks)
        if self._encodings:
            # One that may be cut ends by itself at its largest size.
            chunks = decoded(chunks, self._encodings, sys.maxsize if self._may_be_cut else self._largest)
        return self._cut(chunks) if self._may_be_cut else chunks

    def _whole(self, compressor: zstandard.ZstdCompressor) -> Body:
        """Decode and compress a small body."""
        whole = b"".join(self._pieces())
        return Body(compressor.compress(whole) if self._is_packed else whole, len(whole), whole[:HEAD])

    def _large(self) -> Body:
        """Decode and compress a large body piece by piece, so that it is never in memory as a whole."""
        compressor = zstandard.ZstdCompressor(level=_LEVEL)  # no compressor may be used by two threads
        if not self._is_packed:
            return self._whole(compressor)
        # With its size, a reader knows what to make room for.
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
        """Return the pieces up to the largest size; a body that was cut on its way ends in the middle, too."""
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
    """Return chunks, and take each out before it is used."""
    while chunks:
        yield chunks.popleft()


def _check_packed(held: int) -> None:
    if held > LARGEST_PACKED:
        raise Problem("too-large", f"more than {LARGEST_PACKED} bytes, compressed")
