"""Applying messages in one transaction, as many as it has room for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, Protocol

import msgspec
from sqlalchemy import Connection

from rabbitry.apps.crawl.keeper.addresses import BadAddress, parse
from rabbitry.apps.crawl.keeper.backlog import AT_ONCE, Backlog
from rabbitry.apps.crawl.keeper.costs import cost_of
from rabbitry.apps.crawl.keeper.documents import Documents
from rabbitry.apps.crawl.keeper.inputs import Asked, Input, Page
from rabbitry.apps.crawl.keeper.links import Links
from rabbitry.apps.crawl.keeper.results import CrawlResults
from rabbitry.apps.crawl.keeper.work import Work
from rabbitry.apps.crawl.messages import Add, Document, Outcome, Report

MOST_LINKS: Final = 5_000
"""Links of a document applied at once; processors send as many for a page, and fewer for a sitemap."""
_OF_ADDRESSES: Final = (Page, Outcome, Document)


class Index(Protocol):
    """The index, within the keeper's transaction."""

    def store(self, connection: Connection, documents: Iterable[Document]) -> None:
        """Store documents in the index."""

    def store_pages(self, connection: Connection, pages: Iterable[Page]) -> None:
        """Store pages' bodies."""

    def remove(self, connection: Connection, gone: Mapping[str, float]) -> None:
        """Remove addresses from the index, with the time at which each was found to be gone."""


class _Shelf:
    """Changes of the index."""

    def __init__(self) -> None:
        self.documents: list[Document] = []
        self.pages: list[Page] = []
        self.removed: dict[str, float] = {}

    def document(self, document: Document) -> None:
        self.documents.append(document)

    def page(self, page: Page) -> None:
        self.pages.append(page)

    def gone(self, url: str, at: float) -> None:
        self.removed[url] = max(at, self.removed.get(url, 0.0))


class Taking:
    """The messages of one transaction. Changes are in memory until the work is flushed."""

    def __init__(self, work: Work, index: Index, limit: int, command: Callable[[Asked], None]) -> None:
        """Begin a transaction. limit: its room (`costs.py`). command: applies a command."""
        self._work = work
        self._index = index
        self._limit = limit
        self._command = command

    def take(self, inputs: Sequence[Input]) -> tuple[int, int]:
        """Apply messages; return how many, from the first on, are done, and how many documents wait.

        A document without room waits in the backlog. Any other message without room, except the first, ends the call.
        """
        fitting, waiting, count = self._divide(inputs)
        waiting += self._apply(fitting)
        state = self._work.state
        for backlog, is_its in ((state.pages, False), (state.sitemaps, True)):
            backlog.put(self._work.connection, [one for one in waiting if one.is_sitemap is is_its])
        self._work.counts["backlog"] += len(waiting)
        return count, len(waiting)

    def take_backlog(self) -> None:
        """Apply waiting documents while there is room, but at least one of a sitemap. Flushes the work."""
        state = self._work.state
        self._take_waiting(state.sitemaps, 1)
        for backlog in (state.pages, state.sitemaps):
            while backlog and self._work.spent < self._limit:
                self._take_waiting(backlog, AT_ONCE)

    def _take_waiting(self, backlog: Backlog, most: int) -> None:
        """Apply the first documents of a backlog, at least one."""
        work = self._work
        documents = backlog.first(work.connection, most)
        if not documents:
            return
        taken = len(documents) - len(self._apply(documents, at_least=1))
        backlog.remove(work.connection, taken)
        work.counts["backlog"] -= taken
        work.flush()  # the next ones are compared with the database

    def _divide(self, inputs: Sequence[Input]) -> tuple[list[Input], list[Document], int]:
        """Return messages that fit as far as known, documents that do not, and how many both are."""
        fitting: list[Input] = []
        waiting: list[Document] = []
        spent = count = 0
        for one in inputs:
            is_full = spent >= self._limit
            if isinstance(one, Document):
                parts = list(_parts(one))
                (waiting if is_full else fitting).extend(parts)
            elif is_full and fitting:
                break
            else:
                fitting.append(one)
            spent += cost_of(one, self._work.state)
            count += 1
        return fitting, waiting, count

    def _apply(self, inputs: Sequence[Input], at_least: int = 0) -> list[Document]:
        """Apply messages; return the documents without room. at_least: messages applied in any case."""
        work = self._work
        self._read(inputs)
        links, shelf = Links(work), _Shelf()
        results = CrawlResults(work, links, shelf)
        documents = Documents(work, links, shelf)
        documents.prepare([one for one in inputs if isinstance(one, Document)])
        left: list[Document] = []
        for place, one in enumerate(inputs):
            if isinstance(one, Document) and work.spent >= self._limit and place >= at_least:
                left.append(one)
                continue
            work.spent += cost_of(one, work.state)
            if isinstance(one, Page):
                results.page(one)
            elif isinstance(one, Document):
                documents.take(one)
            elif isinstance(one, Outcome):
                results.outcome(one)
            elif isinstance(one, Report):
                results.report(one)
            else:
                self._command(one)
        links.take()
        self._shelve(shelf)
        return left

    def _shelve(self, shelf: _Shelf) -> None:
        connection = self._work.connection
        if shelf.pages:
            self._index.store_pages(connection, shelf.pages)
        if shelf.removed:
            self._index.remove(connection, shelf.removed)
        if shelf.documents:
            self._index.store(connection, shelf.documents)

    def _read(self, inputs: Sequence[Input]) -> None:
        """Read the rows that messages concern, all at once."""
        work = self._work
        urls: set[str] = set()
        ids: set[int] = set()
        batches = work.state.batches
        for one in inputs:
            if isinstance(one, _OF_ADDRESSES):
                urls.add(one.url)
                if isinstance(one, Outcome) and one.batch in batches and batches[one.batch].robots:
                    ids |= batches[one.batch].addresses
            elif isinstance(one, Report) and one.batch in batches:
                ids |= batches[one.batch].addresses
            elif isinstance(one, Asked) and isinstance(one.command, Add):
                urls.update(url.strip() for url in one.command.urls)
            if isinstance(one, Document) and one.canonical is not None:
                urls.add(one.canonical)
        keys = []
        for url in urls:
            try:
                keys.append(parse(url).key)
            except BadAddress:
                continue  # reported where it is applied
        work.look_up(keys)
        work.read([*ids, *(work.refs[key] for key in keys if work.refs[key] > 0)])
        hosts = work.state.hosts
        work.state.shapes.load(
            work.connection, [(row.host, hosts[row.host].name, row.url) for row in work.rows.values()]
        )


def _parts(document: Document) -> Iterator[Document]:
    """Return a document in parts of MOST_LINKS links. A page has one part, without further links."""
    links = document.links
    if len(links) <= MOST_LINKS:
        yield document
    elif document.is_sitemap:
        for start in range(0, len(links), MOST_LINKS):
            yield msgspec.structs.replace(document, links=links[start : start + MOST_LINKS])
    else:
        cut = document.cut + len(links) - MOST_LINKS
        yield msgspec.structs.replace(document, links=links[:MOST_LINKS], cut=cut)
