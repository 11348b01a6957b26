"""Crawls: start, scope, and settings for the keeper."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from rabbitry.apps.crawl.keeper.addresses import BadAddress, host_name, parse

DELAY = 1.0
"""Seconds between two requests to a host by default: a polite rate."""
_OTHER_PARTS: Final = frozenset("/@?#\\")
"""Characters that begin or end other parts of an address."""


@dataclass(slots=True)
class Crawl:
    """The settings of one `add`. depth: links away from the start; None: unlimited.

    hosts: those of the start, with same_host. allow: domains. Both None: any host. limit: pages, each counted at its
    first fetch. pages: fetched so far; sent: addresses that may become further ones: out with crawlers, or lost by
    them. recrawl: seconds before a page is fetched again at first; None: never.
    """

    id: int
    at: float
    urls: list[str]
    depth: int | None = None
    hosts: list[str] | None = None
    allow: list[str] | None = None
    limit: int | None = None
    contact: str | None = None
    delay: float | None = None
    recrawl: float | None = None
    pages: int = 0
    sent: int = 0
    has_new_hosts: bool = False
    """Whether its hosts must be written again."""
    _verdicts: dict[str, bool] = field(default_factory=dict)
    _hosts: set[str] = field(default_factory=set)
    """Its hosts, possibly tens of thousands."""

    def __post_init__(self) -> None:
        self._hosts.update(self.hosts or ())

    def has_host(self, host: str) -> bool:
        """Return whether a host is in the crawl's scope."""
        if self.hosts is None and self.allow is None:
            return True
        found = self._verdicts.get(host)
        if found is None:
            if len(self._verdicts) > 50_000:
                self._verdicts.clear()
            found = self._verdicts[host] = self._has_host(host)
        return found

    def _has_host(self, host: str) -> bool:
        if host in self._hosts:
            return True
        name = host_name(host)
        return any(
            domain in (host, name) or (not domain[-1].isdigit() and name.endswith(f".{domain}"))
            for domain in self.allow or ()
        )

    def add_host(self, host: str) -> None:
        """Add a host to the scope: that of a start's redirect."""
        if self.hosts is not None and host not in self._hosts:
            self.hosts.append(host)
            self._hosts.add(host)
            self.has_new_hosts = True
            self._verdicts.clear()

    @property
    def is_full(self) -> bool:
        """Whether its limit is reached."""
        return self.limit is not None and self.pages >= self.limit

    @property
    def room(self) -> int:
        """Return how many more addresses may be sent."""
        return 1 << 30 if self.limit is None else max(0, self.limit - self.pages - self.sent)

    def links_left(self, depth: int) -> float:
        """Return how many more links the crawl follows from an address of this depth."""
        return float("inf") if self.depth is None else self.depth - depth

    def goes_further(self, other: Crawl, depth: int, other_depth: int) -> bool:
        """Return whether this crawl goes further from an address than another one that fetched it."""
        if self.links_left(depth) > other.links_left(other_depth):
            return True
        mine, theirs = (self.hosts, self.allow), (other.hosts, other.allow)
        if theirs == (None, None):
            return False
        if mine == (None, None):
            return True
        return not (self._hosts <= other._hosts and set(self.allow or ()) <= set(other.allow or ()))


def domain(text: str) -> str:
    """Return a domain as in addresses: lower case, ASCII. Raises BadAddress."""
    name = text.strip().removeprefix("*.").strip(".")
    try:
        if not name or not _OTHER_PARTS.isdisjoint(name):
            raise BadAddress("bad-address", "it has other parts of an address")
        return parse(f"http://{name}/").host
    except BadAddress as error:
        raise BadAddress("bad-address", f"{text[:80]!r} is not a domain: write e.g. example.org") from error
