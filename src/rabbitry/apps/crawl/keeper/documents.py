"""Results of processors: documents for the index, and the links of pages and sitemaps."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final, Protocol

import msgspec

from rabbitry.apps.crawl.keeper import sets, traps
from rabbitry.apps.crawl.keeper.addresses import Address, BadAddress, host_key, parse
from rabbitry.apps.crawl.keeper.links import Links
from rabbitry.apps.crawl.keeper.outcomes import FETCHED, NUMBERS
from rabbitry.apps.crawl.keeper.recrawl import next_pause
from rabbitry.apps.crawl.keeper.releasing import AWAITED, count_page, fetch_again
from rabbitry.apps.crawl.keeper.results import row_for
from rabbitry.apps.crawl.keeper.state import DONE, LATER, WAITING
from rabbitry.apps.crawl.keeper.work import Row, Work
from rabbitry.apps.crawl.messages import Document

_PAGE: Final = NUMBERS["page"]
_UNFIT: Final = FETCHED - {_PAGE, NUMBERS["document"], NUMBERS["unchanged"]} | {NUMBERS["client-error"]}
"""Outcomes of an address that is not in the index; others are no duplicates of it."""


class Shelve(Protocol):
    """The part of the index that stores documents."""

    def document(self, document: Document) -> None:
        """Store a document in the index."""

    def gone(self, url: str, at: float) -> None:
        """Remove an address from the index."""


class Documents:
    """Applies documents. The rows of their addresses, and of their canonical ones, must have been read."""

    def __init__(self, work: Work, links: Links, shelve: Shelve) -> None:
        self._work = work
        self._links = links
        self._shelve = shelve
        self._contents: dict[int, int] = {}
        """The first address with each content, by the content's key."""

    def prepare(self, documents: Iterable[Document]) -> None:
        """Look up the data with which a transaction's documents are compared."""
        keys = set()
        for document in documents:
            address = _address(document.url)
            if address is not None:
                keys.add(content_key(address.host, document))
        found = sets.rows_among(
            self._work.connection, "SELECT key, address FROM crawl_contents WHERE key IN {set}", keys
        )
        self._contents = {row.key: row.address for row in found}
        self._work.read(self._contents.values())

    def take(self, document: Document) -> None:
        """Apply a document."""
        work = self._work
        address = _address(document.url)
        row = None if address is None else row_for(work, document.url)
        if address is None or row is None:
            work.counts["pages without an address"] += 1
            return
        node = f"processor {document.processor}"
        if document.is_sitemap:
            if document.problem:  # it is incomplete: earlier links are in other documents
                word = document.problem if document.problem in NUMBERS else "unreadable"
                work.outcome(row, word, document.detail, node=node, at=document.at)
            elif row.outcome == _PAGE:
                work.outcome(row, "sitemap", f"{len(document.links)} addresses", node=node, at=document.at)
            self._links.add_all(document.links, row, are_sitemaps=document.is_index)
            return
        if row.outcome in FETCHED and row.outcome != _PAGE and row.outcome_at >= document.at:
            return  # it is a repeat
        work.pace["documents"] += 1
        fetched_at = document.fetched_at or document.at
        if row.outcome != _PAGE and document.fetched_at > row.outcome_at:
            self._await_page(row)
        if document.problem:
            word = document.problem if document.problem in NUMBERS else "unreadable"
            work.outcome(row, word, document.detail, node=node, at=document.at)
            self._judge(row, address, 0, is_repeat=False)
            return
        if not document.nofollow:
            self._links.add_all(document.links, row)
        content = _content(document)
        key = content_key(address.host, document)
        first = work.rows.get(self._contents.get(key, 0))
        is_repeat = first is not None and first is not row
        self._follow_changes(row, content)
        self._judge(row, address, document.fingerprint, is_repeat=is_repeat)
        row.content = content
        word, detail = self._word(document, row, address, first if is_repeat else None)
        work.outcome(row, word, detail, node=node, at=document.at)
        if word == "document":
            if first is None:
                self._contents[key] = work.contents[key] = row.id
            if document.url != row.url:
                document = msgspec.structs.replace(document, url=row.url)
            self._shelve.document(document)
        else:
            self._shelve.gone(row.url, fetched_at)

    def _await_page(self, row: Row) -> None:
        """Record that an address was fetched although its page has not arrived yet.

        A killed keeper held the page. It is redelivered one by one with all others, much later than its document;
        meanwhile the address must not be fetched again.
        """
        count_page(self._work, row)
        row.status = AWAITED
        if row.state in (WAITING, LATER):  # its batch was withdrawn, or reported without it
            row.state = DONE
            fetch_again(self._work, row, is_changed=None)

    def _word(self, document: Document, row: Row, address: Address, first: Row | None) -> tuple[str, str]:
        """Return the outcome and detail for a readable document."""
        if document.noindex:
            return "noindex", ""
        canonical = self._canonical(document, row, address)
        if canonical is not None:
            return "duplicate", f"its canonical address is {canonical}"
        if first is not None and first.content == row.content and first.outcome not in _UNFIT:
            return "duplicate", f"the same as {first.url}"
        return "document", document.title[:100]

    def _canonical(self, document: Document, row: Row, address: Address) -> str | None:
        """Return the address that represents the page: another one on the same host, in scope, that gives a page."""
        if document.canonical is None:
            return None
        other = _address(document.canonical)
        crawl = self._work.state.crawls.get(row.crawl)
        if other is None or other.key == address.key or other.host != address.host or crawl is None:
            return None
        ref = self._work.refs.get(other.key, 0)
        known = self._work.rows.get(ref)
        if ref < 0 or (known is not None and (known.outcome in _UNFIT or (known.state == DONE and not known.outcome))):
            return None
        if known is not None and known.state == DONE and known.outcome not in FETCHED:
            return None
        if known is None and crawl.is_full:
            return None
        self._links.add(other.url, row, row.depth, purpose=0, hops=row.hops + 1)
        return other.url

    def _follow_changes(self, row: Row, content: int) -> None:
        crawl = self._work.state.crawls.get(row.crawl)
        if crawl is None or crawl.recrawl is None or row.state != LATER or not row.content:
            return
        row.pause = next_pause(row.pause, crawl.recrawl, is_changed=row.content != content)
        self._work.later(row, self._work.now + row.pause)

    def _judge(self, row: Row, address: Address, fingerprint: int, *, is_repeat: bool) -> None:
        if not row.is_judged:
            return
        shapes = self._work.state.shapes
        traps.answered(shapes, shapes.of(row.host, row.url), fingerprint, is_repeat=is_repeat)


def content_key(host: str, document: Document) -> int:
    """Return the key of a document's content on its host; near duplicates may share a key."""
    text = f"fingerprint {document.fingerprint}" if document.fingerprint else f"content {_content(document)}"
    return host_key(host, text)


def _content(document: Document) -> int:
    """Return a 64-bit hash of a document's visible content and its links; never 0."""
    parts = [document.title, document.text]
    parts += [link.url for link in document.links]
    digest = hashlib.blake2b("\0".join(parts).encode(errors="replace"), digest_size=8)
    return int.from_bytes(digest.digest(), "big", signed=True) or 1


def _address(url: str) -> Address | None:
    try:
        return parse(url)
    except BadAddress:
        return None
