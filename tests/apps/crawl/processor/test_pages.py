"""Pages as messages: of Rabbitry's crawlers, and in the text form of contract 5."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import msgspec
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from rabbitry.amqp.protocol.tables import FieldValue
from rabbitry.apps.crawl.messages import OUTCOMES, Document
from rabbitry.apps.crawl.problems import Problem
from rabbitry.apps.crawl.processor import pages
from rabbitry.apps.crawl.processor.pages import read_page, unpack
from tests.apps.crawl.processor._messages import AT, URL, document_of, documents_of, message, packed, page_message


def test_a_page_of_our_crawler_is_read() -> None:
    page, body = read_page(b"packed", page_message("text/html", origin={"ETag": '"1"', "link": ["</a>", "</b>"]}))
    assert body == b"packed"
    assert (page.url, page.final_url, page.status, page.crawler) == (URL, URL, 200, "c0ffee")
    assert page.fetched_at == AT
    assert page.content_type == "text/html"
    assert page.headers == {"content-type": ["text/html"], "etag": ['"1"'], "link": ["</a>", "</b>"]}
    assert page.missing == []


@pytest.mark.parametrize(
    ("body", "crawler", "at", "html"),
    [
        (b"crawler|a3f|2026-09-21T14:13:20|<title>x</title>", "a3f", AT, b"<title>x</title>"),
        (b"crawler|a3f|2026-09-21T16:13:20+02:00|a|b|c", "a3f", AT, b"a|b|c"),
        (b"crawler|7|yesterday|<p>", "7", 0.0, b"<p>"),
        (b"crawler|||", "", 0.0, b""),
        (b"crawler|a3f", "", 0.0, b"crawler|a3f"),
        (b"<p>a|b|c|d", "", 0.0, b"<p>a|b|c|d"),
        (b"", "", 0.0, b""),
        (b"\xff\x00|\xfe||||", "", 0.0, b"\xff\x00|\xfe||||"),
    ],
)
def test_a_page_of_another_program_is_read(body: bytes, crawler: str, at: float, html: bytes) -> None:
    page, rest = read_page(body, message())
    assert (page.crawler, page.fetched_at, rest) == (crawler, at, html)
    assert page.url == ""
    assert {"url", "status", "headers"} <= set(page.missing)
    assert ("time" in page.missing) == (not at)
    assert ("crawler" in page.missing) == (not crawler)


def test_the_text_form_with_headers_beside_it_is_read() -> None:
    given = page_message("text/html; charset=latin1")
    body = b"crawler|c0ffee|2026-09-21T14:13:20|<title>\xe4</title>"
    plain = message(given.headers)
    assert document_of(body, plain).title == "ä"
    assert document_of(body, plain).url == URL


def test_fields_that_another_program_lacks_are_reported() -> None:
    document = document_of(b"crawler|a3f|2026-09-21T14:13:20|<title>x</title><a href=/a><a href=http://b>", message())
    assert document.missing == ["url", "status", "content-type", "headers"]
    assert (document.title, document.crawler, document.fetched_at) == ("x", "a3f", AT)
    assert [link.url for link in document.links] == ["http://b/"]
    assert document.problem == ""


def test_a_page_without_an_address_has_its_canonical_one() -> None:
    document = document_of(b"crawler|a|b|<link rel=canonical href=http://a.example/x>", message())
    assert (document.url, document.canonical) == ("http://a.example/x", "http://a.example/x")
    assert "url" in document.missing


@pytest.mark.parametrize(
    "body", [b"", b"|", b"||||||", b"\0" * 5000, bytes(range(256)) * 20, b"crawler|a|b|", b"\xff\xfe"]
)
def test_any_message_of_another_program_becomes_a_document(body: bytes) -> None:
    document = document_of(body, message())
    assert document.problem in ("", "unreadable")
    assert "url" in document.missing


@pytest.mark.parametrize(
    "headers",
    [
        {"x-rabbitry-url": 7, "x-rabbitry-status": "200", "x-rabbitry-fetched-at": 5, "x-rabbitry-origin-headers": "x"},
        {"x-rabbitry-url": None, "x-rabbitry-status": -1, "x-rabbitry-origin-headers": {"content-type": None}},
        {
            "x-rabbitry-url": "nonsense",
            "x-rabbitry-origin-headers": {"content-type": ["a", 1, b"\xff"], "link": {"a": 1}},
        },
        {"x-rabbitry-url": "http://a/\udcff", "x-rabbitry-crawler": b"\xff", "x-rabbitry-final-url": "\ud800"},
        {"x-rabbitry-url": b"\xff", "x-rabbitry-fetched-at": "9999-12-31T23:59:59-23:59", "x-rabbitry-purpose": True},
        {"x-rabbitry-url": "http://a\ud7ff/", "x-rabbitry-fetched-at": "nan"},
    ],
)
def test_odd_headers_do_no_harm(headers: Mapping[str, FieldValue]) -> None:
    document = document_of("<title>x</title>", message(headers))
    assert msgspec.json.decode(msgspec.json.encode(document), type=Document) == document


def test_a_body_is_decompressed() -> None:
    unsized = zstandard.ZstdCompressor().compressobj()
    body = b"<p>x" * 100_000
    assert unpack(packed(body), "zstd") == body
    assert unpack(unsized.compress(body) + unsized.flush(), "zstd") == body
    assert unpack(packed(body), None) == body  # of a program that sets no type
    assert unpack(body, None) == body
    assert unpack(b"", None) == b""


def _bomb(*, is_sized: bool) -> bytes:
    size = 200_000_000
    if is_sized:
        return zstandard.ZstdCompressor().compress(b"\0" * size)
    bomb = zstandard.ZstdCompressor().compressobj()
    return bomb.compress(b"\0" * size) + bomb.flush()


@pytest.mark.parametrize(
    ("body", "encoding", "word"),
    [
        (functools.partial(_bomb, is_sized=True), "zstd", "bomb"),
        (functools.partial(_bomb, is_sized=False), "zstd", "bomb"),
        (packed("x" * 1000)[:-3], "zstd", "broken-encoding"),
        (packed(bytes(range(256)) * 9)[:100], "zstd", "broken-encoding"),
        (b"", "zstd", "broken-encoding"),
        (b"<p>", "zstd", "broken-encoding"),
        (b"<p>", "gzip", "broken-encoding"),
    ],
    ids=range(7),
)
def test_a_broken_body_has_its_own_outcome(body: bytes | Callable[[], bytes], encoding: str, word: str) -> None:
    with pytest.raises(Problem) as problem:
        unpack(body if isinstance(body, bytes) else body(), encoding)
    assert problem.value.outcome == word
    assert word in OUTCOMES


def test_a_frame_that_lies_about_its_size_is_broken() -> None:
    body = bytearray(packed("x" * 1000))
    body[5] = 10
    with pytest.raises(Problem):
        unpack(bytes(body), "zstd")


@given(st.binary(max_size=300), st.dictionaries(st.text(max_size=5), st.text(max_size=20)))
def test_any_message_is_read(body: bytes, origin: dict[str, str]) -> None:
    documents_of(body, message())
    documents_of(body, page_message(origin=dict(origin)))
    documents_of(body, page_message("text/xml", origin=dict(origin)))


def test_the_bound_is_above_what_sitemaps_may_have() -> None:
    assert pages.LONGEST_BODY > 50 * 1024 * 1024
