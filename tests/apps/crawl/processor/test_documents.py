"""Documents of pages of every kind."""

from __future__ import annotations

import pytest

from rabbitry.apps.crawl.messages import OUTCOMES
from rabbitry.apps.crawl.processor.html import MOST_LINKS
from tests.apps.crawl.processor._messages import AT, URL, document_of, documents_of, message, page_message

TEXT = "The otter lives at the river and eats fish, all day long. " * 12
FEED = f"""<?xml version="1.0"?><rss version="2.0" xmlns:dc="dc"><channel>
<title>Otter news</title><link>http://site.example/</link><description>All about otters</description>
<item><title>One &amp; all</title><link>/one</link><description>&lt;p&gt;{TEXT}&lt;/p&gt;</description>
<pubDate>Wed, 04 Mar 2026 05:06:07 GMT</pubDate></item>
<item><title>Two</title><link>http://site.example/two#x</link><dc:date>2026-03-04</dc:date></item></channel></rss>"""
ATOM = """<feed xmlns="http://www.w3.org/2005/Atom"><title>Otter news</title><link href="/" rel="self"/>
<entry><title>One</title><link rel="edit" href="/edit"/><link href="/one"/><published>2026-03-03</published>
<updated>2026-03-04T05:06:07Z</updated><summary>short</summary>
<content type="html">&lt;b&gt;longer&lt;/b&gt; text</content>
<source><title>Elsewhere</title><link href="/elsewhere"/></source></entry></feed>"""
RDF = """<rdf:RDF xmlns:rdf="x" xmlns="y"><channel><title>Otter news</title><link>/</link></channel>
<item rdf:about="/one"><title>One</title><link>/one</link></item></rdf:RDF>"""


def _links(body: str | bytes, content_type: str = "text/html") -> list[str]:
    return [link.url for link in document_of(body, page_message(content_type)).links]


def test_a_page_becomes_a_document() -> None:
    body = f"<html lang=de><title>Otter</title><link rel=canonical href=/o><p>{TEXT}<a href=x>x</a>"
    document = document_of(body, page_message())
    assert (document.url, document.final_url, document.status, document.fetched_at) == (URL, URL, 200, AT)
    assert (document.processor, document.crawler) == ("abc", "c0ffee")
    assert (document.title, document.encoding, document.language) == ("Otter", "utf-8", "en")
    assert document.canonical == "http://site.example/o"
    assert document.keywords[0] == "otter"
    assert document.fingerprint != 0
    assert "eats fish" in document.text
    assert (document.problem, document.detail, document.missing, document.cut) == ("", "", [], 0)


def test_links_are_relative_to_where_redirects_led() -> None:
    given = page_message(final_url="https://other.example/a/b")
    document = document_of("<a href=c>", given)
    assert document.url == URL
    assert [link.url for link in document.links] == ["https://other.example/a/c"]


@pytest.mark.parametrize(
    ("head", "origin", "noindex", "nofollow"),
    [
        ("<meta name=robots content=noindex>", {}, True, False),
        ("", {"x-robots-tag": "noindex"}, True, False),
        ("", {"X-Robots-Tag": ["otherbot: none", "nofollow"]}, False, True),
        ("", {"x-robots-tag": "otherbot: none\nnofollow"}, False, True),
        ("<meta name=robots content=nofollow>", {"x-robots-tag": "rabbitry: noindex"}, True, True),
        ("", {"x-robots-tag": "googlebot: none"}, False, False),
    ],
)
def test_directives_of_page_and_header_are_kept(
    head: str, origin: dict[str, str | list[str]], noindex: bool, nofollow: bool
) -> None:
    document = document_of(f"{head}<title>x</title><a href=a>{TEXT}", page_message(origin=origin))
    assert (document.noindex, document.nofollow) == (noindex, nofollow)
    assert bool(document.text) is bool(document.keywords) is not noindex
    assert bool(document.links) is not nofollow
    assert document.title == "x"


def test_nofollow_counts_no_links() -> None:
    many = "".join(f"<a href={number}>" for number in range(MOST_LINKS + 1))
    assert document_of("<meta name=robots content=nofollow>" + many).cut == 0
    assert document_of(many).cut == 1


@pytest.mark.parametrize(
    ("page", "link", "canonical"),
    [
        ("<link rel=canonical href=/a>", '</b>; rel="canonical"', "http://site.example/a"),
        ("", '</b>; rel="canonical"', "http://site.example/b"),
        ("", "<http://c.example>; rel=canonical; x=y, </d>; rel=next", "http://c.example/"),
        ("", "</b>; rel=next", None),
        (f"<link rel=canonical href={URL}#part>", "", None),
        ("<link rel=canonical href=javascript:x>", "", None),
        ("<link rel=canonical href=/" + "x" * 100_000 + ">", "", None),
    ],
    ids=range(7),
)
def test_the_canonical_address_is_that_of_the_page_or_the_header(page: str, link: str, canonical: str | None) -> None:
    assert document_of(page, page_message(origin={"link": link})).canonical == canonical


@pytest.mark.parametrize(("tag", "language"), [("fr-CH", "fr"), ("de, en", "de")])
def test_a_short_page_has_the_language_of_its_header(tag: str, language: str) -> None:
    assert document_of("<p>Otter", page_message(origin={"content-language": tag})).language == language
    assert document_of("<html lang=nl><p>Otter", page_message(origin={"content-language": tag})).language == "nl"


@pytest.mark.parametrize(
    "content_type", ["application/rss+xml", "text/xml; charset=utf-8", "application/xml", "text/html"]
)
def test_a_feed_is_a_page_with_the_links_of_its_entries(content_type: str) -> None:
    document = document_of(FEED, page_message(content_type))
    assert document.title == "Otter news"
    assert [(link.url, link.modified) for link in document.links] == [
        ("http://site.example/one", 1772600767.0),
        ("http://site.example/two", 1772582400.0),
    ]
    assert "All about otters" in document.text
    assert "eats fish" in document.text
    assert "<p>" not in document.text
    assert not document.is_sitemap


def test_other_feeds_are_read_too() -> None:
    document = document_of(ATOM, page_message("application/atom+xml"))
    assert (document.title, [(link.url, link.modified) for link in document.links]) == (
        "Otter news",
        [("http://site.example/one", 1772600767.0)],
    )
    assert "longer text" in document.text
    assert "<b>" not in document.text
    assert _links(RDF, "application/rdf+xml") == ["http://site.example/one"]


def test_a_broken_feed_has_its_earlier_entries() -> None:
    document = document_of(FEED.replace("Two", "<b>Two"), page_message("text/xml"))
    assert (document.title, len(document.links)) == ("Otter news", 1)
    assert "XML is broken" in document.detail


def test_a_sitemap_that_was_fetched_as_a_page_is_one() -> None:
    body = "<?xml version='1.0'?><urlset><url><loc>http://a.example/1</loc></url></urlset>"
    for content_type in ("text/xml", "application/xml", "text/html"):
        (document,) = documents_of(body, page_message(content_type))
        assert document.is_sitemap
        assert [link.url for link in document.links] == ["http://a.example/1"]


def test_xhtml_is_html() -> None:
    body = (
        '<?xml version="1.0"?><html xmlns="x"><head><script/><title>x</title></head><body><a href="y"/></body></html>'
    )
    for content_type in ("application/xhtml+xml", "text/xml", "application/xml"):
        document = document_of(body, page_message(content_type))
        assert (document.title, len(document.links)) == ("x", 1)


@pytest.mark.parametrize("content_type", ["text/plain; charset=utf-8", "text/markdown", "application/json"])
def test_plain_text_is_text_alone(content_type: str) -> None:
    document = document_of(f"  <title>a</title>\n\n{TEXT}\n<a href=x>\n", page_message(content_type))
    assert document.text == f"<title>a</title>\n\n{TEXT}\n<a href=x>"
    assert (document.title, document.links, document.language) == ("", [], "en")


def test_other_xml_has_the_text_between_its_tags() -> None:
    document = document_of(
        "<?xml version='1.0'?><a><b>otter</b><c d='e'>river</c></a>", page_message("application/xml")
    )
    assert document.text.split() == ["otter", "river"] or document.text == "otterriver"
    assert document.links == []


@pytest.mark.parametrize(
    ("body", "content_type", "word"),
    [
        (b"\x89PNG", "image/png", "not-text"),
        (b"%PDF-1.7", "application/pdf", "not-text"),
        (b"x", "application/octet-stream", "not-text"),
        (bytes(range(256)) * 10, "text/plain", "unreadable"),
        (b"\0" * 1000, "text/plain", "unreadable"),
        (b"\0" * 1000, "", "unreadable"),
    ],
)
def test_data_that_is_not_text_has_its_own_outcome(body: bytes, content_type: str, word: str) -> None:
    document = document_of(body, page_message(content_type))
    assert document.problem == word
    assert word in OUTCOMES
    assert document.detail


@pytest.mark.parametrize("body", ["", " \n", "<html></html>", "<!-- -->", "\ufeff"])
def test_an_empty_page_is_a_document_without_text(body: str) -> None:
    for content_type in ("text/html", "text/plain", "text/xml", ""):
        document = document_of(body, page_message(content_type))
        assert (document.links, document.problem) == ([], "")
        assert len(document.text) <= len(body)


def test_a_page_with_nuls_and_a_lying_encoding_is_read() -> None:
    document = document_of(b"<title>a\0b</title><p>\xe4\0" + b"x" * 100, page_message("text/html; charset=utf-8"))
    assert document.title == "a\ufffdb"
    assert "\0" not in document.text


def test_50_mb_of_nothing_is_an_empty_document() -> None:
    assert document_of(b" " * 50_000_000, page_message()).text == ""
    assert document_of(b" " * 50_000_000, message()).text == ""
    assert document_of(b" " * 50_000_000, page_message("text/xml")).text == ""
