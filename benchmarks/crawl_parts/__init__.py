"""The parts of the crawl's benchmark."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One measure: its value and its target."""

    measure: str
    value: str
    target: str = ""
