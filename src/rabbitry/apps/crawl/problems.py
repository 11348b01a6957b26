"""The outcome of an address that could not be fetched, or a page that could not be read, as an exception."""

from __future__ import annotations

from typing import Final

from rabbitry.exceptions import RabbitryError


class Problem(RabbitryError):
    """An address could not be fetched or a page not read. outcome: a word of `OUTCOMES`. detail: a readable line."""

    def __init__(self, outcome: str, detail: str) -> None:
        super().__init__(outcome, detail)
        self.outcome: Final = outcome
        self.detail: Final = detail
