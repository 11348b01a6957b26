"""Writing an exported index to files: JSON lines, and WARC 1.1 (ISO 28500:2017), each completely or not at all."""

from __future__ import annotations

import contextlib
import io
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime
from http.client import responses
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from rabbitry._words import reason
from rabbitry.apps.crawl.answers import AskExport, Entry, Exported
from rabbitry.exceptions import RabbitryError, UsageError

if TYPE_CHECKING:
    from warcio.warcwriter import WARCWriter

LARGEST_BODY: Final = 64 * 1024 * 1024
"""The most bytes of a page in a WARC file."""
_NOT_KEPT: Final = frozenset({"content-length", "transfer-encoding", "content-encoding", "connection"})
"""Headers about a body's transfer encoding; bodies are stored decoded."""


async def pages(
    ask: Callable[[AskExport], Awaitable[Exported]], *, bodies: bool
) -> AsyncIterator[tuple[list[Entry], int]]:
    """Yield batches of documents of the index, with the total at the start. Raises the errors of `ask`."""
    after: int | None = 0
    total = 0
    while after is not None:
        exported = await ask(AskExport(after, bodies))
        total = total or exported.total
        if exported.after is not None and exported.after <= after:
            raise RabbitryError(f"the keeper's export repeats itself at {after}: update the keeper")
        yield exported.entries, total
        after = exported.after


def as_row(entry: Entry) -> dict[str, Any]:
    """Return a document as a JSON object for other programs."""
    return {
        "url": entry.url,
        "final_url": entry.final_url,
        "title": entry.title,
        "status": entry.status,
        "fetched_at": iso(entry.fetched_at),
        "content_type": entry.content_type,
        "language": entry.language,
        "encoding": entry.encoding,
        "keywords": entry.keywords,
        "links": entry.links,
        "canonical": entry.canonical,
        "fingerprint": f"{entry.fingerprint & 0xFFFFFFFFFFFFFFFF:016x}" if entry.fingerprint else None,
        "crawler": entry.crawler,
        "processor": entry.processor,
        "text": entry.text,
    }


def iso(seconds: float | None) -> str | None:
    """Format a time as ISO 8601, UTC; None if there is none or it is beyond the range of dates."""
    if seconds is None:
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError, OSError):
        return None


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[IO[bytes]]:
    """Open a new file that replaces `path` when the block ends without an error.

    Raises UsageError if its folder can't be written to or it is not a regular file (e.g. a device), RabbitryError if it
    can't be completed.
    """
    path = path.resolve()  # a link's target is replaced, and the link stays
    if path.exists() and not path.is_file():
        raise UsageError(f"{path} is not a regular file and can't be replaced: name another")
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        file = unfinished.open("xb")
    except OSError as error:
        raise UsageError(f"{path} can't be written: {reason(error)}") from error
    try:
        try:
            with file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(path)
        except OSError as error:
            raise RabbitryError(f"{path} can't be written: {reason(error)}") from error
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


# -- WARC ------------------------------------------------------------------------------------------------


class WARCFile:
    """A WARC file with a response record for each page, one gzip member for each record."""

    def __init__(self, file: IO[bytes], name: str, software: str) -> None:
        from warcio.warcwriter import WARCWriter

        self._writer: WARCWriter = WARCWriter(file, gzip=True, warc_version="WARC/1.1")
        self._writer.write_record(
            self._writer.create_warcinfo_record(
                name,
                {
                    "software": software,
                    "format": "WARC File Format 1.1",
                    "conformsTo": "http://iipc.github.io/warc-specifications/specifications/warc-format/warc-1.1/",
                    "description": "pages as their servers sent them, content encodings decoded",
                },
            )
        )

    def add(self, entry: Entry) -> bool:
        """Write a page; return whether its body was stored and readable."""
        body = None if entry.body is None else _decompressed(entry.body)
        if body is None:
            return False
        from warcio.statusandheaders import StatusAndHeaders

        headers = [("Content-Type", _one_line(entry.content_type))] if entry.content_type else []
        for name, value in entry.headers.items():
            if name.lower() in _NOT_KEPT:
                headers.append((f"X-Crawl-{_one_line(name)}", _one_line(value)))
            elif name.lower() != "content-type":
                headers.append((_one_line(name), _one_line(value)))
        headers.append(("Content-Length", str(len(body))))
        phrase = responses.get(entry.status, "")
        record = self._writer.create_warc_record(
            _as_uri(entry.final_url or entry.url),
            "response",
            payload=io.BytesIO(body),
            length=len(body),
            http_headers=StatusAndHeaders(f"{entry.status} {phrase}".rstrip(), headers, protocol="HTTP/1.1"),
            warc_headers_dict={"WARC-Date": _warc_date(entry.fetched_at)},
        )
        self._writer.write_record(record)
        return True


def _decompressed(body: bytes) -> bytes | None:
    import zstandard

    try:
        with zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(io.BytesIO(body)) as reader:
            whole = reader.read(LARGEST_BODY + 1)
    except zstandard.ZstdError:
        return None
    return whole if len(whole) <= LARGEST_BODY else None


def _warc_date(seconds: float) -> str:
    """Format a WARC-Date: W3C's ISO 8601 in UTC, with `Z`."""
    return (iso(seconds) or "1970-01-01T00:00:00.000+00:00").replace("+00:00", "Z")


def _one_line(text: str) -> str:
    return "".join(letter if " " <= letter <= "~" else " " if letter < " " else "?" for letter in text).strip()


def _as_uri(url: str) -> str:
    """Return an address without characters that would end a WARC header."""
    from urllib.parse import quote

    return quote(url, safe="".join(map(chr, range(0x21, 0x7F))))
