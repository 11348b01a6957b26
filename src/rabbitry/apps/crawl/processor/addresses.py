"""Link addresses: absolute, normalised by the WHATWG URL standard, without fragment."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote

import webencodings
from ada_url import join_url, parse_url

LONGEST: Final = 2048
"""The most characters of an address."""
MOST_LONG: Final = 10
"""Longer addresses of a page that are reported to the keeper, so that it can name why they are not fetched."""
_KEPT: Final = 40_000
_LONGEST_KEPT: Final = 200
_NOT_ASCII: Final = re.compile(r"[^\x00-\x7f]+")
_SCHEMES: Final = ("http://", "https://")
_ABSOLUTE: Final = "absolute"
"""Used instead of an origin for absolute links, which have their own."""


class _Known:
    """Caches the addresses of links that don't depend on a page's path: absolute ones, and by origin those with `/`.

    The pages of a site have most links in common. Joining a link takes 2 to 3 µs, finding it here 0.1 µs
    (`benchmarks/extraction.py`). The cache is emptied when it holds `most` links: 16 MB, since long ones are left out.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._origins: dict[str, dict[str, str | None]] = {}
        self._count = 0

    def of(self, origin: str) -> dict[str, str | None]:
        """Return the cached links of an origin for lookups; `keep` adds to it."""
        found = self._origins.get(origin)
        if found is None:
            self._make_room()
            found = self._origins[origin] = {}
        return found

    def keep(self, known: dict[str, str | None], link: str, url: str | None) -> None:
        """Add a link to an origin's cached ones."""
        if len(link) <= _LONGEST_KEPT:
            self._make_room()
            # Share one string if both are equal. If the cache was emptied meanwhile, only this page has it.
            known[link] = link if url == link else url

    def forget(self) -> None:
        """Empty the cache."""
        self._origins.clear()
        self._count = 0

    def _make_room(self) -> None:
        if self._count >= self._most:
            self.forget()
        self._count += 1


known: Final = _Known(_KEPT)


class Base:
    """The address that a page's links are relative to."""

    def __init__(self, url: str, encoding: str = "utf-8") -> None:
        """Set the base. url: absolute; "" if unknown: only absolute links then have an address.

        encoding: the page's, in which a link's query is percent-encoded ("percent-encode after encoding").
        """
        self.url: str
        self.url, origin = _with_origin(url)
        self.encoding = encoding
        self._query_encoding = None if encoding in ("utf-8", "utf-16le", "utf-16be", "replacement") else encoding
        # Queries differ by encoding.
        is_common = self._query_encoding is None
        self._known = known.of(origin) if is_common else {}
        self._absolute = known.of(_ABSOLUTE) if is_common else {}

    def join(self, link: str) -> str | None:
        """Return the address of a link; None if it has none, or another scheme than http and https.

        It may be longer than LONGEST.
        """
        common = self._known if link.startswith("/") else self._absolute if link.startswith(_SCHEMES) else None
        if common is None:
            return self.resolve(link)
        try:
            return common[link]
        except KeyError:
            url = self.resolve(link)
        known.keep(common, link, url)
        return url

    def join_all(self, links: Iterable[str]) -> list[str | None]:
        """Return the addresses of links; see `join`."""
        # If most links are known, a call of `join` for each would take four times as long.
        known_of, absolute_of, join = self._known.get, self._absolute.get, self.join
        return [known_of(link) or absolute_of(link) or join(link) for link in links]

    def resolve(self, link: str) -> str | None:
        """Do the same as `join` without caching: for links that occur once, as in a sitemap."""
        link = link.partition("#")[0].strip()
        if self._query_encoding is not None and "?" in link and not link.isascii():
            link = _encoded_query(link, self._query_encoding)
        return _joined(self.url, link)


def shortened(url: str) -> str:
    """Return the beginning of an address, long enough to show that it is too long."""
    return url[: LONGEST + 1]


def normalised(url: str) -> str | None:
    """Return an absolute address in the standard's form; None if it is invalid or has another scheme."""
    return _joined("", url.partition("#")[0].strip())


def _with_origin(url: str) -> tuple[str, str]:
    """Return an absolute address as in `normalised`, and its origin; two empty strings if it is invalid."""
    try:
        found = parse_url(url.partition("#")[0].strip(), ("href", "origin"))
    except ValueError:
        return "", ""
    return (found["href"], found["origin"]) if found["href"].startswith(_SCHEMES) else ("", "")


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
