"""Addresses of links: absolute, normalised as the WHATWG URL standard has it, without fragment."""

from __future__ import annotations

import codecs
import re
from typing import Final
from urllib.parse import quote

import webencodings
from ada_url import join_url, parse_url

LONGEST: Final = 2048
"""Characters of an address."""
_KEPT: Final = 20_000
_LONGEST_KEPT: Final = 200
_NOT_ASCII: Final = re.compile(r"[^\x00-\x7f]+")
_SCHEMES: Final = ("http://", "https://")

_known: dict[tuple[str, str], str | None] = {}
"""Addresses by origin and link: the pages of a site have most links in common. Joining one takes 2 to 3 µs, finding it
here 0.2 µs (`benchmarks/extraction.py`). Emptied when full; 6 MB at most, since long ones are left out.
"""


class Base:
    """The address that a page's links are relative to."""

    def __init__(self, url: str, encoding: str = "utf-8") -> None:
        """url: absolute; "" where it is not known, so that absolute links alone have an address.

        encoding: of the page, in which a link's query is percent-encoded (URL standard, "percent-encode after
        encoding").
        """
        self.url = normalised(url) or ""
        self._origin = parse_url(self.url, ("origin",))["origin"] if self.url else ""
        self.encoding = encoding
        self._query_encoding = None if encoding in ("utf-8", "utf-16le", "utf-16be", "replacement") else encoding

    def join(self, link: str) -> str | None:
        """Return the address of a link; None for one that has none, or another scheme than http and https.

        It may be longer than LONGEST.
        """
        link = link.partition("#")[0].strip()
        if self._query_encoding is not None and "?" in link and not link.isascii():
            link = _encoded_query(link, self._query_encoding)
        if not link.startswith("/") or len(link) > _LONGEST_KEPT:
            return _joined(self.url, link)
        # What begins with a slash does not depend on the page's path.
        key = (self._origin, link)
        try:
            return _known[key]
        except KeyError:
            if len(_known) >= _KEPT:
                _known.clear()
            found = _known[key] = _joined(self.url, link)
            return found


def normalised(url: str) -> str | None:
    """Return an absolute address in the standard's form; None for what is none, or has another scheme."""
    return _joined("", url.partition("#")[0].strip())


def _joined(base: str, link: str) -> str | None:
    try:
        url = join_url(base, link) if base else parse_url(link, ("href",))["href"]
    except ValueError:
        return None
    return url if url.startswith(_SCHEMES) else None


def _encoded_query(link: str, encoding: str) -> str:
    path, _, query = link.partition("?")
    codec: codecs.CodecInfo = webencodings.lookup(encoding).codec_info
    return f"{path}?" + _NOT_ASCII.sub(lambda found: quote(codec.encode(found[0], "xmlcharrefreplace")[0], ""), query)
