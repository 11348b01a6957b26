"""The parts of the crawl's benchmark."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One measure: its value, and what was to be reached."""

    measure: str
    value: str
    target: str = ""
