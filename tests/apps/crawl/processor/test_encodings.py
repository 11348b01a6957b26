"""Encodings of pages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rabbitry.apps.crawl.processor.encodings import charset_of, declared_encoding, decode

RUSSIAN = "Привет, это обычная страница на русском языке, которая рассказывает о погоде и новостях."
JAPANESE = "これは日本語のページです。天気予報とニュースについて書いてあります。"
TEXTS = [
    ("windows-1251", "windows-1251", RUSSIAN),
    ("koi8-r", "koi8-r", RUSSIAN),
    ("shift_jis", "shift_jis", JAPANESE),
    ("euc-jp", "euc-jp", JAPANESE),
    ("gb18030", "gb18030", "这是一个中文网页，介绍天气预报和新闻。今天的天气很好。"),
    ("big5", "big5", "這是一個中文網頁，介紹天氣預報和新聞。今天的天氣很好。"),
    ("cp949", "euc-kr", "이것은 한국어 페이지입니다. 날씨와 뉴스에 대해 설명합니다."),
    ("windows-1252", "windows-1252", "Der Übergang über die Brücke ist möglich, aber schön ist es nicht."),
    ("windows-1255", "windows-1255", "זהו דף בעברית על מזג האוויר ועל החדשות של היום"),
    ("cp874", "windows-874", "นี่คือหน้าเว็บภาษาไทยเกี่ยวกับสภาพอากาศและข่าวสาร"),
    ("utf-8", "utf-8", "schön 日本"),
    ("iso-2022-jp", "iso-2022-jp", JAPANESE),
    ("utf-16-le", "utf-16le", JAPANESE),
    ("utf-16-be", "utf-16be", RUSSIAN),
]


@pytest.mark.parametrize(("codec", "name", "text"), TEXTS)
def test_an_undeclared_encoding_is_guessed(codec: str, name: str, text: str) -> None:
    page = f"<html><head><title>x</title></head><body class='a b'><p>{text}</p></body></html>"
    decoded = decode(page.encode(codec))
    assert decoded.encoding == name
    assert decoded.text == page


@pytest.mark.parametrize(
    ("head", "name"),
    [
        ("<meta charset=iso-8859-1>", "windows-1252"),
        ("<META CHARSET='latin1'>", "windows-1252"),
        ("<meta charset=us-ascii>", "windows-1252"),
        ("<meta charset=utf-16>", "utf-8"),
        ("<meta charset=utf-16be>", "utf-8"),
        ("<meta charset='  GB2312 '>", "gbk"),
        ("<meta charset=x-user-defined>", "windows-1252"),
        ("<meta/charset=big5>", "big5"),
        ("<meta http-equiv=Content-Type content='text/html; charset=koi8-r'>", "koi8-r"),
        ("<meta content='text/html; charset=\"gbk\"' http-equiv='content-type'/>", "gbk"),
        ("<meta name=x content='text/html; charset=gbk'>", None),
        ("<meta charset=nonsense><meta charset=euc-kr>", "euc-kr"),
        ("<meta charset=utf-7>", None),
        ("<meta charset>", None),
        ("<metadata charset=gbk>", None),
        ("<!-- <meta charset=gbk> --><meta charset=big5>", "big5"),
        ("<!--><meta charset=big5>", "big5"),
        ("<!-- <meta charset=gbk>", None),
        ("<a title='<meta charset=gbk>'>", None),
        ("<?xml version='1.0' encoding='iso-8859-15'?><html/>", "iso-8859-15"),
        (" " * 1010 + "<meta charset=gbk>", None),
        ("<" * 2000, None),
    ],
)
def test_a_declaration_is_read_as_in_the_standard(head: str, name: str | None) -> None:
    assert declared_encoding(head.encode()) == name


@pytest.mark.parametrize(
    ("content_type", "name"),
    [
        ("text/html; charset=UTF-8", "utf-8"),
        ('text/html;Charset = "ISO-8859-1"', "windows-1252"),
        ("text/html; charset='shift-jis'; x=y", "shift_jis"),
        ("text/html; charset=nonsense", None),
        ("text/html", None),
        ("", None),
        (None, None),
    ],
)
def test_the_header_names_a_charset(content_type: str | None, name: str | None) -> None:
    assert charset_of(content_type) == name


def test_a_byte_order_mark_comes_before_the_header_and_the_header_before_meta() -> None:
    page = "<meta charset=koi8-r>ä"
    assert decode("\ufeffä".encode("utf-16-le"), "text/html; charset=utf-8") == ("ä", "utf-16le")
    assert decode("\ufeffä".encode("utf-16-be"), "text/html; charset=utf-8") == ("ä", "utf-16be")
    assert decode("\ufeffä".encode(), "text/html; charset=koi8-r") == ("ä", "utf-8")
    assert decode(page.encode("cp1252"), "text/html; charset=latin1") == (page, "windows-1252")
    assert decode(page.encode("cp1252"), "text/html; charset=nonsense").encoding == "koi8-r"


def test_utf_16_is_known_by_its_header_or_its_xml_declaration() -> None:
    assert decode("aß".encode("utf-16-le"), "text/html; charset=utf-16") == ("aß", "utf-16le")
    assert decode("<?xml?><a/>".encode("utf-16-be")) == ("<?xml?><a/>", "utf-16be")


@pytest.mark.parametrize(
    ("body", "content_type", "text"),
    [
        ("é!".encode("latin-1"), "text/html; charset=utf-8", "\ufffd!"),
        (b"a\0b\0\xd8", "text/html; charset=utf-16", "ab\ufffd"),
        (b"\xffa", "text/html; charset=us-ascii", "ÿa"),
        (b"\x1b$B\xff", "text/html; charset=iso-2022-jp", None),
        (b"abc", "text/html; charset=iso-2022-kr", "\ufffd"),  # the standard's "replacement"
        ("€".encode("gb18030"), "text/html; charset=gb2312", "€"),
    ],
)
def test_a_wrong_encoding_gives_replacement_characters(body: bytes, content_type: str, text: str | None) -> None:
    decoded = decode(body, content_type).text
    assert decoded == text if text is not None else "\ufffd" in decoded


@given(st.binary(max_size=3000), st.one_of(st.none(), st.text(max_size=40), st.sampled_from(["text/html; charset=hz"])))
def test_any_bytes_are_decoded(body: bytes, content_type: str | None) -> None:
    decode(body, content_type).text.encode()
