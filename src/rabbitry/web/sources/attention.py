"""The topic `attention`: the problems that several sources find."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from rabbitry.web.feed.topics import Value

MOST: Final = 100
"""Problems of one source that are shown; the bad ones come first."""


class Attention(Value):
    """The topic `attention`: title → `bad`, `what` and `todo`."""

    def __init__(self) -> None:
        super().__init__()
        self._found: dict[str, tuple[float, Mapping[str, dict[str, Any]]]] = {}

    def tell(self, source: str, found: Mapping[str, dict[str, Any]], at: float) -> None:
        """Replace the problems of one source. The topic is as old as the oldest source's problems are.

        Args:
            source: The source's name.
            found: Title → `bad`, `what` and `todo`.
            at: Unix time in seconds.
        """
        first = sorted(found, key=lambda title: not found[title]["bad"])[:MOST]
        self._found[source] = at, {title: found[title] for title in first}
        oldest = min(at for at, _ in self._found.values())
        self.put({title: one for _, some in self._found.values() for title, one in some.items()}, oldest)
