"""Reading an HTML page: title, main text, links, and robots directives."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.html import HTMLTree
from selectolax.lexbor import LexborHTMLParser, LexborNode

from rabbitry.apps.crawl.processor.addresses import LONGEST, MOST_LONG, Base, shortened
from rabbitry.apps.crawl.processor.directives import AGENT, NO_DIRECTIVES, Directives, of_meta
from rabbitry.apps.crawl.processor.sanitizing import sanitize

MOST_LINKS: Final = 5_000
"""The most links kept of a page."""
MOST_LETTERS: Final = 1_000_000
"""Characters of these in all: relative links multiply a long address, and a keeper holds 128 documents at once."""
LONGEST_TEXT: Final = 500_000
LONGEST_TITLE: Final = 500
_READ: Final = "title,base[href],a[href],area[href],frame[src],iframe[src],link[href],meta[content]"
_FOLLOWED: Final = frozenset({"alternate", "next", "prev"})
"""Relations of `<link>` that lead to pages."""
_NOT_FOLLOWED: Final = frozenset({"stylesheet", "nofollow"})
_PAGES: Final = frozenset({"", "text/html", "application/xhtml+xml", "application/rss+xml", "application/atom+xml"})
"""Types of alternates that are pages or lead to some."""
_REFRESH: Final = re.compile(
    r"""\s*+[\d.]*+(?:\s*+[;,]|\s)\s*+(?:url\s*+=\s*+)?(?:"([^"]*)|'([^']*)|([^"'\s].*))""", re.IGNORECASE | re.DOTALL
)
# These are empty in XHTML, while an HTML parser takes the text after them for their content.
_EMPTY: Final = re.compile(r"<(script|style|title|textarea|iframe|noscript)\b([^<>]*)/>", re.IGNORECASE)


@dataclass(slots=True)
class Found:
    """The content of a page. links: unique, in page order; cut: how many more there were."""

    title: str = ""
    text: str = ""
    language: str = ""
    links: list[str] = field(default_factory=list)
    cut: int = 0
    canonical: str | None = None
    directives: Directives = NO_DIRECTIVES


def unique(urls: Iterable[str | None]) -> tuple[list[str], int]:
    """Return the addresses of a page's links, unique and in order, and how many more there were.

    urls: None for a link without an address. At most MOST_LINKS are kept, of MOST_LETTERS in all, and MOST_LONG of them
    longer than the limit: these are shortened, but stay too long, so that the keeper can name them.
    """
    found = [url for url in dict.fromkeys(urls) if url is not None]
    lengths = list(map(len, found))
    if len(found) <= MOST_LINKS and max(lengths, default=0) <= LONGEST and sum(lengths) <= MOST_LETTERS:
        return found, 0
    kept: dict[str, None] = {}
    long, cut, letters = 0, 0, 0
    for url in found:
        is_long = len(url) > LONGEST
        short = shortened(url) if is_long else url
        if short in kept:
            continue
        is_full = len(kept) >= MOST_LINKS or letters + len(short) > MOST_LETTERS
        if is_full or (is_long and long >= MOST_LONG):
            cut += 1
            continue
        long += is_long
        letters += len(short)
        kept[short] = None
    return list(kept), cut


def read_html(html: str, url: str, encoding: str = "utf-8", *, is_xhtml: bool = False) -> Found:
    """Read a page.

    url: its address, "" if unknown. encoding: of the original bytes. is_xhtml: whether it was served as XML.
    """
    html = sanitize(_EMPTY.sub(r"<\1\2></\1>", html) if is_xhtml else html)
    found = read_links(html, url, encoding)
    found.text = main_text(html)
    return found


def read_links(html: str, url: str, encoding: str = "utf-8") -> Found:
    """Do the same as `read_html`, without the text."""
    found = Found()
    parser = LexborHTMLParser(html)  # it owns the nodes
    nodes = parser.css(_READ)
    base = _base(nodes, Base(url, encoding))
    links: list[str] = []
    for node in nodes:
        tag = node.tag
        if tag == "a" or tag == "area":  # most links, so each comparison counts
            attributes = node.attributes
            if "rel" not in attributes or not _is_nofollow(attributes):
                links.append(attributes["href"] or "")
        elif tag == "frame" or tag == "iframe":  # two comparisons, as above
            if not _is_nofollow(node.attributes):
                links.append(node.attributes["src"] or "")
        elif tag == "link":
            _read_link(found, base, links, node)
        elif tag == "meta":
            _read_meta(found, links, node)
        elif tag == "title" and not found.title and not _is_in_drawing(node):
            found.title = line_of(node.text())
    found.links, found.cut = unique(base.join_all(links))
    if parser.root is not None:
        attributes = parser.root.attributes
        found.language = attributes.get("lang") or attributes.get("xml:lang") or found.language
    if not found.title and (heading := parser.css_first("h1")) is not None:
        found.title = line_of(heading.text())
    return found


def _base(nodes: list[LexborNode], page: Base) -> Base:
    """Return the base of links: the first `<base>`, or the page (HTML, "the base element")."""
    for node in nodes:
        if node.tag == "base":
            url = page.join(node.attributes.get("href") or "")
            return page if url is None else Base(url, page.encoding)
    return page


def _is_nofollow(attributes: Mapping[str, str | None]) -> bool:
    return "nofollow" in (attributes.get("rel") or "").lower().split()


def _read_link(found: Found, base: Base, links: list[str], node: LexborNode) -> None:
    attributes = node.attributes
    relations = set((attributes.get("rel") or "").lower().split())
    href = attributes.get("href") or ""
    if "canonical" in relations:
        found.canonical = found.canonical or base.join(href)
    elif not relations.isdisjoint(_FOLLOWED) and relations.isdisjoint(_NOT_FOLLOWED) and _is_page(attributes):
        links.append(href)


def _is_page(attributes: Mapping[str, str | None]) -> bool:
    return (attributes.get("type") or "").partition(";")[0].strip().lower() in _PAGES


def _read_meta(found: Found, links: list[str], node: LexborNode) -> None:
    attributes = node.attributes
    content = attributes.get("content") or ""
    name = (attributes.get("name") or attributes.get("http-equiv") or "").strip().lower()
    if name in ("robots", AGENT):
        found.directives |= of_meta(content)
    elif name == "refresh" and (target := _REFRESH.match(content)):
        links.append(target[1] or target[2] or target[3] or "")
    elif name == "content-language":
        found.language = content


def _is_in_drawing(node: LexborNode) -> bool:
    """Return whether a title belongs to a part of an SVG drawing."""
    above = node.parent
    while above is not None:
        if above.tag == "svg":
            return True
        above = above.parent
    return False


def line_of(text: str) -> str:
    """Return a title as one line, cut to LONGEST_TITLE."""
    return " ".join(text[: 4 * LONGEST_TITLE].split())[:LONGEST_TITLE]


def all_text(html: str) -> str:
    """Return the whole text of a piece of HTML or XML."""
    return extract_plain_text(HTMLTree.parse(sanitize(html)), list_bullets=False).strip()[:LONGEST_TEXT]


def main_text(html: str) -> str:
    """Return the main text of a page, or its whole text if no main text is found."""
    tree = HTMLTree.parse(html)
    text = extract_plain_text(tree, main_content=True, list_bullets=False).strip()
    text = text or extract_plain_text(tree, list_bullets=False).strip()
    return text[:LONGEST_TEXT]
