"""Extracting text, links and metadata from HTML pages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rabbitry.apps.crawl.processor.addresses import LONGEST, MOST_LONG
from rabbitry.apps.crawl.processor.directives import Directives
from rabbitry.apps.crawl.processor.html import LONGEST_TEXT, MOST_LETTERS, MOST_LINKS, read_html

URL = "http://site.example/dir/page"
ARTICLE = """<!DOCTYPE html>
<html lang="en-GB"><head><meta charset="utf-8"><title>
  Otters &amp;   rivers</title>
<link rel="canonical" href="/otters"><link rel="next" href="2"><link rel="alternate" hreflang="de" href="/de/otter">
<link rel="alternate stylesheet" href="/a.css"><link rel="alternate" type="application/json+oembed" href="/o.json">
<link rel="alternate" type="application/rss+xml" href="/feed.xml"><link rel=icon href=/i.png>
<script>document.write('<a href="/from-script">x</a>')</script><style>a { color: red }</style></head>
<body><nav><ul><li><a href="/">Home</a></li><li><a href="/about#team">About us</a></li></ul></nav>
<main><article><h1>Otters</h1><p>The otter lives at the <a href="river.html">river</a> and eats fish, all day long, and
at night it sleeps in a den that it digs into the bank of the river, among the roots of old trees.</p>
<p>In winter it makes a hole in the <a href="https://ice.example/?a=1&amp;b=2#x">ice</a>.
<a href="/about">About</a> <a rel="external NoFollow" href="/ad">ad</a> <a href="mailto:otter@site.example">write</a>
<map><area href="/area"></map><iframe src="/frame"></iframe></p></article></main>
<footer><p>Copyright</p></footer><template><a href="/template">t</a></template></body></html>"""


def test_a_page_is_read() -> None:
    found = read_html(ARTICLE, URL)
    assert found.title == "Otters & rivers"
    assert found.language == "en-GB"
    assert found.canonical == "http://site.example/otters"
    assert found.directives == Directives()
    assert found.links == [
        "http://site.example/dir/2",
        "http://site.example/de/otter",
        "http://site.example/feed.xml",
        "http://site.example/",
        "http://site.example/about",
        "http://site.example/dir/river.html",
        "https://ice.example/?a=1&b=2",
        "http://site.example/area",
        "http://site.example/frame",
    ]
    assert found.cut == 0
    assert "digs into the bank" in found.text
    assert "color: red" not in found.text
    assert "Copyright" not in found.text


@pytest.mark.parametrize(
    ("base", "link"),
    [
        ("<base href='http://other.example/x/'>", "http://other.example/x/a"),
        ("<base href='/y/'>", "http://site.example/y/a"),
        ("<base target=_top><base href='/y/'><base href='/z/'>", "http://site.example/y/a"),
        ("<base href='javascript:x'>", "http://site.example/dir/a"),
        ("<base href='http://['>", "http://site.example/dir/a"),
    ],
)
def test_links_are_relative_to_the_base(base: str, link: str) -> None:
    assert read_html(f"<link rel=next href=a>{base}<a href=a>", URL).links == [link]


def test_only_absolute_links_are_kept_if_the_address_is_unknown() -> None:
    assert read_html("<a href=/x><a href=http://a.example>", "").links == ["http://a.example/"]
    assert read_html("<base href=http://a.example><a href=x>", "").links == ["http://a.example/x"]


@pytest.mark.parametrize(
    ("head", "directives"),
    [
        ("<meta name=robots content=noindex>", Directives(noindex=True)),
        ("<META NAME='Robots' CONTENT='NOFOLLOW'>", Directives(nofollow=True)),
        ("<meta name=rabbitry content=none>", Directives(True, True)),
        ("<meta name=robots content=noindex><meta name=rabbitry content=nofollow>", Directives(True, True)),
        ("<meta name=googlebot content=none>", Directives()),
        ("<meta property=robots content=none>", Directives()),
    ],
)
def test_the_meta_tags_for_robots_are_read(head: str, directives: Directives) -> None:
    assert read_html(head, URL).directives == directives


@pytest.mark.parametrize(
    ("content", "links"),
    [
        ("0;url=/next", ["http://site.example/next"]),
        ("5; URL='next'", ["http://site.example/dir/next"]),
        ("0, /next", ["http://site.example/next"]),
        ("30", []),
        ("", []),
    ],
)
def test_a_refresh_is_a_link(content: str, links: list[str]) -> None:
    assert read_html(f'<meta http-equiv=refresh content="{content}">', URL).links == links


@pytest.mark.parametrize(
    ("page", "title"),
    [
        ("<title>a</title><title>b</title>", "a"),
        ("<svg><title>drawing</title></svg><h1>Heading</h1>", "Heading"),
        ("<h1>A <b>heading</b></h1>", "A heading"),
        ("<title> </title><h1>Heading</h1>", "Heading"),
        ("<title>" + "x" * 100_000, "x" * 500),
        ("no title", ""),
    ],
)
def test_the_title_is_read(page: str, title: str) -> None:
    assert read_html(page, URL).title == title


def test_links_are_bounded_in_number_and_length() -> None:
    page = "".join(f"<a href=/{number}>" for number in range(MOST_LINKS + 10)) + "<a href=/0>"
    found = read_html(page, URL)
    assert len(found.links) == MOST_LINKS
    assert found.cut == 10


def test_links_relative_to_a_long_address_do_not_multiply_it_without_bound() -> None:
    base = f"http://site.example/{'x' * 1_900}/"
    count = 2 * MOST_LETTERS // len(base)
    found = read_html("".join(f"<a href={number}>" for number in range(count)), base)
    assert MOST_LETTERS - 2_000 < sum(map(len, found.links)) <= MOST_LETTERS
    assert found.cut == count - len(found.links)


def test_a_link_that_is_too_long_is_cut_so_that_it_stays_too_long() -> None:
    page = f"<a href=/{'x' * 100_000}><a href=/y><a href=/{'x' * 90_000}>"
    found = read_html(page, URL)
    long, short = found.links
    assert (len(long), short, found.cut) == (LONGEST + 1, "http://site.example/y", 0)
    many = "".join(f"<a href=/{number}{'x' * 3_000}>" for number in range(MOST_LONG + 5)) + "<a href=/y>"
    found = read_html(many, URL)
    assert (len(found.links), found.links[-1], found.cut) == (MOST_LONG + 1, "http://site.example/y", 5)


def test_empty_elements_of_xhtml_have_no_content() -> None:
    head = '<html xmlns="http://www.w3.org/1999/xhtml" xml:lang="de"><head><script src="a.js"/><title>x</title></head>'
    page = f'{head}<body><a href="y"/></body></html>'
    found = read_html(page, URL, is_xhtml=True)
    assert (found.title, found.links, found.language) == ("x", ["http://site.example/dir/y"], "de")
    assert read_html(page, URL).links == []


def test_a_page_without_main_text_has_all_of_its_text() -> None:
    assert "Home" in read_html("<body><nav><a href=/>Home</a> <a href=/a>About</a></nav></body>", URL).text


@pytest.mark.parametrize(
    "page",
    [
        "",
        "\0" * 100_000,
        "<" * 100_000,
        "<div>" * 100_000 + "x",
        "<a><div>" * 50_000,
        "<b><i>" * 50_000,
        "<table><tr><td>" * 30_000,
        "<ul><li>" * 50_000,
        "<p>" + "".join(f"<font color={number}>" for number in range(500)) + "<p>x" * 10_000,
        "<p " + " ".join(f"a{number}=1" for number in range(100_000)) + ">x",
        "<a href='" + "x" * 1_000_000 + "'>x</a>",
        "<p title='" + "x" * 4_000_000,
        "<!--" + "-" * 1_000_000,
        "&#xD800;&#0;&#x110000;" * 10_000,
        "<html><head></html></head><body></body><title>",
        "<a href=x" * 10_000,
        "<title><script><style><textarea>",
        "<select><option>" * 10_000,
        "<frameset><frame src=a></frameset><noframes><a href=b>",
        " " * 50_000_000,
    ],
    ids=range(20),
)
def test_a_broken_page_is_read_in_bounded_time(page: str) -> None:
    found = read_html(page, URL)
    assert len(found.text) <= LONGEST_TEXT
    found.text.encode()


_TAGS = """<a href=|<base href=|</a>|<title>|<!--|-->|<meta name=robots content=|http://|<div>|</div>|<table>|<svg>
<template>|<script>|</script>|<![CDATA[|]]>|<frameset>|<select>|<font color=1>|<p>|</p>|<html lang="""
_PIECES = st.sampled_from([*"<>/='\"&;!-#\0 \né日", *_TAGS.replace("\n", "|").split("|")])
_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)  # decoded text has no surrogates


@given(st.lists(st.one_of(_PIECES, _TEXTS)).map("".join), st.booleans())
def test_any_page_is_read(page: str, is_xhtml: bool) -> None:
    found = read_html(page, URL, is_xhtml=is_xhtml)
    assert len(set(found.links)) == len(found.links)
    for link in found.links:
        assert link.startswith(("http://", "https://"))
        assert "#" not in link


@given(st.data())
def test_a_mutated_page_is_read(data: st.DataObject) -> None:
    page = ARTICLE
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(page)))
        page = page[:at] + data.draw(_PIECES) + page[at + data.draw(st.integers(0, 60)) :]
    read_html(page, URL)
