"""Groups of dead letters, and the selection that a request names."""

from __future__ import annotations

import hashlib
import re
from typing import Any, Final

import msgspec

from rabbitry.exceptions import UsageError
from rabbitry.flow.wiring.dead_letters import DeadLetter
from rabbitry.telemetry import Masking

MARKED: Final = 256
"""The first bytes of a body, which tell dead letters without an id apart."""
MOST_GROUPS: Final = 200
"""Groups that are told apart; the dead letters of further ones are only counted."""
_LONGEST_KIND: Final = 300
"""Characters of an error's first line by which dead letters are grouped."""
# Addresses, ids and numbers differ between errors of one kind. A word of letters alone is no id.
_VARIABLE: Final = re.compile(r"\b0x[0-9a-f]+\b|\b[0-9a-f][0-9a-f-]{7,}\b|\d+", re.IGNORECASE)
_DIGIT: Final = re.compile(r"\d")


def readable(text: str) -> str:
    """Return text from the wire for JSON, however it came here: bytes that are no UTF-8 become question marks."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def kind_of(error: str, masking: Masking) -> str:
    """Return the first line of an error, masked, with `#` in place of numbers and ids."""
    first, *_ = error.strip().splitlines() or [""]
    return readable(_VARIABLE.sub(_shortened, masking.text(first[:_LONGEST_KIND])))


def _shortened(found: re.Match[str]) -> str:
    """Return `#` for a number or an id, and a word of letters as it is."""
    return "#" if _DIGIT.search(found[0]) else found[0]


def mark_of(letter: DeadLetter, size: int) -> str:
    """Return what tells a dead letter from others; only copies of one message have the same.

    Args:
        letter: The dead letter; at least the first MARKED bytes of its body.
        size: Bytes of the whole body.
    """
    parts = (letter.id, letter.failed_at, letter.node, letter.stage, letter.reason, letter.queue, str(size))
    digest = hashlib.blake2b(readable("\0".join(parts)).encode(), digest_size=12)
    digest.update(letter.body[:MARKED])
    return digest.hexdigest()


class Group:
    """Dead letters of one stage, reason and kind of error.

    Attributes:
        stage: Where they failed.
        reason: Why they are dead letters.
        kind: The kind of their error, see `kind_of`.
        example: The error of the first one.
        count: How many there are.
        first: When the first one failed, as it says itself.
        last: When the last one failed.
    """

    def __init__(self, letter: DeadLetter, masking: Masking) -> None:
        self.stage: str = readable(letter.stage)
        self.reason: str = readable(letter.reason)
        self.kind: str = kind_of(letter.error, masking)
        self.example: str = masking.lines(readable(letter.error))
        self.count: int = 0
        self.first: str = readable(letter.failed_at)
        self.last: str = self.first

    def add(self, letter: DeadLetter) -> None:
        """Count one."""
        self.count += 1
        at = readable(letter.failed_at)
        self.first, self.last = min(self.first, at), max(self.last, at)

    def shown(self) -> dict[str, Any]:
        """Return what a page shows."""
        return {name: getattr(self, name) for name in ("stage", "reason", "kind", "example", "count", "first", "last")}


class Groups:
    """The groups of the dead letters that were added. others: dead letters of groups beyond MOST_GROUPS."""

    def __init__(self, masking: Masking) -> None:
        self._masking = masking
        self._groups: dict[tuple[str, str, str], Group] = {}
        self.others: int = 0

    def add(self, letter: DeadLetter) -> None:
        """Add a dead letter to its group."""
        key = (letter.stage, letter.reason, kind_of(letter.error, self._masking))
        group = self._groups.get(key)
        if group is None:
            if len(self._groups) >= MOST_GROUPS:
                self.others += 1
                return
            group = self._groups[key] = Group(letter, self._masking)
        group.add(letter)

    def shown(self) -> list[dict[str, Any]]:
        """Return the groups, the largest first."""
        return [group.shown() for group in sorted(self._groups.values(), key=lambda group: -group.count)]


class App(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An app whose dead letters a request is about."""

    vhost: str
    app: str

    def __post_init__(self) -> None:
        """Raise ValueError for no app, which msgspec turns into its error."""
        if not self.app:
            raise ValueError("app is empty")


class Selection(App, frozen=True, forbid_unknown_fields=True):
    """Dead letters of an app: all of them, a group (stage, reason and kind), or a single one by its mark."""

    everything: bool = False
    stage: str | None = None
    reason: str | None = None
    kind: str | None = None
    mark: str | None = None

    def check(self) -> None:
        """Raise UsageError unless it is one of the three. Choosing all must be explicit."""
        group = (self.stage, self.reason, self.kind)
        is_group = None not in group
        if [self.everything, is_group, self.mark is not None].count(True) != 1 or (
            not is_group and group != (None, None, None)
        ):
            raise UsageError(
                "select dead letters in one way: `everything`, a group (stage, reason and kind), or a `mark`"
            )

    def takes(self, letter: DeadLetter, size: int, masking: Masking) -> bool:
        """Return whether a dead letter is selected; `size` is that of its whole body."""
        if self.mark is not None:
            return mark_of(letter, size) == self.mark
        return self.everything or (
            readable(letter.stage) == self.stage
            and readable(letter.reason) == self.reason
            and kind_of(letter.error, masking) == self.kind
        )

    def __str__(self) -> str:
        """Return what is selected, in words."""
        if self.mark is not None:
            return "one"
        return "all" if self.everything else f"of stage {self.stage or '(none)'}, {self.reason}: {self.kind}"
