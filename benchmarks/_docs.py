"""Writing figures into docs/performance.md, between marks."""

from pathlib import Path
from typing import Final

DOCS: Final = Path(__file__).parent.parent / "docs"


def write_table(target: str, table: str) -> None:
    """Put a table between the marks of a make target. Raises RuntimeError if the page has no marks."""
    page = DOCS / "performance.md"
    before, begin, rest = page.read_text().partition(f"<!-- make {target} writes from here -->\n")
    _, end, after = rest.partition("<!-- to here -->\n")
    if not begin or not end:
        raise RuntimeError(f"{page} has no marks for {target}")
    page.write_text(f"{before}{begin}\n{table}\n\n{end}{after}")
