"""The words for outcomes."""

import re
from pathlib import Path

from rabbitry.apps.crawl.keeper.outcomes import NUMBERS
from rabbitry.apps.crawl.messages import OUTCOMES

DOCS = Path(__file__).parents[3] / "docs" / "crawl.md"


def test_the_documentation_has_each_outcome_with_its_meaning() -> None:
    section = DOCS.read_text().partition("\n## Outcomes\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([a-z-]+)` \| (.+) \|$", section, re.MULTILINE)
    assert dict(rows) == OUTCOMES


def test_each_outcome_has_a_number_of_its_own_in_the_database() -> None:
    assert NUMBERS.keys() == OUTCOMES.keys()
    assert len(set(NUMBERS.values())) == len(NUMBERS)
