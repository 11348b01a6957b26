"""Addresses of links."""

from __future__ import annotations

import pytest

from rabbitry.apps.crawl.processor import addresses
from rabbitry.apps.crawl.processor.addresses import Base, normalised

PAGE = "http://Example.com:80/a/b/../c?x#f"


@pytest.mark.parametrize(
    ("link", "address"),
    [
        ("../d", "http://example.com/d"),
        ("e", "http://example.com/a/e"),
        ("?q=1", "http://example.com/a/c?q=1"),
        ("", "http://example.com/a/c?x"),
        ("#part", "http://example.com/a/c?x"),
        ("/f#part", "http://example.com/f"),
        ("//other.com/g", "http://other.com/g"),
        ("HTTPS://EX.com:443/%7e/ä", "https://ex.com/%7e/%C3%A4"),
        ("  /a b\t\n c ", "http://example.com/a%20b%20c"),
        ("\\\\host\\path", "http://host/path"),
        ("http:x", "http://example.com/a/x"),
        ("http://[::1]:80/", "http://[::1]/"),
        ("http://0x7f.1/", "http://127.0.0.1/"),
        ("https://bücher.example/", "https://xn--bcher-kva.example/"),
        ("javascript:alert(1)", None),
        ("mailto:a@b.example", None),
        ("data:text/html,x", None),
        ("ftp://host/", None),
        ("http://", None),
        ("http://ex ample/", None),
        ("http://host:99999/", None),
        ("\ud800", None),
    ],
)
def test_a_link_is_joined_and_normalised(link: str, address: str | None) -> None:
    base = Base(PAGE)
    assert base.join(link) == address
    assert base.join(link) == address  # also from the cache


def test_a_page_without_an_address_has_absolute_links_alone() -> None:
    base = Base("")
    assert base.join("/x") is None
    assert base.join("x") is None
    assert base.join("http://host") == "http://host/"


def test_a_query_is_encoded_as_the_page_is() -> None:
    assert Base(PAGE, "windows-1252").join("/x?é=ü%20") == "http://example.com/x?%E9=%FC%20"
    assert Base(PAGE, "windows-1252").join("/x?☃") == "http://example.com/x?%26%239731%3B"
    assert Base(PAGE, "windows-1252").join("/é?a") == "http://example.com/%C3%A9?a"
    assert Base(PAGE, "x-mac-cyrillic").join("?Я") == "http://example.com/a/c?%9F"
    assert Base(PAGE, "utf-16le").join("/x?é") == "http://example.com/x?%C3%A9"


def test_the_same_link_of_another_origin_is_another_address() -> None:
    assert Base("http://a.example/1").join("/x") == "http://a.example/x"
    assert Base("https://a.example/1").join("/x") == "https://a.example/x"
    assert Base("http://a.example:81/1").join("/x") == "http://a.example:81/x"


def test_the_cache_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    known = addresses._Known(10)
    monkeypatch.setattr(addresses, "known", known)
    for number in range(100):
        base = Base(f"http://host{number % 7}.example/")
        assert base.join(f"/{number}") == f"http://host{number % 7}.example/{number}"
        assert base.join("/" + "x" * 100_000) == f"http://host{number % 7}.example/" + "x" * 100_000
        assert base.join(f"http://other.example/{number}#a") == f"http://other.example/{number}"
        kept = [link for links in known._origins.values() for link in links]
        assert len(kept) + len(known._origins) <= 10
        assert all(len(link) < 30 for link in kept)


def test_links_joined_together_equal_links_joined_one_by_one() -> None:
    links = [
        "/a",
        "b",
        "",
        "http:c",
        "http://[::1",
        "//d.example/",
        "mailto:x",
        "https://e.example:443/é#f",
        " /a",
        "/a",
    ]
    addresses.known.forget()
    for _ in range(2):  # computed anew, then cached
        for page in ("http://site.example/x/", "https://other.example/", "", "http://site.example/y/"):
            base = Base(page)
            assert base.join_all(links) == [base.join(link) for link in links]
            expected = [addresses._joined(base.url, link.partition("#")[0].strip()) for link in links]
            assert base.join_all(links) == expected


def test_an_address_is_normalised() -> None:
    assert normalised(" HTTP://A.example:80/./b?c#d") == "http://a.example/b?c"
    assert normalised("/b") is None
    assert normalised("file:///etc/passwd") is None
