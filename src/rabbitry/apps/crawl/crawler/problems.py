"""Why an address could not be had."""

from __future__ import annotations

from typing import Final


class Problem(Exception):
    """An outcome other than an answer: a word of `OUTCOMES`, and a line for people."""

    def __init__(self, outcome: str, detail: str) -> None:
        super().__init__(outcome, detail)
        self.outcome: Final = outcome
        self.detail: Final = detail
