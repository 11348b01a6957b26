"""Parsing the heads of HTTP responses."""

import time
from email.utils import formatdate

import pytest

from rabbitry.apps.crawl.crawler.responses import LONGEST_WAIT, Head, is_text, seconds_of

NOW = 1_795_000_000.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0), ("120", 120.0), (" 7 ", 7.0), ("86401", LONGEST_WAIT), ("9" * 5000, LONGEST_WAIT),
        (formatdate(NOW + 100, usegmt=True), 100.0), (formatdate(NOW - 100, usegmt=True), 0.0),
        (formatdate(NOW + 365 * 86_400, usegmt=True), LONGEST_WAIT), ("Sat, 31 Dec 9999 23:59:59 GMT", LONGEST_WAIT),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0), ("-5", None), ("1.5", None), ("soon", None), ("", None), ("٣", None),
        ("Sat, 99 Nov 2026 10:00:00 GMT", None), ("x" * 100_000, None), ("1e9", None), ("+5", None), ("0x10", None),
        ("120, 7", 120.0), (formatdate(NOW + 100).removesuffix(" -0000"), 100.0),
        (time.asctime(time.gmtime(NOW + 100)), 100.0),
    ],
)  # fmt: skip
def test_retry_after_is_bounded_and_garbage_is_none(
    text: str, seconds: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        with monkeypatch.context() as patch:
            patch.setenv("TZ", "America/New_York")  # a date without a zone is UTC
            time.tzset()
            assert seconds_of(text, NOW) == seconds
    finally:
        time.tzset()


@pytest.mark.parametrize(
    ("media_type", "head", "is_page"),
    [
        ("text/html", b"", True), ("text/plain", b"", True), ("application/xhtml+xml", b"", True),
        ("application/xml", b"", True), ("application/rss+xml", b"", True), ("image/svg+xml", b"", True),
        ("text/css", b"", False), ("text/javascript", b"", False), ("application/pdf", b"", False),
        ("application/json", b"", False), ("image/png", b"", False), ("", b"<p>", True), ("", b"", True),
        ("", b"\x00\x01", False), ("", b"\xff\xfe<\x00", True), ("", b"\xfe\xff\x00<", True),
    ],
)  # fmt: skip
def test_html_text_and_xml_are_pages(media_type: str, head: bytes, is_page: bool) -> None:
    assert is_text(media_type, head) is is_page


def test_the_head_keeps_the_final_responses_headers() -> None:
    head = Head()
    for line in (
        b"HTTP/1.1 103 Early Hints\r\n", b"Link: </style>\r\n", b"\r\n",
        b"HTTP/1.1 200 OK\r\n", b"ETag: \"caf\xe9\"\r\n", b"LINK: </a>\r\n", b"link:</b>\r\n", b"no colon\r\n", b"\r\n",
        b"ETag: trailer\r\n",
    ):  # fmt: skip
        head.take(line)
    assert head.status == 200
    assert head.kept == {"etag": '"café"', "link": "</a>, </b>"}
    assert head.length is None


@pytest.mark.parametrize(("text", "length"), [("7", 7), ("-7", None), ("7, 7", None), ("", None), ("9" * 30, None)])
def test_length_is_a_number_or_none(text: str, length: int | None) -> None:
    head = Head()
    head.take(b"HTTP/1.1 200 OK\r\n")
    head.take(b"Content-Length: " + text.encode() + b"\r\n")
    assert head.length == length
