"""Names of outcomes, and valid contacts."""

import re
from pathlib import Path

import pytest

from rabbitry.apps.crawl.keeper.outcomes import NUMBERS
from rabbitry.apps.crawl.messages import OUTCOMES, is_contact

DOCS = Path(__file__).parents[3] / "docs" / "crawl.md"


def test_the_documentation_has_each_outcome_with_its_meaning() -> None:
    section = DOCS.read_text().partition("\n## Outcomes\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([a-z-]+)` \| (.+) \|$", section, re.MULTILINE)
    assert dict(rows) == OUTCOMES


def test_each_outcome_has_a_number_of_its_own_in_the_database() -> None:
    assert NUMBERS.keys() == OUTCOMES.keys()
    assert len(set(NUMBERS.values())) == len(NUMBERS)


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("me@example.org", True),
        ("mailto:crawl+x@example.org", True),
        ("https://example.org", True),
        ("HTTP://example.org/~me/crawler?about=us#top", True),
        ("bla", False),
        ("", False),
        (" me@example.org", False),
        ("me@", False),
        ("@example.org", False),
        ("me@example.org\n", False),
        ("me@example.org (owner)", False),
        ("m\u00e9@example.org", False),
        ("https://", False),
        ("ftp://example.org/", False),
        ("example.org", False),
    ],
)
def test_a_contact_is_a_mail_address_or_the_url_of_a_page(text: str, is_one: bool) -> None:
    assert is_contact(text) is is_one
