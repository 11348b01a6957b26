"""Making documents from a page: one, or several for a long sitemap. Independent of the broker."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import msgspec

from rabbitry.apps.crawl.messages import Document, Link
from rabbitry.apps.crawl.problems import Problem
from rabbitry.apps.crawl.processor.addresses import LONGEST, Base, normalised
from rabbitry.apps.crawl.processor.directives import links_of_headers, of_headers
from rabbitry.apps.crawl.processor.encodings import decode, encoding_of
from rabbitry.apps.crawl.processor.html import LONGEST_TEXT, Found, all_text, line_of, read_html, unique
from rabbitry.apps.crawl.processor.language import declared_language, language_of
from rabbitry.apps.crawl.processor.pages import Page
from rabbitry.apps.crawl.processor.sitemaps import Sitemap
from rabbitry.apps.crawl.processor.words import fingerprint_of, keywords_of, words_of
from rabbitry.apps.crawl.processor.xml import XmlReader, beginning, kind_of

_HTML: Final = ("text/html", "application/xhtml+xml", "")
_XML: Final = ("text/xml", "application/xml")
_TEXT: Final = ("application/json", "application/javascript")
_XML_BEGINS: Final = (b"<?xml", b"<rss", b"<feed", b"<urlset", b"<sitemapindex", b"<rdf:", b"\xff\xfe", b"\xfe\xff")
_HEAD: Final = 1_000
_SAMPLE: Final = 4_000
_BINARY: Final = re.compile("[\x00-\x08\x0e-\x1a\x1c-\x1f\ufffd]")
_MOST_BINARY: Final = 0.1
"""The share of control and replacement characters in the beginning above which the data is not text."""
_LONGEST_FEED: Final = 8_000_000


def documents(page: Page, body: bytes, begun: Document) -> Iterator[Document]:
    """Return the documents of a page: one, or several for a long sitemap.

    body: decompressed. begun: has the fields known from the message; the rest is filled in.
    """
    media_type = page.content_type.partition(";")[0].strip().lower()
    is_xml = media_type in _XML or (media_type.endswith("+xml") and media_type not in _HTML)
    kind = None
    if is_xml or (media_type in _HTML and body[:_HEAD].lstrip(b"\xef\xbb\xbf \t\r\n").startswith(_XML_BEGINS)):
        kind = kind_of(beginning(body, page.content_type))  # a feed may be served as HTML
    try:
        if page.is_sitemap or kind in ("sitemap", "index"):
            yield from _sitemap(page, body, begun)
        elif kind == "feed":
            yield _feed(page, body, begun)
        elif media_type in _HTML or kind == "html":
            yield _html(page, body, begun, is_xhtml=is_xml or media_type == _HTML[1])
        elif media_type.startswith("text/") or is_xml or media_type in _TEXT or media_type.endswith("+json"):
            yield _text(page, body, begun, is_xml=is_xml)
        else:
            raise Problem("not-text", f"it is {media_type[:100]}")
    except Problem as problem:
        yield problem_of(begun, problem)


def problem_of(begun: Document, problem: Problem) -> Document:
    """Return the document of an unreadable page."""
    return msgspec.structs.replace(begun, problem=problem.outcome, detail=problem.detail)


def _html(page: Page, body: bytes, begun: Document, *, is_xhtml: bool) -> Document:
    text, encoding = decode(body, page.content_type)
    if not page.content_type:
        _check_is_text(text)
        if "<" not in text[:_SAMPLE]:
            return _filled(page, begun, Found(text=text[:LONGEST_TEXT].strip()), encoding)
    # PostgreSQL does not store NUL in text, and HTML does not allow it ("unexpected-null-character").
    return _filled(
        page, begun, read_html(text.replace("\0", "\ufffd"), _url(page), encoding, is_xhtml=is_xhtml), encoding
    )


def _text(page: Page, body: bytes, begun: Document, *, is_xml: bool) -> Document:
    text, encoding = decode(body, page.content_type)
    _check_is_text(text)
    text = text.replace("\0", "\ufffd")
    return _filled(page, begun, Found(text=all_text(text) if is_xml else text[:LONGEST_TEXT].strip()), encoding)


def _feed(page: Page, body: bytes, begun: Document) -> Document:
    """Read an RSS or Atom feed: its text and links are those of its entries."""
    reader = XmlReader(page.content_type)
    base = Base(_url(page))
    modified: dict[str, float | None] = {}
    detail = ""
    html: list[str] = []
    try:
        for entry in reader.entries([body[:_LONGEST_FEED]]):
            html.append(f"<h2>{entry.title}</h2><p>{entry.text}</p>")
            if entry.url and (url := base.join(entry.url)):
                modified.setdefault(url, entry.modified)
    except Problem as problem:
        detail = problem.detail
    text = all_text(f"<p>{reader.text}</p>" + "".join(html))
    links, cut = unique(modified)
    found = Found(title=line_of(reader.title), text=text, links=links, cut=cut)
    document = _filled(page, begun, found, encoding_of(body[:_SAMPLE], page.content_type)[0])
    timed = [Link(link.url, modified.get(link.url)) for link in document.links]
    return msgspec.structs.replace(document, links=timed, detail=detail)


def _sitemap(page: Page, body: bytes, begun: Document) -> Iterator[Document]:
    sitemap = Sitemap(body, _url(page), page.content_type)
    begun = msgspec.structs.replace(begun, is_sitemap=True)
    is_empty = True
    try:
        for links in sitemap.links():
            is_empty = False
            yield msgspec.structs.replace(begun, links=links, is_index=sitemap.is_index)
    except Problem as problem:
        yield msgspec.structs.replace(problem_of(begun, problem), is_index=sitemap.is_index, cut=sitemap.cut)
        return
    if is_empty or sitemap.cut:
        yield msgspec.structs.replace(begun, is_index=sitemap.is_index, cut=sitemap.cut)


def _filled(page: Page, begun: Document, found: Found, encoding: str) -> Document:
    """Complete a document with the content of the page, its headers and its text."""
    directives = found.directives | of_headers(page.headers.get("x-robots-tag", ()))
    tag = found.language or ", ".join(page.headers.get("content-language", ()))
    language = language_of(found.text, declared_language(tag))
    words = words_of(found.text)
    canonical = _canonical(page, found)
    return msgspec.structs.replace(
        begun,
        url=page.url or canonical or "",
        title=found.title,
        text="" if directives.noindex else found.text,
        language=language,
        encoding=encoding,
        keywords=[] if directives.noindex else keywords_of(words, found.title, language),
        fingerprint=fingerprint_of(words),
        links=[] if directives.nofollow else [Link(url) for url in found.links],
        cut=0 if directives.nofollow else found.cut,
        canonical=canonical,
        noindex=directives.noindex,
        nofollow=directives.nofollow,
    )


def _canonical(page: Page, found: Found) -> str | None:
    """Return a page's canonical address from its `link` or Link header, if it is another one."""
    canonical = found.canonical
    if canonical is None and "link" in page.headers:
        for relation, link in links_of_headers(page.headers["link"]):
            if "canonical" in relation.split():
                canonical = Base(_url(page)).join(link)
                break
    if canonical is None or len(canonical) > LONGEST or canonical == normalised(_url(page)):
        return None
    return canonical


def _url(page: Page) -> str:
    return page.final_url or page.url


def _check_is_text(text: str) -> None:
    sample = text[:_SAMPLE]
    if len(_BINARY.findall(sample)) > _MOST_BINARY * len(sample):
        raise Problem("unreadable", "it is binary data")
