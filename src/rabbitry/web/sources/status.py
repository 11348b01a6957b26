"""The state of a source, as every page shows it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

from rabbitry.web.feed.topics import Value

SourceState: TypeAlias = Literal["idle", "connecting", "live", "away", "refused", "missing"]
"""`idle` while no page asks; `away` will be tried again; `missing` too, but something has to be done first."""


class Status:
    """The state of one source, a member of the topic `sources`.

    Args:
        topic: The topic.
        name: The member's name.
        title: What the source is, for people.
        clock: Returns Unix seconds.
    """

    def __init__(self, topic: Value, name: str, title: str, clock: Callable[[], float] = time.time) -> None:
        self._topic = topic
        self._name = name
        self._clock = clock
        self._told: dict[str, Any] = {}
        self._shown = {"title": title, "state": "idle", "since": clock(), "at": None, "where": ""}
        self._put()

    @property
    def state(self) -> str:
        """The state now."""
        return str(self._shown["state"])

    def tell(self, state: SourceState, *, reason: str = "", todo: str = "", **more: object) -> None:
        """Change the state.

        Args:
            state: The new one.
            reason: Why it is so, if it is not live.
            todo: What helps.
            more: Further members: `where`, `took` (seconds of the last answer), `every` (seconds between answers).
        """
        now = self._clock()
        since = self._shown["since"] if state == self._shown["state"] else now
        kept = {name: value for name, value in self._shown.items() if name not in ("reason", "todo")}
        told = {name: value for name, value in (("reason", reason), ("todo", todo)) if value}
        self._shown = kept | more | told | {"state": state, "since": since}
        if state == "live":
            self._shown["at"] = now
        self._put()

    def _put(self) -> None:
        self._topic.put({**self._topic.value, self._name: self._shown}, self._clock())
