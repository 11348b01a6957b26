"""Addresses in normal form, their keys, and the scopes of crawls."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rabbitry.apps.crawl.keeper.addresses import BadAddress, host_key, host_name, may_be_public, parse
from rabbitry.apps.crawl.keeper.scope import Crawl, domain


@pytest.mark.parametrize(
    ("given_", "wanted"),
    [
        ("http://a.test", "http://a.test/"),
        ("HTTP://A.Test:80/", "http://a.test/"),
        ("https://a.test:443/x", "https://a.test/x"),
        ("http://a.test:443/x", "http://a.test:443/x"),
        ("http://a.test./x", "http://a.test/x"),
        ("http://a.test/a/./b/../c", "http://a.test/a/c"),
        ("http://a.test/%7euser/%2f%C3%a9", "http://a.test/~user/%2F%C3%A9"),
        ("http://a.test/é?ö", "http://a.test/%C3%A9?%C3%B6"),
        ("http://a.test/?", "http://a.test/"),
        ("http://a.test/x?#part", "http://a.test/x"),
        ("http://a.test/x#part?no=query", "http://a.test/x"),
        ("http://user:secret@a.test/", "http://a.test/"),
        ("http://bücher.test/", "http://xn--bcher-kva.test/"),
        ("http://0x7f.1/", "http://127.0.0.1/"),
        ("http://2130706433/", "http://127.0.0.1/"),
        ("http://[0:0::1]:8080/", "http://[::1]:8080/"),
        ("http:\\\\a.test\\x", "http://a.test/x"),
        ("  http://a.test/x\n", "http://a.test/x"),
        ("http://a.test/x y", "http://a.test/x%20y"),
        ("http://a.test/.well-known/x", "http://a.test/.well-known/x"),
        ("http://a.test/a//b", "http://a.test/a//b"),
    ],
)
def test_an_address_has_one_normal_form(given_: str, wanted: str) -> None:
    assert parse(given_).url == wanted
    assert parse(wanted).url == wanted
    assert parse(given_).key == parse(wanted).key


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "bad-address"),
        ("nonsense", "bad-address"),
        ("//a.test/", "bad-address"),
        ("http://", "bad-address"),
        ("http://a b/", "bad-address"),
        ("http://a.test:99999/", "bad-address"),
        ("http://[::1/", "bad-address"),
        ("http://a.test:25/", "bad-address"),
        ("http://[::1]:6667/", "bad-address"),
        ("http://A.test.:22/%7e", "bad-address"),
        ("ftp://a.test/", "bad-scheme"),
        ("mailto:me@a.test", "bad-scheme"),
        ("javascript:alert(1)", "bad-scheme"),
        ("data:text/html,x", "bad-scheme"),
        ("file:///etc/passwd", "bad-scheme"),
        ("http://a.test/" + "x" * 2000, "too-long"),
        ("http://a.test/" + "é" * 700, "too-long"),
    ],
)
def test_addresses_that_can_not_be_fetched_are_refused_with_the_reason(text: str, word: str) -> None:
    with pytest.raises(BadAddress) as caught:
        parse(text)
    assert caught.value.word == word
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)


@given(st.text(max_size=60))
def test_no_text_breaks_the_parser(text: str) -> None:
    for full in (text, f"http://{text}", f"http://a.test/{text}"):
        try:
            address = parse(full)
        except BadAddress:
            continue
        assert parse(address.url) == address
        assert address.url.isascii()
        assert re.match(r"https?://[^/?#]+/[^#]*$", address.url)
        assert -(1 << 63) <= address.key < 1 << 63


def test_a_hosts_keys_are_together() -> None:
    keys = [parse(f"http://a.test/{number}").key >> 44 for number in range(100)]
    assert len(set(keys)) == 1
    assert parse("https://a.test/").key >> 44 == keys[0]
    assert parse("http://b.test/").key >> 44 != keys[0]


def test_http_and_https_of_a_host_share_its_turn() -> None:
    assert parse("http://a.test/").host == parse("https://a.test/").host == "a.test"
    assert parse("http://a.test:8080/").host == "a.test:8080"


@pytest.mark.parametrize(
    ("host", "is_public"),
    [
        ("example.com", True),
        ("8.8.8.8", True),
        ("8.8.8.8:8080", True),
        ("127.0.0.1:80", False),
        ("10.1.2.3", False),
        ("[::1]:80", False),
        ("169.254.169.254", False),
        ("localhost:8000", False),
        ("a.test", False),
        ("printer.local", False),
    ],
)
def test_public_hosts_are_recognized_by_name(host: str, is_public: bool) -> None:
    assert may_be_public(host) is is_public


def test_ports_are_no_part_of_a_hosts_name() -> None:
    assert host_name("a.test:80") == "a.test"
    assert host_name("[::1]") == "[::1]"
    assert host_name("[::1]:80") == "[::1]"


def test_a_domain_is_given_in_any_spelling() -> None:
    assert domain(" *.Example.ORG. ") == "example.org"
    assert domain("bücher.test") == "xn--bcher-kva.test"
    for text in ("", "http://a.test/", "a b", "me@a.test"):
        with pytest.raises(BadAddress):
            domain(text)


def test_a_crawl_goes_further_by_depth_or_by_scope() -> None:
    def crawl(depth: int | None = None, hosts: list[str] | None = None, allow: list[str] | None = None) -> Crawl:
        return Crawl(1, 0.0, [], depth, hosts, allow)

    assert crawl(depth=5).goes_further(crawl(depth=3), 0, 0)
    assert crawl().goes_further(crawl(depth=3), 0, 0)
    assert not crawl(depth=5).goes_further(crawl(depth=5), 2, 1)
    assert not crawl(depth=5).goes_further(crawl(), 0, 9)
    assert crawl().goes_further(crawl(hosts=["a.test"]), 0, 0)
    assert not crawl(hosts=["a.test"]).goes_further(crawl(), 0, 0)
    assert not crawl(hosts=["a.test"]).goes_further(crawl(hosts=["a.test", "b.test"]), 0, 0)
    assert crawl(hosts=["a.test", "c.test"]).goes_further(crawl(hosts=["a.test", "b.test"]), 0, 0)


def test_a_text_has_a_key_for_each_host() -> None:
    keys = {host_key(f"h{number}.test", text) for number in range(10_000) for text in ("", "/", "/#")}
    assert len(keys) == 30_000
    assert len({key >> 44 for key in keys}) <= 4_096, "a host's addresses are no longer together"
