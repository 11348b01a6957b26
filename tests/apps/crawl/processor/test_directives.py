"""Directives for robots, and Link headers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rabbitry.apps.crawl.processor.directives import Directives, links_of_headers, of_headers, of_meta

NOTHING, BOTH = Directives(), Directives(True, True)
NOINDEX, NOFOLLOW = Directives(True, False), Directives(False, True)


@pytest.mark.parametrize(
    ("content", "directives"),
    [
        ("noindex", NOINDEX),
        ("NoFollow", NOFOLLOW),
        ("noindex,nofollow", BOTH),
        (" noindex , nofollow", BOTH),
        ("none", BOTH),
        ("all", NOTHING),
        ("index, follow", NOTHING),
        ("noindexed", NOTHING),
        ("max-snippet:-1, noindex", NOINDEX),
        ("", NOTHING),
    ],
)
def test_a_meta_tag_is_read(content: str, directives: Directives) -> None:
    assert of_meta(content) == directives


@pytest.mark.parametrize(
    ("lines", "directives"),
    [
        (["noindex"], NOINDEX),
        (["noindex, nofollow"], BOTH),
        (["none"], BOTH),
        (["noindex", "nofollow"], BOTH),
        (["rabbitry: noindex"], NOINDEX),
        (["Rabbitry : none"], BOTH),
        (["*: nofollow"], NOFOLLOW),
        (["googlebot: noindex, nofollow"], NOTHING),
        (["googlebot: noindex, rabbitry: nofollow"], NOFOLLOW),
        (["nofollow, otherbot: noindex"], NOFOLLOW),
        (["otherbot: noindex", "nofollow"], NOFOLLOW),
        (["unavailable_after: 25 Jun 2030 15:00:00 PST, noindex"], NOINDEX),
        (["max-image-preview: none"], NOTHING),
        (["max-snippet:-1, nofollow"], NOFOLLOW),
        ([], NOTHING),
        ([""], NOTHING),
    ],
)
def test_a_header_is_read(lines: list[str], directives: Directives) -> None:
    assert of_headers(lines) == directives


@pytest.mark.parametrize(
    ("line", "links"),
    [
        ('<https://a.example/b>; rel="canonical"', [("canonical", "https://a.example/b")]),
        ("</b>; rel=canonical", [("canonical", "/b")]),
        ('</b>; title="a, <c>; rel=no"; REL="Next"', [("next", "/b")]),
        ("</a>; rel=prev, </c>; rel=next", [("prev", "/a"), ("next", "/c")]),
        ("</a>", []),
        ("rel=canonical", []),
        ("<" * 100_000, []),
        ("<a>;" * 20_000, []),
    ],
)
def test_a_link_header_is_read(line: str, links: list[tuple[str, str]]) -> None:
    assert links_of_headers([line]) == links


@given(st.lists(st.text()))
def test_any_headers_are_read(lines: list[str]) -> None:
    of_headers(lines)
    links_of_headers(lines)
