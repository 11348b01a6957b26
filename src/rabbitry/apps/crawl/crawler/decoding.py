"""Content encodings, decoded within bounds: gzip, deflate, brotli and zstd.

libcurl could decode them, but its wheel lacks zstd, and it does not tell a decompression bomb from a broken body.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

import brotli
import zstandard

from rabbitry.apps.crawl.problems import Problem

ACCEPTED: Final = "gzip, deflate, br, zstd"
MOST: Final = 2
"""The most nested encodings. Servers use one; two result from a compressed file that is sent compressed."""
_BOMB: Final = 50
"""The ratio of decompression above which a body that is too large is called a bomb."""
_PIECE: Final = 1 << 16
_STEP: Final = 1 << 10
"""Bytes passed to a decoder at once, so that the output of each is known."""
_ZSTD_WINDOW: Final = 1 << 23
"""The largest window in bytes; encoders for the web use no larger one (RFC 9659)."""

Pieces: TypeAlias = Iterator[bytes]


def encodings_of(header: str) -> list[str]:
    """Return the encodings in a Content-Encoding header, in the order in which they were applied.

    Raises Problem for an unknown one, or more than MOST.
    """
    names = [name.strip().lower() for name in header.split(",")]
    found = [name for name in names if name not in ("", "identity")]
    for name in found:
        if name not in _DECODERS:
            raise Problem("broken-encoding", f"unknown content encoding '{name[:40]}'")
    if len(found) > MOST:
        raise Problem("broken-encoding", f"{len(found)} content encodings on top of each other")
    return found


def decoded(body: Pieces, encodings: list[str], largest: int) -> Pieces:
    """Decode encodings, last one first, and return the pieces of the body; each has at most 2 MB.

    Args:
        body: The data received over the network.
        encodings: As `encodings_of` returns them.
        largest: The most bytes of the body, also between two encodings.

    Raises:
        Problem: too-large, bomb or broken-encoding, while the pieces are read.
    """
    for name in reversed(encodings):
        body = _bounded(body, _DECODERS[name], name, largest)
    return body


def _bounded(body: Pieces, decoder: Callable[[], _Decoder], name: str, largest: int) -> Pieces:
    decode = decoder()
    taken = given = 0
    try:
        for step in (chunk[at : at + _STEP] for chunk in body for at in range(0, len(chunk), _STEP)):
            taken += len(step)
            for piece in decode.feed(step):
                given += len(piece)
                if given > largest:
                    is_bomb = given > _BOMB * max(taken, 1)
                    raise Problem(
                        "bomb" if is_bomb else "too-large",
                        f"{taken} bytes of {name} decompress to more than {largest}",
                    )
                yield piece
    except (zlib.error, brotli.error, zstandard.ZstdError) as error:
        raise Problem("broken-encoding", f"broken {name}: {error}") from error
    if taken and not decode.is_complete:
        raise Problem("broken-encoding", f"{name} ends in the middle, after {taken} bytes")


class _Decoder:
    """Decodes one encoding."""

    is_complete = False
    """Whether the encoding's end mark was read."""

    def feed(self, chunk: bytes) -> Pieces:
        """Decode bytes, and return the resulting pieces."""
        raise NotImplementedError


class _Gzip(_Decoder):
    """gzip with one or several members (RFC 1952, section 2.2); data after the last one is ignored, as in browsers."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(31)

    def feed(self, chunk: bytes) -> Pieces:
        while chunk:
            if self._stream.eof:
                if not chunk.startswith(b"\x1f"):
                    return
                self._stream = zlib.decompressobj(31)
                self.is_complete = False
            yield self._stream.decompress(chunk, _PIECE)
            chunk = self._stream.unconsumed_tail or self._stream.unused_data
            if not chunk and not self._stream.eof:
                yield from _rest(self._stream)
                chunk = self._stream.unused_data
            self.is_complete = self._stream.eof


class _Deflate(_Decoder):
    """The zlib format, or the raw one that some servers send under the same name."""

    def __init__(self) -> None:
        self._stream: zlib._Decompress | None = None

    def feed(self, chunk: bytes) -> Pieces:
        if self._stream is None:
            # A zlib header has 8 in its low half byte; in practice raw streams do not begin so.
            is_zlib = chunk[:1] and chunk[0] & 0x0F == 8
            self._stream = zlib.decompressobj(15 if is_zlib else -15)
        while chunk and not self._stream.eof:
            yield self._stream.decompress(chunk, _PIECE)
            chunk = self._stream.unconsumed_tail
        if not self._stream.eof:
            yield from _rest(self._stream)
        self.is_complete = self._stream.eof


def _rest(stream: zlib._Decompress) -> Pieces:
    """Return the output that zlib holds back when its input is used up but its output was bounded."""
    while piece := stream.decompress(b"", _PIECE):
        yield piece


class _Brotli(_Decoder):
    def __init__(self) -> None:
        self._stream = brotli.Decompressor()

    def feed(self, chunk: bytes) -> Pieces:
        if self.is_complete:
            return
        piece = self._stream.process(chunk, output_buffer_limit=_PIECE)
        # It may need another call after it took all input, before it reports that it is finished.
        while piece or not self._stream.can_accept_more_data():
            yield piece
            piece = b"" if self._stream.is_finished() else self._stream.process(b"", output_buffer_limit=_PIECE)
        self.is_complete = self._stream.is_finished()


class _Zstd(_Decoder):
    """zstd with one or several frames.

    The binding can't bound its output. Four bytes decompress to 128 kB at most (RFC 8878, section 3.1.1.2), so it gets
    few at once.
    """

    _STEP: Final = 64

    def __init__(self) -> None:
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
        self._stream = self._decompressor.decompressobj()

    def feed(self, chunk: bytes) -> Pieces:
        for start in range(0, len(chunk), self._STEP):
            step = chunk[start : start + self._STEP]
            while step:
                if self._stream.eof:
                    self._stream = self._decompressor.decompressobj()
                yield self._stream.decompress(step)
                step = self._stream.unused_data if self._stream.eof else b""
        self.is_complete = self._stream.eof


_DECODERS: Final[dict[str, Callable[[], _Decoder]]] = {
    "gzip": _Gzip,
    "x-gzip": _Gzip,
    "deflate": _Deflate,
    "br": _Brotli,
    "zstd": _Zstd,
}
