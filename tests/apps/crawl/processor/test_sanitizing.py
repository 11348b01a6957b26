"""Pages that would cost a parser quadratic time."""

from __future__ import annotations

import re

import pytest

from rabbitry.apps.crawl.processor.sanitizing import LONGEST, sanitize


def test_an_ordinary_page_stays_as_it_is() -> None:
    page = "<!DOCTYPE html><title>x</title><p class='a b' id=c>text <b>bold</b><br><img src='a>b'></p>" * 1000
    assert sanitize(page) == page[:LONGEST]


def test_many_elements_that_are_not_nested_stay() -> None:
    page = "<table>" + "<tr><td><div><b>x</b></div>" * 10_000 + "</table>"
    assert sanitize(page) == page


@pytest.mark.parametrize("tag", ["div", "DIV", "section", "b", "x-own", "table", "button class='x'"])
def test_the_depth_is_bounded_and_what_follows_stays(tag: str) -> None:
    name = tag.split()[0]
    sanitized = sanitize(f"<{tag}>" * 100_000 + f"</{name}>" * 100_000 + f"<p><{tag}>x</{name}>")
    assert sanitized.count(f"<{name}") < 300
    assert sanitized.count(f"<{name}") == sanitized.count(f"</{name}")
    assert sanitized.endswith(f"<p><{tag}>x</{name}>")


def test_links_in_the_depth_stay() -> None:
    sanitized = sanitize("".join(f"<div><a href=/{number}>" for number in range(10_000)))
    assert len(re.findall("<a href=", sanitized)) == 10_000


@pytest.mark.parametrize("form", [" a{0}={0}", " a{0}", "/a{0}", " a{0}='{0}'", "a{0}='x > y'", ' a{0} = "{0}"\n'])
def test_the_attributes_of_a_tag_are_bounded(form: str) -> None:
    sanitized = sanitize("<p>before<p " + "".join(form.format(number) for number in range(100_000)) + " >after")
    assert len(sanitized) < 10_000
    assert sanitized.startswith("<p>before<p")
    assert sanitized.endswith(">after")


def test_one_huge_attribute_stays() -> None:
    page = (
        '<p data-x=\'{"a": "b c / d", "e": [1, 2, 3]}\'>x</p><img src="data:image/png;base64,'
        + "ab/=" * 100_000
        + '">y'
    )
    assert sanitize(page) == page
