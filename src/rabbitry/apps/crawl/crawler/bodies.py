"""Bodies of answers: collected as they come, within bounds, decoded, and compressed for the way to the processors."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from typing import Final, NamedTuple

import zstandard

from rabbitry.apps.crawl.crawler.decoding import decoded
from rabbitry.apps.crawl.crawler.problems import Problem

INLINE: Final = 1 << 16
"""Bytes of a collected body that are decoded and compressed in the event loop, under a millisecond."""
STREAMED: Final = 1 << 18
"""Bytes from which on a body without a content encoding is compressed while it comes."""
LARGEST_PACKED: Final = 16_000_000
"""Bytes of a compressed body; brokers bound messages, and text compresses better than that."""
HEAD: Final = 512
_LEVEL: Final = 1


class Body(NamedTuple):
    """A body that is complete. data: compressed with zstd, or as it is. size: bytes before. head: the first ones."""

    data: bytes
    size: int
    head: bytes


class _Compressors(threading.local):
    """A compressor for each thread: it is no more thread-safe than its context, which is costly to make."""

    def __init__(self) -> None:
        self.one = zstandard.ZstdCompressor(level=_LEVEL)


_compressors: Final = _Compressors()


class Collector:
    """What has come of a body.

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
        self._chunks: list[bytes] = []
        self._packing: zstandard.ZstdCompressionObj | None = None
        self._head = b""
        self.came = 0
        """Bytes that came, before they are decoded."""
        self.held = 0
        """Bytes that it takes in memory."""
        self.is_cut = False
        """Whether it has all that it may have, so that nothing more needs to come."""

    def take(self, chunk: bytes) -> None:
        """Take what came next. Raises Problem where it is too much."""
        self.came += len(chunk)
        if self.came > self._largest:
            if not self._may_be_cut:
                raise Problem("too-large", f"more than {self._largest} bytes")
            self.is_cut = True
        if self._packing is None and self.came > STREAMED and self._is_packed and not self._encodings:
            self._pack()
        if self._packing is not None:
            chunk = self._packing.compress(chunk)
        if chunk:
            self._chunks.append(chunk)
            self.held += len(chunk)
        if self._packing is not None:
            _check_packed(self.held)

    async def finish(self, turns: asyncio.Semaphore) -> Body:
        """Return the whole. Raises Problem where it can't be decoded.

        turns: for large bodies, which take their size in memory once more while they are decoded in a thread.
        """
        if self._packing is not None:
            self._chunks.append(self._packing.flush())
            return Body(b"".join(self._chunks), self.came, self._head)
        if self.came <= INLINE:
            return self._whole()
        async with turns:
            return await asyncio.to_thread(self._whole)

    def _pack(self) -> None:
        """Compress from now on as it comes, beginning with what is here."""
        before = b"".join(self._chunks)
        self._head = before[:HEAD]
        self._packing = zstandard.ZstdCompressor(level=_LEVEL).compressobj()
        self._chunks = [self._packing.compress(before)]
        self.held = len(self._chunks[0])

    def _whole(self) -> Body:
        """Decode and compress at once. Runs in any thread, when nothing more comes."""
        if not self._encodings:
            whole = b"".join(self._chunks)[: self._largest]
            return Body(self._packed(whole), len(whole), whole[:HEAD])
        # One that may be cut ends by itself at its largest size.
        pieces = decoded(iter(self._chunks), self._encodings, sys.maxsize if self._may_be_cut else self._largest)
        if self._may_be_cut:
            pieces = self._cut(pieces)
        elif self.came > INLINE:
            return self._packed_pieces(pieces)
        whole = b"".join(pieces)
        return Body(self._packed(whole), len(whole), whole[:HEAD])

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

    def _packed(self, whole: bytes) -> bytes:
        return _compressors.one.compress(whole) if self._is_packed else whole

    def _packed_pieces(self, pieces: Iterator[bytes]) -> Body:
        """Compress a large body piece by piece, so that it is never in memory as a whole."""
        if not self._is_packed:
            whole = b"".join(pieces)
            return Body(whole, len(whole), whole[:HEAD])
        packing = zstandard.ZstdCompressor(level=_LEVEL).compressobj()
        packed: list[bytes] = []
        size = held = 0
        head = b""
        for piece in pieces:
            head += piece[: HEAD - len(head)]
            size += len(piece)
            packed.append(packing.compress(piece))
            held += len(packed[-1])
            _check_packed(held)
        packed.append(packing.flush())
        return Body(b"".join(packed), size, head)


def _check_packed(held: int) -> None:
    if held > LARGEST_PACKED:
        raise Problem("too-large", f"more than {LARGEST_PACKED} bytes, compressed")
