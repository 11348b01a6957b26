"""Addresses of links: absolute, normalised as the WHATWG URL standard has it, without fragment."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote

import webencodings
from ada_url import join_url, parse_url

LONGEST: Final = 2048
"""Characters of an address."""
MOST_LONG: Final = 10
"""Longer ones of a page that the keeper is told of, so that it can tell why they are not fetched."""
_KEPT: Final = 40_000
_LONGEST_KEPT: Final = 200
_NOT_ASCII: Final = re.compile(r"[^\x00-\x7f]+")
_SCHEMES: Final = ("http://", "https://")
_ABSOLUTE: Final = "absolute"
"""In place of an origin: absolute links have one of their own."""


class _Known:
    """Addresses of links that don't depend on a page's path: absolute ones, and by origin those with a slash at first.

    The pages of a site have most links in common. Joining one takes 2 to 3 µs, finding it here 0.1 µs
    (`benchmarks/extraction.py`). All are forgotten when there are `most`: 16 MB, since long ones are left out.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._origins: dict[str, dict[str, str | None]] = {}
        self._count = 0

    def of(self, origin: str) -> dict[str, str | None]:
        """Return what is known of an origin, to look up; `keep` adds to it."""
        found = self._origins.get(origin)
        if found is None:
            self._make_room()
            found = self._origins[origin] = {}
        return found

    def keep(self, known: dict[str, str | None], link: str, url: str | None) -> None:
        """Add a link to what is known of its origin."""
        if len(link) <= _LONGEST_KEPT:
            self._make_room()
            # One text for both, if they are the same. It is this page's own if all was forgotten meanwhile.
            known[link] = link if url == link else url

    def forget(self) -> None:
        """Forget all."""
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
        """url: absolute; "" if it is not known, so that absolute links alone have an address.

        encoding: of the page, in which a link's query is percent-encoded (URL standard, "percent-encode after
        encoding").
        """
        self.url, origin = _with_origin(url)
        self.encoding = encoding
        self._query_encoding = None if encoding in ("utf-8", "utf-16le", "utf-16be", "replacement") else encoding
        # Queries differ by encoding.
        is_common = self._query_encoding is None
        self._known = known.of(origin) if is_common else {}
        self._absolute = known.of(_ABSOLUTE) if is_common else {}

    def join(self, link: str) -> str | None:
        """Return the address of a link; None for one that has none, or another scheme than http and https.

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
        # A call of `join` for each takes four times as long if most are known.
        known_of, absolute_of, join = self._known.get, self._absolute.get, self.join
        return [known_of(link) or absolute_of(link) or join(link) for link in links]

    def resolve(self, link: str) -> str | None:
        """Return what `join` does, and keep nothing: for links that come once, as those of a sitemap."""
        link = link.partition("#")[0].strip()
        if self._query_encoding is not None and "?" in link and not link.isascii():
            link = _encoded_query(link, self._query_encoding)
        return _joined(self.url, link)


def shortened(url: str) -> str:
    """Return as much of an address as shows that it is too long."""
    return url[: LONGEST + 1]


def normalised(url: str) -> str | None:
    """Return an absolute address in the standard's form; None for what is none, or has another scheme."""
    return _joined("", url.partition("#")[0].strip())


def _with_origin(url: str) -> tuple[str, str]:
    """Return an absolute address as `normalised` does, and its origin; two empty texts for what is none."""
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
