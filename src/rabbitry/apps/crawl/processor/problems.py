"""The problem of a page that can't be read."""

from __future__ import annotations


class Problem(Exception):
    """A page can't be read. outcome: a word of `OUTCOMES`; detail: one line for people."""

    def __init__(self, outcome: str, detail: str) -> None:
        super().__init__(outcome, detail)
        self.outcome = outcome
        self.detail = detail
