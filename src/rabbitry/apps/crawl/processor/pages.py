"""Pages received from the broker: of Rabbitry's crawlers, and of any program that speaks contract 5."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache, partial
from typing import Final

import zstandard

from rabbitry.amqp.protocol.tables import FieldValue
from rabbitry.apps.crawl.problems import Problem
from rabbitry.flow import Message

LONGEST_BODY: Final = 64 * 1024 * 1024
"""The most bytes of a body after decompression: sitemaps may have 50 MB."""
_Unpacker: Final = partial(zstandard.ZstdDecompressor, max_window_size=LONGEST_BODY)
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_PLAIN: Final = re.compile(rb"([A-Za-z][\w-]{0,19})\|([^|<>\r\n]{0,100})\|([^|<>\r\n]{0,100})\|")
"""The beginning of a page in the form of contract 5, `crawler|ID|time|HTML`."""


@dataclass(frozen=True, slots=True)
class Page:
    """A page's metadata, without its body.

    headers: the server's kept ones, in lower case. missing: fields that the message lacks.
    """

    url: str = ""
    final_url: str = ""
    status: int = 200
    fetched_at: float = 0.0
    crawler: str = ""
    is_sitemap: bool = False
    batch: str = ""
    content_type: str = ""
    headers: Mapping[str, Sequence[str]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)


def read_page(body: bytes, message: Message) -> tuple[Page, bytes]:
    """Parse a message: the page's metadata, and its body as in the message.

    Headers take precedence; the text form of contract 5 supplies the rest.
    """
    given = message.headers
    is_packed = message.content_encoding is not None or body.startswith(_ZSTD)
    plain = None if is_packed else _PLAIN.match(body)
    if plain is not None:
        body = body[plain.end() :]
    headers = _origin_headers(given.get("x-rabbitry-origin-headers"))
    url = _text(given, "x-rabbitry-url")
    status = given.get("x-rabbitry-status")
    fetched_at = _seconds(_text(given, "x-rabbitry-fetched-at") or (plain[3].decode("latin-1") if plain else ""))
    crawler = _text(given, "x-rabbitry-crawler") or (plain[2].decode(errors="replace") if plain else "")
    content_type = next(iter(headers.get("content-type", ())), "") or ("" if plain else message.content_type or "")
    said = {
        "url": url,
        "status": status,
        "time": fetched_at,
        "crawler": crawler,
        "content-type": content_type,
        "headers": "x-rabbitry-origin-headers" in given,
    }
    page = Page(
        url=url,
        final_url=_text(given, "x-rabbitry-final-url") or url,
        status=status if isinstance(status, int) and 0 <= status < 1000 else 200,
        fetched_at=fetched_at,
        crawler=crawler,
        is_sitemap=_text(given, "x-rabbitry-purpose") == "sitemap",
        batch=_text(given, "x-rabbitry-batch"),
        content_type=content_type,
        headers=headers,
        missing=[name for name, value in said.items() if not value],
    )
    return page, body


def unpack(body: bytes, content_encoding: str | None) -> bytes:
    """Decompress a body. Raises Problem: `bomb`, `broken-encoding`."""
    if content_encoding not in (None, "", "identity", "zstd"):
        raise Problem("broken-encoding", f"the message has content_encoding {content_encoding!r}, not zstd")
    if content_encoding != "zstd" and not body.startswith(_ZSTD):
        return body
    try:
        size = zstandard.frame_content_size(body)
        if size > LONGEST_BODY:
            raise _bomb(body)
        return _unpacker().decompress(body) if size >= 0 else _unpack_unknown(body)
    except zstandard.ZstdError as error:
        raise Problem("broken-encoding", f"its zstd is broken: {error}") from error


@cache
def _unpacker() -> zstandard.ZstdDecompressor:
    """Return this process's decompressor, which handles one page at a time: creating one takes 10 µs."""
    return _Unpacker()


def _unpack_unknown(body: bytes) -> bytes:
    """Decompress a body that does not contain its size."""
    unpacker = _Unpacker().decompressobj()
    parts, size = [], 0
    for start in range(0, len(body), 1024):  # each decompresses to 35 MB at most
        parts.append(unpacker.decompress(body[start : start + 1024]))
        size += len(parts[-1])
        if size > LONGEST_BODY:
            raise _bomb(body)
        if unpacker.eof:
            return b"".join(parts)
    raise Problem("broken-encoding", "its zstd data is incomplete")


def _bomb(body: bytes) -> Problem:
    return Problem("bomb", f"its {len(body)} bytes decompress to more than {LONGEST_BODY}")


def _text(headers: Mapping[str, FieldValue], name: str) -> str:
    texts = _texts(headers.get(name))
    return texts[0] if texts else ""


def _texts(value: FieldValue) -> list[str]:
    """Return the strings of a header: one, or those of an array."""
    match value:
        case str():  # bytes that are not UTF-8 become surrogates, which can't be published
            return [value.encode(errors="replace").decode()]
        case bytes():
            return [value.decode(errors="replace")]
        case Mapping() | None:
            return []
        case Sequence():
            return [text for part in value for text in _texts(part)]
    return [str(value)]


def _origin_headers(value: FieldValue) -> dict[str, list[str]]:
    """Return the server's headers; a repeated header may be an array, or lines."""
    if not isinstance(value, Mapping):
        return {}
    found: dict[str, list[str]] = {}
    for name, given in value.items():
        lines = [line for text in _texts(given) for line in text.splitlines()]
        found.setdefault(str(name).lower(), []).extend(lines)
    return found


def _seconds(text: str) -> float:
    """Return an ISO 8601 time as Unix time; without a zone it is UTC. 0.0 if it is invalid."""
    try:
        moment = datetime.fromisoformat(text.strip())
        at = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return 0.0
    return at if math.isfinite(at) and at > 0 else 0.0
