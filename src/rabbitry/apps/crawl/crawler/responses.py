"""The head of an HTTP response: status and headers, within bounds, and what they mean for a crawler."""

from __future__ import annotations

import time
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

from rabbitry.apps.crawl.problems import Problem

MOST_HEADERS: Final = 200
LARGEST_HEAD: Final = 65_536
"""Bytes of all headers of a response together, those of interim answers and trailers included."""
LONGEST_WAIT: Final = 86_400.0
"""Seconds; a server that asks for more is asked again after a day."""
LONGEST_KEPT: Final = 2_000
"""Characters of a header that goes on to the processors."""
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
"""Headers that matter to processors and keepers."""
_XML: Final = "application/xml"
_NO_PAGES: Final = frozenset({"text/css", "text/javascript", "text/event-stream"})


class Head:
    """Status and headers of a response, taken line by line as libcurl passes them on."""

    def __init__(self) -> None:
        self.status: int = 0
        self.is_complete: bool = False
        """Whether the headers of the final response have all come; what follows are trailers, which nobody reads."""
        self._headers: dict[str, str] = {}
        self._count = 0
        self.size: int = 0

    def take(self, line: bytes) -> None:
        """Take a line. Raises Problem if there are too many, or too long ones."""
        self._count += 1
        self.size += len(line)
        if self.size > LARGEST_HEAD or self._count > MOST_HEADERS:
            raise Problem("header-too-large", f"{self._count} lines, {self.size} bytes of headers and more")
        if self.is_complete:
            return
        if line[:5] == b"HTTP/":
            self._headers.clear()  # those of an interim response (1xx)
            self.status = _status(line)
        elif line in (b"\r\n", b"\n"):
            self.is_complete = self.status >= 200
        else:
            name, colon, value = line.partition(b":")
            if colon:
                key, text = name.strip().lower().decode("latin-1"), _text(value.strip())
                before = self._headers.get(key)
                # Several lines of one header are a list (RFC 9110, section 5.2). Those of X-Robots-Tag stay apart:
                # what begins with an agent's name ("otherbot: noindex") goes to the end of its line.
                join = "\n" if key == "x-robots-tag" else ", "
                self._headers[key] = text if before is None else f"{before}{join}{text}"

    def get(self, name: str) -> str | None:
        """Return a header by its name in lower case."""
        return self._headers.get(name)

    @property
    def kept(self) -> dict[str, str]:
        """The headers that go on to the processors."""
        return {name: text[:LONGEST_KEPT] for name, text in self._headers.items() if name in KEPT}

    @property
    def media_type(self) -> str:
        """The media type without its parameters, in lower case; empty if there is none."""
        return (self._headers.get("content-type") or "").partition(";")[0].strip().lower()

    @property
    def length(self) -> int | None:
        """Bytes that the body is said to have."""
        text = self._headers.get("content-length") or ""
        return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None

    @property
    def retry_after(self) -> float | None:
        """Seconds that the server asks to be left alone, from 0 to a day; None if it does not say (RFC 9110)."""
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
    """Return the seconds of a Retry-After, which is a number of seconds or a date; None for anything else.

    A date that is past is 0; more than a day is a day. now: seconds since 1970.
    """
    text = text.strip()
    number = text.partition(",")[0].rstrip()  # of several headers the first
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
        media_type: Of its Content-Type; empty if the server did not say.
        head: The first bytes, which decide then: there is no zero byte in text of any encoding but UTF-16 and -32.
    """
    if media_type:
        if media_type in _NO_PAGES:
            return False
        return media_type.startswith("text/") or media_type == _XML or media_type.endswith("+xml")
    return b"\x00" not in head or head.startswith((b"\xff\xfe", b"\xfe\xff"))
