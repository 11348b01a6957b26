"""Sitemaps and feeds, parsed as a stream, entry by entry.

Declared entities are refused ("billion laughs"), external ones never loaded. Bytes that XML does not allow, such as
control characters, are removed, because one of them would make the whole document invalid. A `&` that begins none of
XML's own references is text: many sites write their addresses with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias
from xml.parsers import expat

from rabbitry.apps.crawl.problems import Problem
from rabbitry.apps.crawl.processor.encodings import decoder_of, encoding_of
from rabbitry.apps.crawl.processor.times import seconds_of

DocumentKind: TypeAlias = Literal["sitemap", "index", "feed", "html", "other"]

_CHUNK: Final = 64 * 1024
_HEAD: Final = 8 * 1024
_LONGEST_FIELD: Final = 20_000
_DEEPEST: Final = 500
_LONGEST_TOKEN: Final = 1_000_000
_ROOT: Final = re.compile(r"<([A-Za-z_][^\s/<>]*)")
_PROLOGUE: Final = re.compile(
    r"<\?[^>]*+>|<!--(?:[^-]|-(?!->))*+-->|<!DOCTYPE[^\[>]*+(?:\[[^\]]*+\])?[^>]*+>", re.IGNORECASE
)
_KINDS: Final[dict[str, DocumentKind]] = {
    "urlset": "sitemap",
    "sitemapindex": "index",
    "rss": "feed",
    "rdf": "feed",
    "feed": "feed",
    "html": "html",
}
_NO_CHARACTERS: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
_MARKS: Final = re.compile(
    r"[<&\]](?:(?<=<)!\[CDATA\[|(?<=\])\]>|(?<=&)(?!(?:amp|lt|gt|quot|apos|#[0-9]{1,7}|#x[0-9A-Fa-f]{1,6});))"
)
_LONGEST_MARK: Final = len("&#1114111;")
_MARK_BEGINS: Final = re.compile(r"[<&\]]")
_ENTRIES: Final = frozenset({"url", "sitemap", "item", "entry"})
_LINKS: Final = frozenset({"loc", "link"})
_TIMES: Final = frozenset({"lastmod", "pubdate", "updated", "published", "dc:date"})
_TEXTS: Final = frozenset({"description", "summary", "content", "content:encoded"})
_FIELDS: Final = _LINKS | _TIMES | _TEXTS | {"title"}


@dataclass(slots=True)
class Entry:
    """An entry of a sitemap or feed. url: as written. text: HTML, as feeds have it."""

    url: str = ""
    modified: float | None = None
    title: str = ""
    text: str = ""


def kind_of(head: str) -> DocumentKind | None:
    """Return an XML document's kind by its first element; None if it does not begin like XML."""
    head = head.lstrip("\ufeff \t\r\n")
    if not head.startswith("<"):
        return None
    root = _ROOT.search(_PROLOGUE.sub("", head[:_HEAD]))
    return "other" if root is None else _KINDS.get(root[1].rpartition(":")[2].lower(), "other")


def beginning(body: bytes, content_type: str) -> str:
    """Return the first characters of a document."""
    encoding, start = encoding_of(body[:_CHUNK], content_type)
    return decoder_of(encoding).decode(body[start : start + _HEAD])


def _texts(parts: Iterable[bytes], content_type: str) -> Iterator[str]:
    """Decode the parts of a document, without characters that must not precede its declaration."""
    decoder = None
    is_begun = False
    for part in parts:
        start = 0
        if decoder is None:
            encoding, start = encoding_of(part, content_type)
            decoder = decoder_of(encoding)
        text = decoder.decode(part[start:])
        text = text if is_begun else text.lstrip("\ufeff \t\r\n")
        is_begun = is_begun or bool(text)
        yield text


class _Ampersands:
    """Escapes each `&` of a document that begins no reference, except in CDATA sections, which have none."""

    def __init__(self) -> None:
        self._is_cdata = False
        self._rest = ""

    def escaped(self, text: str, *, is_last: bool) -> str:
        """Return the next part of the document. Its end is kept back if a mark may continue in the next part."""
        text = self._rest + text
        begun = None if is_last else _MARK_BEGINS.search(text, max(0, len(text) - _LONGEST_MARK))
        end = len(text) if begun is None else begun.start()
        if text[end - 1 : end + 1] == "]]":
            end -= 1
        self._rest = text[end:]
        return _MARKS.sub(self._escaped, text[:end])

    def _escaped(self, found: re.Match[str]) -> str:
        mark = found[0]
        if mark != "&":
            self._is_cdata = mark != "]]>"
        elif not self._is_cdata:
            return "&amp;"
        return mark


class XmlReader:
    """Reads the entries of a sitemap or feed from the parts of its body. title, text: the feed's own."""

    def __init__(self, content_type: str = "") -> None:
        self.title: str = ""
        self.text: str = ""
        self._content_type = content_type
        self._found: list[Entry] = []
        self._fed = 0
        self._prefix = ""
        self._depth = 0
        self._entry: Entry | None = None
        self._entry_depth = 0
        self._field = ""
        self._field_depth = 0
        self._parts: list[str] = []
        self._size = 0
        self._ampersands = _Ampersands()
        self._parser = expat.ParserCreate("utf-8")
        self._parser.buffer_text = True
        self._parser.StartElementHandler = self._on_start
        self._parser.EndElementHandler = self._on_end
        self._parser.CharacterDataHandler = self._on_text
        self._parser.EntityDeclHandler = self._on_entity

    def entries(self, parts: Iterable[bytes]) -> Iterator[Entry]:
        """Return the entries as they are parsed.

        Raises Problem (`unreadable`) if the XML is broken, after the entries before the error.
        """
        for text in _texts(parts, self._content_type):
            yield from self._parse(text)
        yield from self._parse("", is_last=True)

    def _parse(self, text: str, *, is_last: bool = False) -> Iterator[Entry]:
        problem = None
        try:
            part = self._ampersands.escaped(_NO_CHARACTERS.sub("", text), is_last=is_last).encode()
            self._parser.Parse(part, is_last)
            # Before version 2.6, Expat parses an unfinished token again with each part.
            self._fed += len(part)
            if self._fed - self._parser.CurrentByteIndex > _LONGEST_TOKEN:
                raise Problem("unreadable", f"its XML has a tag or comment longer than {_LONGEST_TOKEN} bytes")
        except Problem as error:
            problem = error
        except expat.ExpatError as error:
            problem = Problem("unreadable", f"its XML is broken: {error}")
            problem.__cause__ = error
        found, self._found = self._found, []
        yield from found
        if problem is not None:
            raise problem

    def _on_entity(self, name: str, *_: object) -> None:
        raise Problem("unreadable", f"its XML declares the entity {name[:40]!r}; entities are not expanded")

    def _on_start(self, name: str, attributes: dict[str, str]) -> None:
        name = name.lower()
        self._depth += 1
        if self._depth > _DEEPEST:
            raise Problem("unreadable", f"its XML is nested deeper than {_DEEPEST}")
        if self._depth == 1:
            self._prefix = name[: name.find(":") + 1]
        # Elements of a sitemap may have the prefix of its root; those of RDF have none.
        name = name.removeprefix(self._prefix) if self._prefix != "rdf:" else name
        if self._entry is None:
            if name in _ENTRIES:
                self._entry, self._entry_depth = Entry(), self._depth
            elif name in ("title", "description", "subtitle") and self._depth <= 3:
                self._begin(name)
        elif self._depth == self._entry_depth + 1:
            if name == "link" and attributes.get("rel", "alternate") == "alternate" and "href" in attributes:
                self._entry.url = self._entry.url or attributes["href"]
            elif name == "xhtml:link" and attributes.get("rel") == "alternate" and "href" in attributes:
                self._found.append(Entry(attributes["href"]))
            elif name in _FIELDS:
                self._begin(name)

    def _begin(self, name: str) -> None:
        self._field, self._field_depth = name, self._depth
        self._parts, self._size = [], 0

    def _on_text(self, text: str) -> None:
        if self._field and self._size < _LONGEST_FIELD:
            self._parts.append(text[: _LONGEST_FIELD - self._size])
            self._size += len(text)

    def _on_end(self, name: str) -> None:
        if self._field and self._depth == self._field_depth:
            self._take(self._field, "".join(self._parts).strip())
            self._field = ""
        if self._entry is not None and self._depth == self._entry_depth:
            self._found.append(self._entry)
            self._entry = None
        self._depth -= 1

    def _take(self, name: str, text: str) -> None:
        entry = self._entry
        if entry is None:
            if name == "title":
                self.title = self.title or text
            else:
                self.text = self.text or text
        elif name in _LINKS:
            entry.url = entry.url or text
        elif name in _TIMES:
            modified = seconds_of(text)
            entry.modified = modified if entry.modified is None or name == "updated" else entry.modified
        elif name == "title":
            entry.title = text
        else:
            entry.text = max(entry.text, text, key=len)
