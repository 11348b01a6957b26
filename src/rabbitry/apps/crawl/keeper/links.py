"""Links of pages: taken into the frontier, or refused with a reason; all of a transaction looked up at once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from rabbitry.apps.crawl.keeper import traps
from rabbitry.apps.crawl.keeper.addresses import Address, BadAddress, long_key, parse
from rabbitry.apps.crawl.keeper.outcomes import WORDS, refused
from rabbitry.apps.crawl.keeper.scope import Crawl
from rabbitry.apps.crawl.keeper.state import DONE, LATER, WAITING
from rabbitry.apps.crawl.keeper.work import PURPOSES, Row, Work
from rabbitry.apps.crawl.messages import Link

MOST_HOPS: Final = 10
"""Redirects one after another."""
_PAGE: Final = PURPOSES.index("page")
_SITEMAP: Final = PURPOSES.index("sitemap")
_MAY_CHANGE: Final = frozenset({"too-deep", "out-of-scope", "limit", "disallowed", "no-contact"})
"""Refused for a reason of the crawl or the moment: another link may bring it in."""


@dataclass(slots=True)
class Found:
    """A link. word: the outcome for which it is refused; empty where it is taken."""

    address: Address
    crawl: Crawl
    depth: int
    source: int
    word: str
    purpose: int = _PAGE
    hops: int = 0
    modified: float | None = None


class Links:
    """The links of one transaction's documents."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._found: dict[int, Found] = {}

    def add_all(self, links: Iterable[Link], row: Row, *, are_sitemaps: bool = False) -> None:
        """Add the links of a page or a sitemap. Sitemaps of a sitemap are no further away than it is."""
        crawl = self._work.state.crawls.get(row.crawl)
        if crawl is None:
            return
        depth = row.depth if are_sitemaps else row.depth + 1
        purpose, hops = (_SITEMAP, row.hops + 1) if are_sitemaps else (_PAGE, 0)
        known = self._work.state.known_to(crawl, depth)
        for link in known.unknown(links):
            self._add(link.url, crawl, depth, row.id, purpose, hops, link.modified)

    def add(self, url: str, row: Row, depth: int, *, purpose: int | None = None, hops: int = 0) -> None:
        """Add one address to which a page leads, as a redirect or its canonical address does."""
        crawl = self._work.state.crawls.get(row.crawl)
        if crawl is not None:
            self._add(url, crawl, depth, row.id, row.purpose if purpose is None else purpose, hops, None)

    def _add(
        self, url: str, crawl: Crawl, depth: int, source: int, purpose: int, hops: int, modified: float | None
    ) -> None:
        try:
            address = parse(url)
        except BadAddress as error:
            self._refuse(url, error.word)
            return
        word = self._refusal(address, crawl, depth, hops)
        before = self._found.get(address.key)
        if before is None or (before.word and not word) or (bool(before.word) == bool(word) and depth < before.depth):
            self._found[address.key] = Found(address, crawl, depth, source, word, purpose, hops, modified)

    def _refuse(self, url: str, word: str) -> None:
        """Count a link that is no address, or none that can be fetched; one that is too long is known from now on."""
        work = self._work
        if word != "too-long":
            work.counts[f"outcome:{word}"] += 1
            return
        key = long_key(url)
        work.look_up([key])
        if not work.refs[key]:
            work.refuse_key(key, word)

    def _refusal(self, address: Address, crawl: Crawl, depth: int, hops: int) -> str:
        if not crawl.has_host(address.host):
            return "out-of-scope"
        if crawl.links_left(depth) < 0:
            return "too-deep"
        if crawl.is_full:
            return "limit"
        if hops > MOST_HOPS or traps.grows(address.url):
            return "trap"
        if self._work.state.closed:
            outcome, until = self._work.state.closed.get(address.origin, (0, 0.0))
            if until > self._work.now:
                return WORDS[outcome]
        return ""

    def take(self) -> None:
        """Take the links into the frontier, or note why they are refused."""
        work = self._work
        work.look_up(self._found)
        crawls = work.state.crawls
        known = [
            ref
            for key, one in self._found.items()
            if not one.word
            and (ref := work.refs[key]) > 0
            and (one.crawl.depth is not None or len(crawls) > 1 or one.modified is not None)
        ]
        work.read(known)
        for key, one in self._found.items():
            ref = work.refs[key]
            if ref == 0 and one.word:
                work.refuse_key(key, one.word)
            elif ref == 0 or (ref < 0 and not one.word and refused(ref)[0] in _MAY_CHANGE):
                row = work.add(one.address, one.crawl, one.depth, source=one.source, purpose=one.purpose)
                row.hops = one.hops
            elif ref > 0 and not one.word and (known_row := work.rows.get(ref)) is not None:
                self._meet(known_row, one)
        self._found.clear()

    def _meet(self, row: Row, one: Found) -> None:
        """Apply a link to a known address, which may be nearer to the start, or of a crawl that goes further."""
        work = self._work
        if row.crawl == one.crawl.id:
            if row.state == WAITING and one.depth < row.depth:
                row.depth = one.depth
                work.change(row)
        else:
            other = work.state.crawls.get(row.crawl)
            is_further = other is None or one.crawl.goes_further(other, one.depth, row.depth)
            if is_further and row.state == WAITING:
                row.crawl, row.depth = one.crawl.id, one.depth
                work.change(row)
            elif is_further and row.state in (DONE, LATER) and one.crawl.id > row.crawl:
                fetch_anew(work, row, one.crawl, one.depth, one.source)
        if one.modified is not None and row.state == LATER and row.outcome_at < one.modified <= work.now:
            work.later(row, work.now)


def fetch_anew(work: Work, row: Row, crawl: Crawl, depth: int, source: int = 0) -> None:
    """Queue an address that was fetched before for another crawl, unconditionally: its links are followed again."""
    row.crawl, row.depth, row.tries, row.losses, row.hops = crawl.id, depth, 0, 0, 0
    row.etag = row.modified = None
    row.source = source
    work.step(row, "queued", f"for crawl {crawl.id}")
    work.wait(row)
