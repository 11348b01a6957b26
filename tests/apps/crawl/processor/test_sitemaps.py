"""Sitemaps: of addresses, of sitemaps, as text, compressed, huge and broken."""

from __future__ import annotations

import gzip
import tracemalloc
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rabbitry.apps.crawl.messages import Document
from rabbitry.apps.crawl.processor import sitemaps
from rabbitry.apps.crawl.processor.addresses import LONGEST, MOST_LONG
from rabbitry.apps.crawl.processor.sitemaps import AT_ONCE, Sitemap
from rabbitry.apps.crawl.processor.times import seconds_of
from rabbitry.apps.crawl.processor.xml import XmlReader
from tests.apps.crawl.processor._messages import documents_of, page_message

HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">'


def _read(body: bytes | str, content_type: str = "application/xml") -> list[Document]:
    return documents_of(body, page_message(content_type, url="http://a.example/sitemap.xml", purpose="sitemap"))


def _urls(documents: list[Document]) -> list[str]:
    return [link.url for document in documents for link in document.links]


def test_a_sitemap_is_read() -> None:
    (document,) = _read(f"""{HEAD}
      <url><loc> http://a.example/1?a=1&amp;b=2 </loc><lastmod>2026-01-02</lastmod><priority>1</priority></url>
      <url><lastmod>yesterday</lastmod><loc><![CDATA[http://A.example/2#x]]></loc></url>
      <url><loc>/3</loc><image:image><image:loc>http://a.example/i.png</image:loc></image:image>
        <xhtml:link rel="alternate" hreflang="de" href="http://a.example/de/3"/></url>
      <url><loc>mailto:x@a.example</loc></url><url/></urlset>""")
    assert document.is_sitemap
    assert not document.is_index
    assert [(link.url, link.modified) for link in document.links] == [
        ("http://a.example/1?a=1&b=2", datetime(2026, 1, 2, tzinfo=UTC).timestamp()),
        ("http://a.example/2", None),
        ("http://a.example/de/3", None),
        ("http://a.example/3", None),
    ]
    assert (document.problem, document.text, document.cut) == ("", "", 0)


def test_a_sitemap_of_sitemaps_is_marked() -> None:
    (document,) = _read("<sitemapindex><sitemap><loc>http://a.example/1.xml</loc></sitemap></sitemapindex>")
    assert document.is_index
    assert _urls([document]) == ["http://a.example/1.xml"]


@pytest.mark.parametrize(
    "body",
    [
        "<sm:urlset xmlns:sm='x'><sm:url><sm:loc>http://a.example/1</sm:loc></sm:url></sm:urlset>",
        "\ufeff \n <urlset><url><loc>http://a.example/1</loc></url></urlset>",
        "<!-- <urlset> --><!DOCTYPE urlset><urlset><url><loc>http://a.example/1\x0b</loc></url></urlset>",
        "http://a.example/1",
        "\ufeffhttp://a.example/1\r\n\r\nnonsense://x\n",
        "<rss><channel><item><link>http://a.example/1</link></item></channel></rss>",
        "<URLSET><URL><LOC>http://a.example/1</LOC></URL></URLSET>",
        "HTTP://a.example/1\rnot found\r/2\r{}",
        "<feed><entry><link href='http://a.example/1'/><link rel='self' href='http://b.example'/></entry></feed>",
    ],
)
def test_other_forms_are_read(body: str) -> None:
    assert _urls(_read(body)) == ["http://a.example/1"]
    assert _urls(_read(gzip.compress(body.encode()), "application/gzip")) == ["http://a.example/1"]
    assert _urls(_read(body.encode("utf-16"), "text/xml")) == ["http://a.example/1"]
    assert _urls(_read(gzip.compress(gzip.compress(body.encode())))) == ["http://a.example/1"]


def test_other_encodings_are_read() -> None:
    body = "<?xml version='1.0' encoding='{}'?><urlset><url><loc>http://a.example/日本</loc></url></urlset>"
    for encoding in ("shift_jis", "utf-8", "euc-jp", "gb18030"):
        (url,) = _urls(_read(body.format(encoding).encode(encoding)))
        assert url == "http://a.example/%E6%97%A5%E6%9C%AC"
    assert _urls(_read(body.format("utf-8").encode("gb18030"), "text/xml; charset=gbk")) == [url]
    assert len(_urls(_read(body.format("utf-8").encode("gb18030")))) == 1


def test_a_long_sitemap_becomes_several_documents() -> None:
    links = "".join(f"<url><loc>http://a.example/{number}</loc></url>" for number in range(2 * AT_ONCE + 1))
    documents = _read(f"{HEAD}{links}</urlset>")
    assert [len(document.links) for document in documents] == [AT_ONCE, AT_ONCE, 1]
    assert len(set(_urls(documents))) == 2 * AT_ONCE + 1


def test_long_links_of_a_sitemap_come_in_smaller_documents() -> None:
    count = AT_ONCE // 2
    urls = [f"http://a.example/{number}/{'x' * 1_900}" for number in range(count)]
    documents = _read(HEAD + "".join(f"<url><loc>{url}</loc></url>" for url in urls) + "</urlset>")
    assert [link.url for document in documents for link in document.links] == urls
    assert max(sum(len(link.url) for link in document.links) for document in documents) < 210_000


def test_a_sitemap_without_end_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sitemaps, "_MOST", 2 * AT_ONCE)
    documents = _read("".join(f"http://a.example/{number}\n" for number in range(5 * AT_ONCE)))
    assert len(_urls(documents)) == 2 * AT_ONCE
    assert documents[-1].problem == "too-large"


def test_long_links_are_cut_and_further_ones_counted() -> None:
    (document,) = _read(f"{HEAD}<url><loc>http://a.example/{'x' * 100_000}</loc></url></urlset>")
    assert ([len(link.url) for link in document.links], document.cut) == ([LONGEST + 1], 0)
    (document,) = _read("http://a.example/1\nhttp://a.example/" + "x" * 1_000_000)
    assert [len(link.url) for link in document.links] == [18, LONGEST + 1]
    document, last = _read("".join(f"http://a.example/{n}{'x' * 3_000}\n" for n in range(MOST_LONG + 3)))
    assert (len(document.links), last.cut) == (MOST_LONG, 3)


@pytest.mark.parametrize(
    ("body", "word", "urls"),
    [
        (f"{HEAD}<url><loc>http://a.example/1</loc></url><url><loc>a < b</loc></url>", "unreadable", 1),
        (f"{HEAD}<url><loc>http://a.example/1</loc></url>", "unreadable", 1),
        ("<html><body><a href=/>Not found</a></body></html>", "unreadable", 0),
        ("<?xml version='1.0'?><other/>", "unreadable", 0),
        (
            f"<!DOCTYPE urlset [<!ENTITY a 'b'>]>{HEAD.partition('?>')[2]}<url><loc>&a;</loc></url></urlset>",
            "unreadable",
            0,
        ),
        (HEAD + "<a>" * 100_000, "unreadable", 0),
        (HEAD + "<!--" + "x" * 5_000_000, "unreadable", 0),
        (
            gzip.compress(f"{HEAD}<url><loc>http://a.example/1</loc></url>{' ' * 200_000}".encode())[:-20],
            "broken-encoding",
            1,
        ),
        (b"\x1f\x8bnonsense", "broken-encoding", 0),
    ],
    ids=range(9),
)
def test_a_broken_sitemap_gives_earlier_links_and_its_outcome(body: bytes | str, word: str, urls: int) -> None:
    documents = _read(body)
    assert documents[-1].problem == word
    assert documents[-1].detail
    assert all(document.is_sitemap and not document.problem for document in documents[:-1])
    assert len(_urls(documents)) == urls


def test_a_sitemap_that_unpacks_to_a_hundred_megabytes_is_stopped() -> None:
    (document,) = _read(gzip.compress(b" " * 100_000_000, 1))
    assert document.is_sitemap
    assert document.problem == "bomb"
    assert document.detail
    assert not _urls([document])


@pytest.mark.parametrize("size", [1, 7, 10, 64, 10_000])
def test_an_ampersand_that_begins_no_reference_is_text(size: int) -> None:
    body = (
        f"{HEAD}<url><loc>http://a.example/?x=1&y=2&amp;z=&#51;&#x34;&</loc></url><url><loc>http://a.example/&copy;"
        "</loc></url><url><loc><![CDATA[http://a.example/?x=1&y=2]&amp;]]></loc></url>"
        "<url><loc>http://a.example/?p&q</loc></url></urlset>"
    ).encode()
    parts = (body[start : start + size] for start in range(0, len(body), size))
    assert [entry.url for entry in XmlReader().entries(parts)] == [
        "http://a.example/?x=1&y=2&z=34&",
        "http://a.example/&copy;",
        "http://a.example/?x=1&y=2]&amp;",
        "http://a.example/?p&q",
    ]


def test_a_billion_laughs_are_refused() -> None:
    entities = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
    bomb = f'<!DOCTYPE u [<!ENTITY l0 "ha">{entities}]><urlset><url><loc>http://a.example/&l9;</loc></url></urlset>'
    (document,) = _read(bomb)
    assert (document.problem, document.links) == ("unreadable", [])
    (document,) = documents_of(bomb, page_message("text/xml"))
    assert len(document.text) < 1000


def test_an_external_entity_is_not_loaded() -> None:
    body = '<!DOCTYPE u SYSTEM "file:///etc/passwd"><urlset><url><loc>http://a.example/1</loc></url></urlset>'
    assert _urls(_read(body)) == ["http://a.example/1"]


def test_an_empty_sitemap_is_a_document_without_links() -> None:
    assert [(document.links, document.problem) for document in _read(f"{HEAD}</urlset>")] == [([], "")]
    assert [(document.links, document.problem) for document in _read("")] == [([], "")]


def test_a_sitemap_is_read_as_a_stream() -> None:
    one = "<url><loc>http://a.example/some/longer/path/to/a/page/{0:09}</loc><lastmod>2026-01-02T03:04:05Z</lastmod></url>"
    body = (HEAD + "".join(one.format(number) for number in range(20_000)) + "</urlset>").encode()
    packed = gzip.compress(body, 1)
    tracemalloc.start()
    try:
        count = sum(len(links) for links in Sitemap(packed, "http://a.example/", "").links())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 20_000
    assert peak < len(body)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026", "2026-01-01T00:00:00+00:00"),
        ("2026-03", "2026-03-01T00:00:00+00:00"),
        ("2026-03-04", "2026-03-04T00:00:00+00:00"),
        ("2026-03-04T05:06Z", "2026-03-04T05:06:00+00:00"),
        ("2026-03-04T05:06:07+02:00", "2026-03-04T05:06:07+02:00"),
        ("2026-03-04T05:06:07.123456789-0330", "2026-03-04T05:06:07.123456-03:30"),
        ("2026-03-04 05:06:07", "2026-03-04T05:06:07+00:00"),
        (" 2026-03-04T05:06:60Z\n", "2026-03-04T05:07:00+00:00"),
        ("Wed, 04 Mar 2026 05:06:07 GMT", "2026-03-04T05:06:07+00:00"),
        ("Wed, 04 Mar 2026 05:06:07 +0200", "2026-03-04T05:06:07+02:00"),
        ("", None),
        ("yesterday", None),
        ("2026-13-01", None),
        ("2026-02-30", None),
        ("0000-01-01", None),
        ("1800-01-01", None),
        ("2026-03-04T25:00Z", None),
        ("20260304", None),
        ("٢٠٢٦", None),
        ("9" * 100_000, None),
    ],
)
def test_a_time_is_read(text: str, moment: str | None) -> None:
    assert seconds_of(text) == (None if moment is None else datetime.fromisoformat(moment).timestamp())


@given(st.text(max_size=40))
def test_any_time_is_read(text: str) -> None:
    seconds_of(text)


_PIECES = (
    "<urlset>|</urlset>|<url>|</url>|<loc>|</loc>|<lastmod>|http://a.example/|<![CDATA[|]]>|&amp;|&x;|<!--|<item>|<link"
)


@given(st.lists(st.sampled_from([*_PIECES.split("|"), *"<>&;'\"/ \0\né\ufffe|"])), st.booleans())
def test_any_sitemap_is_read(pieces: list[str], is_begun: bool) -> None:
    documents = _read((HEAD if is_begun else "") + "".join(pieces))
    assert all(document.is_sitemap for document in documents)
