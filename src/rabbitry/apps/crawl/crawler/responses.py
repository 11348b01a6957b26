"""The head of an HTTP response: status and headers, within bounds, interpreted for a crawler."""

from __future__ import annotations

import time
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

from rabbitry.apps.crawl.problems import Problem

MOST_HEADERS: Final = 200
LARGEST_HEAD: Final = 65_536
"""Bytes of all headers of a response together, including interim answers and trailers."""
LONGEST_WAIT: Final = 86_400.0
"""The longest Retry-After in seconds; a server that asks for more is requested again after a day."""
LONGEST_KEPT: Final = 2_000
"""Characters of a header passed on to the processors."""
KEPT: Final = frozenset(
    {
        "cache-control",
        "content-language",
        "content-location",
        "content-type",
        "etag",
        "expires",
        "last-modified",
        "link",
        "x-robots-tag",
    }
)
"""Headers that processors and keepers use."""
_XML: Final = "application/xml"
_NO_PAGES: Final = frozenset({"text/css", "text/javascript", "text/event-stream"})


class Head:
    """Status and headers of a response, added line by line as libcurl passes them."""

    def __init__(self) -> None:
        self.status: int = 0
        self.is_complete: bool = False
        """Whether the final response's headers are complete; later ones are trailers, which are ignored."""
        self._headers: dict[str, str] = {}
        self._count = 0
        self.size: int = 0

    def take(self, line: bytes) -> None:
        """Add a line. Raises Problem if there are too many, or it is too long."""
        self._count += 1
        self.size += len(line)
        if self.size > LARGEST_HEAD or self._count > MOST_HEADERS:
            raise Problem("header-too-large", f"{self._count} lines, {self.size} bytes of headers and more")
        if self.is_complete:
            return
        if line[:5] == b"HTTP/":
            self._headers.clear()  # they belong to an interim response (1xx)
            self.status = _status(line)
        elif line in (b"\r\n", b"\n"):
            self.is_complete = self.status >= 200
        else:
            name, colon, value = line.partition(b":")
            if colon:
                key, text = name.strip().lower().decode("latin-1"), _text(value.strip())
                before = self._headers.get(key)
                # Several lines of one header form a list (RFC 9110, section 5.2). Those of X-Robots-Tag stay apart: an
                # agent's name at the start of a line ("otherbot: noindex") applies up to its end.
                join = "\n" if key == "x-robots-tag" else ", "
                self._headers[key] = text if before is None else f"{before}{join}{text}"

    def get(self, name: str) -> str | None:
        """Return a header by its name in lower case."""
        return self._headers.get(name)

    @property
    def kept(self) -> dict[str, str]:
        """The headers passed on to the processors."""
        return {name: text[:LONGEST_KEPT] for name, text in self._headers.items() if name in KEPT}

    @property
    def media_type(self) -> str:
        """The media type without its parameters, in lower case; empty if there is none."""
        return (self._headers.get("content-type") or "").partition(";")[0].strip().lower()

    @property
    def length(self) -> int | None:
        """The body's length according to its header."""
        text = self._headers.get("content-length") or ""
        return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None

    @property
    def retry_after(self) -> float | None:
        """Seconds that the server asks to wait, from 0 to a day; None if it does not ask (RFC 9110)."""
        text = self._headers.get("retry-after")
        return None if text is None else seconds_of(text, time.time())


def _status(line: bytes) -> int:
    parts = line.split(None, 2)
    return int(parts[1]) if len(parts) > 1 and parts[1].isdigit() and len(parts[1]) == 3 else 0


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def seconds_of(text: str, now: float) -> float | None:
    """Parse a Retry-After, a number of seconds or a date; None for anything else.

    A past date is 0; more than a day is a day. now: Unix time.
    """
    text = text.strip()
    number = text.partition(",")[0].rstrip()  # the first of several headers
    if number.isascii() and number.isdigit():
        return min(float(number[:12]), LONGEST_WAIT)
    if len(text) > 64:
        return None
    try:
        date = parsedate_to_datetime(text)
        at = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError, TypeError):
        return None
    return min(max(0.0, at - now), LONGEST_WAIT)


def is_text(media_type: str, head: bytes) -> bool:
    """Return whether a body can be a page: HTML, text or XML.

    Args:
        media_type: From its Content-Type; empty if there is none.
        head: The first bytes, which then decide: text has zero bytes only in UTF-16 and UTF-32.
    """
    if media_type:
        if media_type in _NO_PAGES:
            return False
        return media_type.startswith("text/") or media_type == _XML or media_type.endswith("+xml")
    return b"\x00" not in head or head.startswith((b"\xff\xfe", b"\xfe\xff"))
