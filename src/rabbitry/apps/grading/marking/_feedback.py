"""The feedback for a student: text of bounded length that keeps its beginning and end."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final, Self

from rabbitry._words import counted
from rabbitry.apps.grading.marking.sandbox import Outcome
from rabbitry.apps.grading.marking.scheme import exact

MAX_SHOWN: Final = 4000
"""Characters kept of a part's output."""
MAX_FEEDBACK: Final = 60_000
"""Characters of a feedback, for any number of parts."""

# Errors are at the end of an output, and their causes at the beginning.
_HEAD_LINES: Final = 5
_TAIL_LINES: Final = 10
_MAX_LINE: Final = 300
_MAX_NAME: Final = 200
_CUT: Final = "…"
_UNSEEN: Final = frozenset({"Cc", "Cf", "Co", "Cs", "Zl", "Zp"})


@dataclass(frozen=True, slots=True)
class Shown:
    """The reason that a part did not pass, and its output; each may be empty."""

    why: str
    stdout: str
    stderr: str

    @classmethod
    def of(cls, why: str | None, outcome: Outcome) -> Self:
        """Convert a command's outcome to text that can be shown."""
        return cls(_printable(why or ""), _decoded(outcome.stdout), _decoded(outcome.stderr))

    def text(self) -> str:
        """Return all of it, cut to about MAX_SHOWN characters."""
        return self._join(self._cut_to(MAX_SHOWN))

    def lines(self) -> list[str]:
        """Return the first and last lines of each text."""
        return self._join(_cut_lines(text) for text in self._cut_to(MAX_SHOWN)).split("\n")

    def _cut_to(self, most: int) -> list[str]:
        """Cut the longest of the three texts first, so that one stream does not displace another."""
        texts = [self.why, self.stdout, self.stderr]
        for number, index in enumerate(sorted(range(3), key=lambda index: len(texts[index]))):
            texts[index] = _cut(texts[index], most // (3 - number))
            most -= len(texts[index])
        return texts

    def _join(self, texts: Iterable[str]) -> str:
        why, *streams = texts
        printed = "\n".join(filter(None, streams))
        return "\n\n".join(filter(None, (why, printed)))


@dataclass(frozen=True, slots=True)
class Line:
    """One part's line in the feedback."""

    name: str
    points: float
    out_of: float
    bonus: bool
    passed: bool
    shown: Shown


def feedback(
    scheme: str,
    total: float,
    out_of: float,
    parts: Iterable[Line],
    hidden: Collection[str] = (),
    reveal: datetime | None = None,
) -> str:
    """Return the text for the student: a line for each part, each followed by what went wrong.

    Args:
        scheme: The scheme's title.
        total: The mark.
        out_of: The maximum.
        parts: The results.
        hidden: The names of parts of which only the points are told, all together.
        reveal: When these will be shown; None if never.
    """
    lines = [f"{_name(scheme)}: {number(total)} of {number(out_of)} points", ""]
    unseen = []
    for part in parts:
        if part.name in hidden:
            unseen.append(part)
            continue
        sign = "✔" if part.passed else "✘"
        bonus = " (bonus)" if part.bonus else ""
        lines.append(f"{sign} {_name(part.name)}: {number(part.points)} of {number(part.out_of)}{bonus}")
        if not part.passed:
            lines += ["    " + line for line in part.shown.lines()]
    if unseen:
        until = "" if reveal is None else f" before {reveal.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
        got = sum((exact(part.points) for part in unseen), Decimal())
        most = sum((exact(part.out_of) for part in unseen), Decimal())
        what = counted(len(unseen), "part")
        lines.append(f"… {what} not shown{until}: {number(float(got))} of {number(float(most))}")
    return _cut("\n".join(lines), MAX_FEEDBACK) + "\n"


def number(points: float) -> str:
    """Format points: 0.3, 2, 1000000."""
    return f"{exact(points).normalize():f}"


def _name(name: str) -> str:
    return _printable(name)[:_MAX_NAME]


def _decoded(raw: bytes) -> str:
    most = 4 * MAX_SHOWN  # a character has up to 4 bytes
    if len(raw) > 2 * most:
        raw = raw[:most] + b"\n" + raw[-most:]
    return _printable(raw.decode("utf-8", "replace").strip())


def _printable(text: str) -> str:
    """Replace characters that a terminal or a page would interpret instead of showing."""
    text = text.replace("\r\n", "\n")
    return "".join(
        c if c in "\n\t" or unicodedata.category(c) not in _UNSEEN else "\N{REPLACEMENT CHARACTER}" for c in text
    )


def _cut(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    head = max(0, most // 3)
    tail = max(0, most - head - len(f"\n{_CUT} (cut)\n"))
    return f"{text[:head]}\n{_CUT} (cut)\n{text[len(text) - tail :]}"


def _cut_lines(text: str) -> str:
    lines = text.split("\n")
    if len(lines) > _HEAD_LINES + _TAIL_LINES:
        lines = [*lines[:_HEAD_LINES], _CUT, *lines[-_TAIL_LINES:]]
    return "\n".join(cut_line(line) for line in lines)


def cut_line(line: str) -> str:
    """Shorten a long line to its beginning and end."""
    return line if len(line) <= _MAX_LINE else f"{line[:200]} {_CUT} {line[-(_MAX_LINE - 203) :]}"
