"""The keeper: one transaction for each batch of messages, in order of arrival, which decides what is sent next.

It uses no clock and no broker: `apply` takes messages and a time, and returns messages to publish. A batch is in the
database before it is published. One that was never published is withdrawn after its deadline.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import Connection

from rabbitry.apps.crawl.keeper import adding, identity, sets
from rabbitry.apps.crawl.keeper.costs import LIMIT
from rabbitry.apps.crawl.keeper.dispatch import dispatch, drain_full, due_again
from rabbitry.apps.crawl.keeper.inputs import Asked, Input
from rabbitry.apps.crawl.keeper.releasing import take_back
from rabbitry.apps.crawl.keeper.state import State, load
from rabbitry.apps.crawl.keeper.taking import Index, Taking
from rabbitry.apps.crawl.keeper.work import Work
from rabbitry.apps.crawl.messages import Add, Answer, Batch, Document, Pause, Resume

MOST_WAITING: Final = 1_000
"""Waiting documents of pages above which no batch is sent: more pages would only wait, too."""


@dataclass
class Decided:
    """Messages to publish after the commit, and the number of messages handled.

    answers: by the ids of the commands' messages. taken: how many of the messages are done, from the first on. waiting:
    how many of these are documents that wait in the backlog.
    """

    batches: list[Batch] = field(default_factory=list)
    answers: dict[str, Answer] = field(default_factory=dict)
    taken: int = 0
    waiting: int = 0


class Keeper:
    """Applies messages to the database. Used by one thread.

    node: its short id. per_host: batches of a host that may be out at once.
    """

    def __init__(self, node: str, index: Index, *, per_host: int = 1) -> None:
        self._node = node
        self._index = index
        self._per_host = per_host
        self._state: State | None = None

    def forget(self) -> None:
        """Read all state again next time: the transaction failed, and the memory holds unwritten changes."""
        self._state = None

    def apply(
        self,
        connection: Connection,
        inputs: Sequence[Input],
        now: float,
        *,
        comes_again: bool = False,
        limit: int = LIMIT,
        is_alone: bool = False,
        is_late: bool = False,
    ) -> Decided:
        """Apply messages, as many as a transaction has room for, and decide what to publish.

        Raises RecordsError if a message belongs to a crawl in another database.

        If another keeper was active in between, this one reads all its state again first. After an exception, or if the
        transaction is not committed, call `forget`.

        Args:
            connection: In a transaction that may write.
            inputs: The messages. Apply those after `Decided.taken` in another transaction.
            now: The time, as a Unix timestamp.
            comes_again: Whether a message is redelivered, so that another keeper had it.
            limit: The room for work (`costs.py`). With 0 all documents wait.
            is_alone: Leave waiting documents alone.
            is_late: Whether the keeper is behind: it sends no batch, because their pages would only wait, too.
        """
        state = self._current(connection, now)
        for one in inputs:
            if not isinstance(one, Asked):
                identity.check(one.batch, state.crawl)
        state.note_time(now, comes_again=comes_again)
        state.note_pace(is_late=is_late)
        work = Work(connection, state, now, f"keeper {self._node}", self._per_host)
        decided = Decided()
        taking = Taking(work, self._index, limit, lambda asked: self._command(work, asked, decided))
        decided.taken, decided.waiting = taking.take(inputs)
        take_back(work)
        due_again(work)
        work.flush()
        if not is_alone:
            taking.take_backlog()
        if state.full:
            drain_full(work)
            work.flush()
        if not state.is_paused and not is_late and len(state.pages) <= MOST_WAITING:
            decided.batches = dispatch(work)
            work.flush()
        state.seen.tend(connection)
        return decided

    def first_waiting(self, connection: Connection, now: float) -> list[Document]:
        """Return some waiting documents, of each kind those that have waited longest."""
        state = self._current(connection, now)
        return [*state.pages.first(connection), *state.sitemaps.first(connection)]

    def drop_waiting(self, connection: Connection, now: float, documents: Sequence[Document]) -> None:
        """Remove documents returned by `first_waiting` from the backlog, unless they were taken meanwhile."""
        if documents != self.first_waiting(connection, now):
            return
        state = self._current(connection, now)
        sitemaps = sum(document.is_sitemap for document in documents)
        state.sitemaps.remove(connection, sitemaps)
        state.pages.remove(connection, len(documents) - sitemaps)
        sets.change(connection, _COUNT_OFF, len(documents))

    def next_due(self) -> float | None:
        """Return when the next work without a message is due."""
        if self._state is None or self._state.pages or self._state.sitemaps or self._state.full:
            return 0.0
        due = self._state.next_due()
        later = self._state.later_due()
        return later if due is None else min(due, later)

    def _current(self, connection: Connection, now: float) -> State:
        # PostgreSQL locks the row, SQLite the whole database: keepers write one after another.
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
                self._state.note_time(now, comes_again=True)  # the previous keeper's unacknowledged messages will, too
        self._state.is_paused = bool(row.is_paused)
        return self._state

    def _command(self, work: Work, asked: Asked, decided: Decided) -> None:
        command = asked.command
        if isinstance(command, Add):
            decided.answers[asked.message] = adding.add(work, command, asked.message)
        elif isinstance(command, (Pause, Resume)):
            work.state.is_paused = isinstance(command, Pause)
            sets.change(
                work.connection, "UPDATE crawl_keeper SET is_paused = ? WHERE id = 1", int(work.state.is_paused)
            )
            decided.answers[asked.message] = Answer(said=["paused" if work.state.is_paused else "resumed"])


_COUNT_OFF: Final = "UPDATE crawl_counts SET number = number - ? WHERE name = 'backlog'"
