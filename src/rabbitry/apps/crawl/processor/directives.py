"""Robots directives of a page and of its HTTP headers, and the links of its Link headers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

AGENT: Final = "rabbitry"
"""The agent's name that directives may address, as in robots.txt."""
_VALUED: Final = frozenset({"unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"})
"""Directives with a value after a colon, where others have an agent's name."""
_LINK: Final = re.compile(r"""<([^<>]*)>((?:[^,<"]|"[^"]*")*)""")
_PARAMETER: Final = re.compile(r""";\s*([^\s;=,"]+)\s*=\s*(?:"([^"]*)"|([^\s;,"]*))""")


class Directives(NamedTuple):
    """Whether a page asks not to be indexed, and that its links are not followed."""

    noindex: bool = False
    nofollow: bool = False

    def __or__(self, other: tuple[object, ...]) -> Directives:
        return Directives(self.noindex or bool(other[0]), self.nofollow or bool(other[1]))


NO_DIRECTIVES: Final = Directives()


def of_meta(content: str) -> Directives:
    """Parse the content of `<meta name="robots">`."""
    return _directives(content.lower().replace(",", " ").split())


def of_headers(lines: Iterable[str]) -> Directives:
    """Parse X-Robots-Tag headers. Directives may follow the name of the agent addressed: "rabbitry: noindex"."""
    words: list[str] = []
    for line in lines:
        is_mine = True  # unless the line names an agent
        for part in line.lower().split(","):
            name, colon, rest = part.partition(":")
            name = name.strip()
            if colon and name not in _VALUED:
                is_mine = name in (AGENT, "*")
                name = rest.strip()
            if is_mine:
                words.append(name)
    return _directives(words)


def links_of_headers(lines: Iterable[str]) -> list[tuple[str, str]]:
    """Parse Link headers (RFC 8288): relations in lower case, and the addresses as written."""
    found = []
    for line in lines:
        for link in _LINK.finditer(line):
            for parameter in _PARAMETER.finditer(link[2]):
                if parameter[1].lower() == "rel":
                    found.append(((parameter[2] or parameter[3]).lower(), link[1].strip()))
                    break  # further ones are to be ignored (RFC 8288, section 3.3)
    return found


def _directives(words: Iterable[str]) -> Directives:
    given = set(words)
    return Directives(not given.isdisjoint(("noindex", "none")), not given.isdisjoint(("nofollow", "none")))
