"""Sitemaps as documents with only links: XML, text and feeds, also compressed with gzip."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterable, Iterator
from typing import Final

from rabbitry.apps.crawl.messages import Link
from rabbitry.apps.crawl.problems import Problem
from rabbitry.apps.crawl.processor.addresses import LONGEST, MOST_LONG, Base, shortened
from rabbitry.apps.crawl.processor.encodings import decoder_of, encoding_of
from rabbitry.apps.crawl.processor.pages import LONGEST_BODY
from rabbitry.apps.crawl.processor.xml import DocumentKind, Entry, XmlReader, kind_of

AT_ONCE: Final = 1_000
"""Links in one document."""
_GZIP: Final = b"\x1f\x8b"
_CHUNK: Final = 64 * 1024
_BLANKS: Final = "\ufeff \t"
_MOST: Final = 1_000_000
"""The most links read of a sitemap, which may have 50,000 (sitemaps.org)."""
_MOST_LETTERS: Final = 200_000
"""Characters of a group's links; a keeper holds 128 documents at once."""
_LONGEST_LINE: Final = 4 * LONGEST


class Sitemap:
    """A sitemap, or a sitemap of sitemaps; its links come in groups of AT_ONCE, fewer if they are long.

    is_index: whether its links are sitemaps. cut: links left out so far because they are too long, after MOST_LONG.
    """

    def __init__(self, body: bytes, url: str, content_type: str) -> None:
        self.cut: int = 0
        self.is_index: bool = False
        self._count = 0
        self._long = 0
        self._parts = _parts(body)
        self._base = Base(url)
        self._content_type = content_type

    def links(self) -> Iterator[list[Link]]:
        """Return the links, unique within a group. Raises Problem if it breaks off, after the links before."""
        found: dict[str, Link] = {}
        letters = 0
        problem = None
        try:
            for entry in self._entries():
                url = self._base.resolve(entry.url) if entry.url else None
                if url is None:
                    continue
                if len(url) > LONGEST:
                    self._long += 1
                    if self._long > MOST_LONG:
                        self.cut += 1
                        continue
                    url = shortened(url)
                found[url] = Link(url, entry.modified)
                letters += len(url)
                if len(found) >= AT_ONCE or letters >= _MOST_LETTERS:
                    yield list(found.values())
                    self._count += len(found)
                    found, letters = {}, 0
                    if self._count >= _MOST:
                        raise Problem("too-large", f"it has more than {_MOST} links")
        except Problem as error:
            problem = error
        if found:
            yield list(found.values())
        if problem is not None:
            raise problem

    def _entries(self) -> Iterator[Entry]:
        first = next(self._parts, b"")
        encoding, start = encoding_of(first, self._content_type)
        kind: DocumentKind | None = kind_of(decoder_of(encoding).decode(first[start:]))
        self.is_index = kind == "index"
        if kind in ("html", "other"):
            raise Problem("unreadable", "not a sitemap: it is HTML" if kind == "html" else "not a sitemap: other XML")
        parts = _joined(first, self._parts)
        yield from XmlReader(self._content_type).entries(parts) if kind else _lines(parts, encoding, start)


def _joined(first: bytes, parts: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from parts


def _lines(parts: Iterable[bytes], encoding: str, start: int) -> Iterator[Entry]:
    """Return the lines of a text sitemap."""
    decoder = decoder_of(encoding)
    rest = ""
    for part in parts:
        lines = (rest + decoder.decode(part[start:])).replace("\r", "\n").split("\n")
        start = 0
        # Lines longer than an address are cut, but stay too long, so that memory is bounded.
        rest = lines.pop()[:_LONGEST_LINE]
        yield from _entries(lines)
    yield from _entries([rest])


def _entries(lines: Iterable[str]) -> Iterator[Entry]:
    """Return the lines that are complete addresses (sitemaps.org, "Text file"): otherwise it is not a text sitemap."""
    for line in lines:
        url = line.strip(_BLANKS)
        if url[:8].lower().startswith(("http://", "https://")):
            yield Entry(url)


def _parts(body: bytes) -> Iterator[bytes]:
    """Return a body in parts, decompressed if it is gzip, or gzip of gzip.

    Raises Problem: `bomb`, `broken-encoding`.
    """
    if not body.startswith(_GZIP):
        yield from (body[start : start + _CHUNK] for start in range(0, len(body), _CHUNK))
        return
    size = 0
    with gzip.GzipFile(fileobj=io.BytesIO(body)) as packed:
        try:
            unpacked = gzip.GzipFile(fileobj=packed, mode="rb") if packed.peek(2).startswith(_GZIP) else packed
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise Problem("broken-encoding", f"its gzip is broken: {error}") from error
        try:
            while part := unpacked.read(_CHUNK):
                size += len(part)
                if size > LONGEST_BODY:
                    raise Problem("bomb", f"its {len(body)} bytes decompress to more than {LONGEST_BODY}")
                yield part
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise Problem("broken-encoding", f"its gzip is broken: {error}") from error
