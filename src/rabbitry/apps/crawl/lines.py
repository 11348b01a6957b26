"""Log lines of crawlers and processors of any program, in the form of contract 5: text, `kind|id|…|log`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

LONGEST_ID: Final = 40
"""Characters of a node's id."""
LONGEST_SAID: Final = 400
"""Bytes kept of a line's text."""
_LINE: Final = re.compile(rb"([A-Za-z][A-Za-z0-9_-]{0,19})\|([^|\x00-\x1f\x7f]{1,160})\|")
_END: Final = "|log"
_TIME: Final = re.compile(r"\d{4}-?\d\d-?\d\d[0-9T:+.Z -]{0,24}\Z")


@dataclass(frozen=True, slots=True)
class Line:
    """A log line. kind: in lower case. said: the beginning of the text after the id."""

    kind: str
    id: str
    said: bytes

    @property
    def text(self) -> str:
        """Return the line's text, without a leading time and the final word."""
        said = self.said.decode(errors="replace")
        first, bar, rest = said.partition("|")
        return (rest if bar and _TIME.match(first) else said).removesuffix(_END)


def is_id(text: str) -> bool:
    """Return whether a text can be a node's id, of any program."""
    return 0 < len(text) <= LONGEST_ID and text.isprintable()


def parse_line(body: bytes) -> Line | None:
    """Parse a log line; return None if the text is not one.

    Any text may follow the id: an address and an action, or a whole page with bars and line breaks, as the original
    processor sends it (contract 5: `processor|ID|BODY|log`). Only the beginning is parsed, so that long lines cost no
    more than short ones.
    """
    begins = _LINE.match(body)
    if begins is None:
        return None
    try:
        identity = begins[2].decode()
    except UnicodeDecodeError:
        return None
    if not is_id(identity):
        return None
    return Line(begins[1].decode().lower(), identity, body[begins.end() : begins.end() + LONGEST_SAID])
