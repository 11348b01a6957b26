"""The rules of an origin's robots.txt (RFC 9309), parsed by protego."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Final
from urllib.parse import urljoin

from protego import Protego

AGENT: Final = "rabbitry"
"""The product token."""
KEPT: Final = 24 * 3600.0
"""Seconds for which rules are kept (RFC 9309, section 2.4)."""
LARGEST: Final = 500 << 10
"""Bytes that are parsed (RFC 9309, section 2.5: at least 500 KiB)."""
MOST_SITEMAPS: Final = 100
MOST_WILDCARDS: Final = 5_000
"""Wildcards in rules. Each may be matched with a whole address: 35,000 take half a second for each address."""
_LETTERS: Final = 24
"""Characters of an address in which a wildcard is searched in the time of matching a rule without one."""
_MOST_CACHED: Final = 500
_BODY: Final = attrgetter("body")
LARGEST_CACHED: Final = 10_000_000
"""Bytes of all rules in memory together; parsed rules take up to 17 times as much."""
_FORBID_ALL: Final = "User-agent: *\nDisallow: /\n"
_LONGEST_DELAY: Final = 30 * 24 * 3600.0
_AGENT_LINE: Final = re.compile(
    r"^[ \t]*user[ -]?agent[ \t]*:[ \t]*(\*(?=[\s#]|$)|[a-z_-]*)[^\n]*", re.IGNORECASE | re.MULTILINE
)
_DISALLOW: Final = re.compile("d[ia]+s+al+[oa]+w", re.IGNORECASE)
"""Matches all accepted spellings."""
_SITEMAP_LINE: Final = re.compile(
    r"^[ \t]*+site(?:maps?|-map)(?:[ \t]*+:|[ \t]++)[ \t]*+([^\s#][^#\n]*)", re.IGNORECASE | re.MULTILINE
)
"""Matches the spellings that Protego reads."""

UNKNOWN: Final = 0
RULES: Final = 1
ALL_ALLOWED: Final = 2
UNAVAILABLE: Final = 3
"""No answer, or 5xx: nothing is allowed, and it is requested again."""
CLOSED: Final = 4
"""Given up until a later time, or refused for good."""
UNREAD: Final = 5
"""Fetched, but large: it is parsed when its host is due next."""
_READ_AT_ONCE: Final = 20_000
"""Bytes of rules that are parsed at once, in 7 ms. 500 KiB take 170 ms, and may come from many hosts at once."""


@dataclass(slots=True)
class Robots:
    """The state of an origin's robots.txt. tries: failed attempts in a row. until: when it is requested again."""

    origin: str
    host: int
    state: int = UNKNOWN
    outcome: int = 0
    at: float = 0.0
    until: float = 0.0
    tries: int = 0
    delay: float = 0.0
    detail: str = ""
    body: str = ""
    _rules: Protego | None = None
    _lines: int = 0
    _stars: int = 0
    """Costs of the parsed rules."""

    def cost(self, url: str) -> int:
        """Return the highest cost of matching an address, in rules without a wildcard (0.16 µs each)."""
        if self.state != RULES:
            return 0
        self._parsed()
        return self._lines + self._stars * len(url) // _LETTERS

    @property
    def cost_of_reading(self) -> int:
        """Return the bytes of rules to parse before an address can be matched."""
        is_to_be = self._rules is None and self.state in (RULES, UNREAD)
        return len(self.body) if is_to_be else 0

    def allows(self, url: str) -> bool:
        """Return whether an address of the origin may be fetched."""
        if self.state != RULES:
            return self.state == ALL_ALLOWED
        return bool(self._parsed().can_fetch(url, AGENT))

    def take(self, body: str, now: float) -> None:
        """Set the rules of a new robots.txt. If they are large, the state is UNREAD until `read`."""
        self.body = body[:LARGEST].removeprefix("\ufeff").replace("\0", "")
        self._rules = None
        self.state, self.at, self.until, self.tries, self.outcome, self.detail = RULES, now, now + KEPT, 0, 0, ""
        if _wildcards(self.body) > MOST_WILDCARDS:
            # Too costly to match: everything that they might forbid is left alone.
            self.body, self.detail = _FORBID_ALL, f"more than {MOST_WILDCARDS} wildcards"
        if len(self.body) > _READ_AT_ONCE:
            self.state = UNREAD
        else:
            self.read()

    def read(self) -> None:
        """Parse the rules set by `take`."""
        self.state = RULES
        delay = self._parsed().crawl_delay(AGENT)
        self.delay = min(max(0.0, float(delay or 0.0)), _LONGEST_DELAY)
        if not _DISALLOW.search(self.body):
            self.state = ALL_ALLOWED

    def allow_all(self, now: float, detail: str) -> None:
        """Set that there are no rules."""
        self.state, self.at, self.until, self.tries, self.delay = ALL_ALLOWED, now, now + KEPT, 0, 0.0
        self.body, self.detail, self._rules = "", detail, None

    def sitemaps(self) -> Sequence[str]:
        """Return the sitemaps named in it, as absolute addresses. The rules need not be parsed for it."""
        found: dict[str, None] = {}
        for line in _SITEMAP_LINE.finditer(_lines(self.body)):
            if len(found) == MOST_SITEMAPS:
                break
            try:
                found[urljoin(self.origin + "/", line[1].strip())] = None
            except ValueError:
                continue
        return list(found)

    def _parsed(self) -> Protego:
        if self._rules is None:
            body = _AGENT_LINE.sub(_agent_line, _lines(self.body))
            self._rules = Protego.parse(body)
            self._lines, self._stars = body.count("\n") + 1, body.count("*")
        return self._rules


def _lines(body: str) -> str:
    """Return the lines of a body, each ended by a line feed. If it was cut, an incomplete last line is left out."""
    is_cut = len(body) >= LARGEST or (not body.isascii() and len(body.encode(errors="replace")) >= LARGEST)
    body = body.replace("\r\n", "\n").replace("\r", "\n")
    return body[: body.rfind("\n") + 1] if is_cut else body


def _agent_line(found: re.Match[str]) -> str:
    """Return a line that begins a group with only the product token (RFC 9309, section 2.2.1).

    Protego also matches the beginning of a name, and takes a version for part of it.
    """
    token = found[1].lower()
    return f"User-agent: {token if token in (AGENT, '*') else 'another'}"


def _wildcards(body: str) -> int:
    """Return the number of wildcards outside of comments, where people draw frames with them."""
    if body.count("*") <= MOST_WILDCARDS:
        return 0
    return sum(line.partition("#")[0].count("*") for line in body.splitlines())


class RobotsCache:
    """The robots of the origins used last; bounded in number and size."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Robots] = OrderedDict()

    def get(self, origin: str) -> Robots | None:
        """Return the robots of an origin if they are cached."""
        found = self._known.get(origin)
        if found is not None:
            self._known.move_to_end(origin)
        return found

    def put(self, robots: Robots) -> None:
        """Cache them."""
        self._known[robots.origin] = robots
        self._known.move_to_end(robots.origin)
        # Rules set after they were cached count, too.
        size = sum(map(len, map(_BODY, self._known.values())))
        while len(self._known) > 1 and (len(self._known) > _MOST_CACHED or size > LARGEST_CACHED):
            size -= len(self._known.popitem(last=False)[1].body)
