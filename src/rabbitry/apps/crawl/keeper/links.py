"""Links of pages: added to the frontier, or refused with a reason; a transaction's links are looked up together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from sqlalchemy import Row as StoredRow

from rabbitry.apps.crawl.keeper import sets, traps
from rabbitry.apps.crawl.keeper.addresses import Address, BadAddress, long_key, parse
from rabbitry.apps.crawl.keeper.costs import KNOWN
from rabbitry.apps.crawl.keeper.outcomes import WORDS, refused
from rabbitry.apps.crawl.keeper.robots import Robots
from rabbitry.apps.crawl.keeper.scope import Crawl
from rabbitry.apps.crawl.keeper.state import DONE, LATER, WAITING
from rabbitry.apps.crawl.keeper.work import PURPOSES, Row, Work
from rabbitry.apps.crawl.messages import Link

MOST_HOPS: Final = 10
"""The most redirects in a row."""
_PAGE: Final = PURPOSES.index("page")
_SITEMAP: Final = PURPOSES.index("sitemap")
Stored: TypeAlias = StoredRow[*tuple[Any, ...]]
_MAY_CHANGE: Final = frozenset({"too-deep", "out-of-scope", "limit", "disallowed", "no-contact"})
"""Refusals that depend on the crawl or the moment: another link may add the address."""


_FOR_GOOD: Final = frozenset({"too-deep", "out-of-scope", "limit", "trap"})
"""Refusals that hold as long as the crawl does not change."""


@dataclass(slots=True)
class Found:
    """A link. url: as written in the page. depth, hops: of the address that it leads to. source: see `Row`."""

    url: str
    address: Address
    crawl: Crawl
    depth: int
    source: int
    purpose: int = _PAGE
    hops: int = 0
    modified: float | None = None


class Links:
    """The links of one transaction's documents."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._found: dict[int, Found] = {}

    def add_all(self, links: Sequence[Link], row: Row, *, are_sitemaps: bool = False) -> None:
        """Add the links of a page or a sitemap. Sitemaps in a sitemap have the same depth."""
        crawl = self._work.state.crawls.get(row.crawl)
        if crawl is None:
            return
        depth = row.depth if are_sitemaps else row.depth + 1
        purpose, hops = (_SITEMAP, row.hops + 1) if are_sitemaps else (_PAGE, 0)
        known, place = self._work.state.known, _place(crawl, depth)
        unknown = known.unknown(links, crawl.id, place)
        known.add([link.url for link in unknown], crawl.id, place)
        self._work.spent += len(links) // KNOWN + len(unknown)
        for link in unknown:
            self._add(link.url, crawl, depth, row.id, purpose, hops, link.modified)

    def add_sitemaps(self, robots: Robots, row: Row) -> None:
        """Add the sitemaps that the robots.txt of an address's origin names, for the address's crawl."""
        crawl = self._work.state.crawls.get(row.crawl)
        if crawl is not None:
            for url in robots.sitemaps():
                self._add(url, crawl, row.depth, -row.id, _SITEMAP, 0, None)

    def add(self, url: str, row: Row, depth: int, *, purpose: int | None = None, hops: int = 0) -> None:
        """Add one address that a page leads to by a redirect or as its canonical address."""
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
        one = Found(url, address, crawl, depth, source, purpose, hops, modified)
        before = self._found.setdefault(address.key, one)
        if before is not one:
            was, word = self._refusal(before), self._refusal(one)
            if (was and not word) or (bool(was) == bool(word) and depth < before.depth):
                self._found[address.key] = one

    def _refuse(self, url: str, word: str) -> None:
        """Count a link that can't be fetched; one that is too long is recorded as known."""
        work = self._work
        if word != "too-long":
            work.counts[f"outcome:{word}"] += 1
            return
        key = long_key(url)
        work.look_up([key])
        if not work.refs[key]:
            work.refuse_key(key, word)

    def _refusal(self, one: Found) -> str:
        """Return the outcome for which a link is refused; empty if it is accepted."""
        crawl, address, state = one.crawl, one.address, self._work.state
        if not crawl.has_host(address.host):
            return "out-of-scope"
        if crawl.links_left(one.depth) < 0:
            return "too-deep"
        if crawl.is_full:
            return "limit"
        if one.hops > MOST_HOPS or traps.grows(address.url):
            return "trap"
        if state.closed:
            outcome, until = state.closed.get(address.origin, (0, 0.0))
            if until > self._work.now:
                return WORDS[outcome]
        return ""

    def take(self) -> None:
        """Add the links to the frontier, or record why they are refused."""
        work = self._work
        work.look_up(self._found)
        known: list[tuple[int, Found]] = []
        for key, one in self._found.items():
            ref = work.refs[key]
            if ref > 0:
                if one.modified is not None or ref in work.rows or work.state.meets(one.crawl):
                    known.append((ref, one))
                continue
            if ref < 0 and refused(ref)[0] not in _MAY_CHANGE:
                continue
            word = self._refusal(one)
            if not word:
                row = work.add(one.address, one.crawl, one.depth, source=one.source, purpose=one.purpose)
                row.hops = one.hops
                continue
            if ref == 0:
                work.refuse_key(key, word)
            if word not in _FOR_GOOD:
                work.state.known.forget([one.url], one.crawl.id, _place(one.crawl, one.depth))
        self._meet_all(known)
        self._found.clear()

    def _meet_all(self, known: Sequence[tuple[int, Found]]) -> None:
        """Apply links to known addresses. Rows in the database are read completely only if they change."""
        work = self._work
        statement = "SELECT id, crawl, depth, counted, state, outcome_at FROM crawl_addresses WHERE id IN {set}"
        missing = {ref for ref, _ in known if ref not in work.rows}
        stored = {row.id: row for row in sets.rows_among(work.connection, statement, missing)}
        matters = [(ref, one) for ref, one in known if self._matters(work.rows.get(ref) or stored.get(ref), one)]
        work.read([ref for ref, _ in matters])
        for ref, one in matters:
            self._meet(work.rows[ref], one)

    def _matters(self, row: Row | Stored | None, one: Found) -> bool:
        """Return whether a link changes a known address."""
        if row is None:
            return False
        if self._is_newer(row, one):
            changes = True
        elif row.crawl == one.crawl.id:
            changes = row.state == WAITING and one.depth < row.depth
        else:
            other = self._work.state.crawls.get(row.crawl)
            may_change = row.state == WAITING or (row.state in (DONE, LATER) and one.crawl.id > row.crawl)
            changes = may_change and (other is None or one.crawl.goes_further(other, one.depth, row.depth))
        if not changes:
            return False
        word = self._refusal(one)
        return not word or (word == "limit" and row.counted == one.crawl.id)

    def _is_newer(self, row: Row | Stored, one: Found) -> bool:
        is_later = one.modified is not None and row.outcome_at < one.modified <= self._work.now
        return is_later and row.state == LATER

    def _meet(self, row: Row, one: Found) -> None:
        """Apply a link that changes an address: closer to the start, of a crawl that goes further, or modified."""
        work = self._work
        is_newer = self._is_newer(row, one)
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
        if is_newer and row.state == LATER:
            work.later(row, work.now)


def _place(crawl: Crawl, depth: int) -> int:
    """Return the depth under which a crawl's links are recorded: one value for all if it is unlimited."""
    return -1 if crawl.depth is None else depth


def fetch_anew(work: Work, row: Row, crawl: Crawl, depth: int, source: int = 0) -> None:
    """Queue an address fetched before for another crawl, unconditionally: its links are followed again."""
    row.crawl, row.depth, row.tries, row.losses, row.hops = crawl.id, depth, 0, 0, 0
    row.etag = row.modified = None
    row.status = 0  # an outstanding page was fetched for the previous crawl
    row.source = source
    work.step(row, "queued", f"for crawl {crawl.id}")
    work.wait(row)
