"""The keeper: one transaction for each batch of messages, in the order they came, from which follows what is sent next.

It has no clock and no broker: `apply` takes messages and a time, and returns what is to be published. The intent comes
first: a batch is in the database before it is published. One that never was is taken back after its deadline.
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
"""Documents of pages that wait, past which no batch is sent: more pages would only wait, too."""


@dataclass
class Decided:
    """Publications for after the commit, and what the transaction had no room for.

    answers: by the ids of the commands' messages. taken: how many of the messages are done with, from the first on.
    waiting: how many of these are documents that wait in the backlog.
    """

    batches: list[Batch] = field(default_factory=list)
    answers: dict[str, Answer] = field(default_factory=dict)
    taken: int = 0
    waiting: int = 0


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
        self,
        connection: Connection,
        inputs: Sequence[Input],
        now: float,
        *,
        comes_again: bool = False,
        limit: int = LIMIT,
        is_alone: bool = False,
    ) -> Decided:
        """Apply messages, as many as a transaction has room for, and choose what is published.

        Raises RecordsError if a message is of a crawl that another database keeps.

        A keeper of which the memory is of an earlier epoch, since another one was active in between, reads everything
        anew first. After an exception, or if the transaction is not committed, call `forget`.

        Args:
            connection: Of a transaction that writes.
            inputs: The messages. Those past `Decided.taken` are to be applied in another transaction.
            now: The time, in seconds since 1970.
            comes_again: There is a message that a keeper had in hand before.
            limit: The work that there is room for (`costs.py`). With 0 all documents wait.
            is_alone: Documents that wait are left alone.
        """
        state = self._current(connection, now)
        for one in inputs:
            if not isinstance(one, Asked):
                identity.check(one.batch, state.crawl)
        state.note_time(now, comes_again=comes_again)
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
        if not state.is_paused and len(state.pages) <= MOST_WAITING:
            decided.batches = dispatch(work)
            work.flush()
        state.seen.move(connection)
        return decided

    def first_waiting(self, connection: Connection, now: float) -> list[Document]:
        """Return some documents that wait, of each kind those that have waited for longest."""
        state = self._current(connection, now)
        return [*state.pages.first(connection), *state.sitemaps.first(connection)]

    def drop_waiting(self, connection: Connection, now: float, documents: Sequence[Document]) -> None:
        """Remove documents that `first_waiting` returned from the backlog, unless they were taken meanwhile."""
        if documents != self.first_waiting(connection, now):
            return
        state = self._current(connection, now)
        sitemaps = sum(document.is_sitemap for document in documents)
        state.sitemaps.remove(connection, sitemaps)
        state.pages.remove(connection, len(documents) - sitemaps)
        sets.change(connection, _COUNT_OFF, len(documents))

    def next_due(self) -> float | None:
        """Return when there is something to do without a message."""
        if self._state is None or self._state.pages or self._state.sitemaps or self._state.full:
            return 0.0
        due = self._state.next_due()
        later = self._state.later_due()
        return later if due is None else min(due, later)

    def _current(self, connection: Connection, now: float) -> State:
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
