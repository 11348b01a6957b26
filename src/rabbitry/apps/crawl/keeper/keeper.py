"""The keeper: one transaction for each batch of messages, in the order they came, from which follows what is sent next.

It has no clock and no broker: `apply` takes messages and a time, and returns what is to be published. The intent comes
first: a batch is in the database before it is published. One that never was is taken back after its deadline.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from sqlalchemy import Connection

from rabbitry.apps.crawl.keeper import adding, identity, sets
from rabbitry.apps.crawl.keeper.addresses import BadAddress, parse
from rabbitry.apps.crawl.keeper.dispatch import dispatch, drain_full, due_again
from rabbitry.apps.crawl.keeper.documents import Documents
from rabbitry.apps.crawl.keeper.inputs import Asked, Input, Page
from rabbitry.apps.crawl.keeper.links import Links
from rabbitry.apps.crawl.keeper.results import MARGIN, CrawlResults
from rabbitry.apps.crawl.keeper.state import State, load
from rabbitry.apps.crawl.keeper.work import Work
from rabbitry.apps.crawl.messages import Add, Answer, Batch, Document, Outcome, Pause, Report, Resume


class Index(Protocol):
    """The index, within the keeper's transaction."""

    def store(self, connection: Connection, documents: Iterable[Document]) -> None:
        """Put documents into the index."""

    def store_pages(self, connection: Connection, pages: Iterable[Page]) -> None:
        """Keep pages as they came."""

    def remove(self, connection: Connection, gone: Mapping[str, float]) -> None:
        """Take addresses out of the index, which were found to be gone at a time."""


_OF_ADDRESSES: Final = (Page, Outcome, Document)


@dataclass
class Decided:
    """Publications for after the commit. answers: by the ids of the commands' messages."""

    batches: list[Batch] = field(default_factory=list)
    answers: dict[str, Answer] = field(default_factory=dict)


class _Shelf:
    """Changes of the index in one transaction."""

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


class Keeper:
    """Applies messages to the database. To be used by one thread.

    node: its short id. per_host: batches of a host that may be out at once.
    """

    def __init__(self, node: str, index: Index, *, per_host: int = 1) -> None:
        self._node = node
        self._index = index
        self._per_host = per_host
        self._state: State | None = None

    def forget(self) -> None:
        """Read everything anew next time: the transaction failed, and the memory holds what was not written."""
        self._state = None

    def apply(
        self, connection: Connection, inputs: Sequence[Input], now: float, *, comes_again: bool = False
    ) -> Decided:
        """Apply messages, and choose what is published.

        Raises RecordsError where a message is of a crawl that another database keeps.

        A keeper of which the memory is of an earlier epoch, since another one was active in between, reads everything
        anew first. After an exception, or where the transaction is not committed, call `forget`. comes_again: there
        is a message that a keeper had in hand before.
        """
        state, is_paused = self._current(connection, now)
        for one in inputs:
            if not isinstance(one, Asked):
                identity.check(one.batch, state.crawl)
        state.note_time(now, comes_again=comes_again)
        work = Work(connection, state, now, f"keeper {self._node}", self._per_host)
        decided = Decided()
        is_paused = self._take(work, inputs, decided, is_paused)
        due_again(work)
        work.flush()
        if state.full:
            drain_full(work)
            work.flush()
        if not is_paused:
            decided.batches = dispatch(work)
            work.flush()
        state.seen.move(connection)
        return decided

    def next_due(self) -> float | None:
        """Return when there is something to do without a message."""
        if self._state is None:
            return 0.0
        due = self._state.next_due()
        later = self._state.later_due()
        return later if due is None else min(due, later)

    def _current(self, connection: Connection, now: float) -> tuple[State, bool]:
        # On PostgreSQL the row is locked, on SQLite the whole database is: keepers write one after another.
        lock = "" if connection.dialect.name == "sqlite" else " FOR UPDATE"
        row = sets.rows(connection, f"SELECT epoch, is_paused FROM crawl_keeper WHERE id = 1{lock}")[0]  # noqa: S608 # no text from outside
        if self._state is None or self._state.epoch != row.epoch:
            sets.change(
                connection,
                "UPDATE crawl_keeper SET epoch = ?, keeper = ?, since = ? WHERE id = 1",
                row.epoch + 1,
                self._node,
                now,
            )
            self._state = load(connection, row.epoch + 1)
            if row.epoch:
                self._state.note_time(now, comes_again=True)  # so will what the keeper before had in hand
        return self._state, bool(row.is_paused)

    def _take(self, work: Work, inputs: Sequence[Input], decided: Decided, is_paused: bool) -> bool:
        documents = [one for one in inputs if isinstance(one, Document)]
        self._read(work, inputs, documents)
        shelf = _Shelf()
        links = Links(work)
        results = CrawlResults(work, links, shelf)
        shelving = Documents(work, links, shelf)
        if documents:
            shelving.prepare(documents)
        for one in inputs:
            if isinstance(one, Page):
                results.page(one)
            elif isinstance(one, Document):
                shelving.take(one)
            elif isinstance(one, Outcome):
                results.outcome(one)
            elif isinstance(one, Report):
                results.report(one)
            else:
                is_paused = self._command(work, one, decided, is_paused)
        results.take_back()
        links.take()
        if shelf.pages:
            self._index.store_pages(work.connection, shelf.pages)
        if shelf.removed:
            self._index.remove(work.connection, shelf.removed)
        if shelf.documents:
            self._index.store(work.connection, shelf.documents)
        return is_paused

    def _read(self, work: Work, inputs: Sequence[Input], documents: Sequence[Document]) -> None:
        """Read the rows that messages concern, all at once."""
        urls: set[str] = set()
        ids: set[int] = set()
        batches = work.state.batches
        for one in inputs:
            if isinstance(one, _OF_ADDRESSES):
                urls.add(one.url)
            elif isinstance(one, Report) and one.batch in batches:
                ids |= batches[one.batch].addresses
            elif isinstance(one, Asked) and isinstance(one.command, Add):
                urls.update(url.strip() for url in one.command.urls)
        urls.update(one.canonical for one in documents if one.canonical is not None)
        for batch in batches.values():
            if batch.deadline + MARGIN < work.now:
                ids |= batch.addresses
        keys = []
        for url in urls:
            try:
                keys.append(parse(url).key)
            except BadAddress:
                continue  # said where it is looked at
        work.look_up(keys)
        work.read([*ids, *(work.refs[key] for key in keys if work.refs[key] > 0)])
        hosts = work.state.hosts
        work.state.shapes.load(
            work.connection, [(row.host, hosts[row.host].name, row.url) for row in work.rows.values()]
        )

    def _command(self, work: Work, asked: Asked, decided: Decided, is_paused: bool) -> bool:
        command = asked.command
        if isinstance(command, Add):
            decided.answers[asked.message] = adding.add(work, command, asked.message)
        elif isinstance(command, (Pause, Resume)):
            is_paused = isinstance(command, Pause)
            sets.change(work.connection, "UPDATE crawl_keeper SET is_paused = ? WHERE id = 1", int(is_paused))
            decided.answers[asked.message] = Answer(said=["paused" if is_paused else "resumed"])
        return is_paused
