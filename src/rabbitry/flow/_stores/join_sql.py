"""The store of joins in SQLite or PostgreSQL (`sql`); imported when a worker of a join starts.

What is decided about a job is decided in one transaction that holds the job's row.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from rabbitry.flow._parts import Late, Part
from rabbitry.flow._stores import join_answers as answers
from rabbitry.flow._stores.sql import Tables, purge
from rabbitry.flow.exceptions import Retry, StoreError

_OPEN, _CLAIMED, _EXPIRED, _FINISHED = "open", "claimed", "expired", "finished"

_metadata = sa.MetaData()
_jobs = sa.Table(
    "rabbitry_join_job",
    _metadata,
    sa.Column("queue", sa.Text, primary_key=True),
    sa.Column("job", sa.Text, primary_key=True),
    sa.Column("total", sa.Integer, nullable=False),
    sa.Column("arrived", sa.Integer, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("owner", sa.Text),  # the id of the message that runs the join, or that found the job's time over
    sa.Column("run", sa.Text),  # which delivery of that message runs it; NULL if none has begun, or one has failed
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("kept_until", sa.Float, nullable=False, index=True),
)
_parts = sa.Table(
    "rabbitry_join_part",
    _metadata,
    sa.Column("queue", sa.Text, primary_key=True),
    sa.Column("job", sa.Text, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.ForeignKeyConstraint(["queue", "job"], ["rabbitry_join_job.queue", "rabbitry_join_job.job"], ondelete="CASCADE"),
)


class SqlStore:
    """The jobs of one join: see `JoinStore`.

    Args:
        url: SQLite or PostgreSQL.
        queue: The join's, which names its jobs.
        within: Seconds that the parts of a job may take.
        time_limit: Seconds that a run of the join may take.

    Raises:
        UsageError: The URL is malformed, or names another kind of database.
        StoreError: It can't be opened.
    """

    def __init__(self, url: str, queue: str, within: float, time_limit: float) -> None:
        self._queue = queue
        self._within = within
        self._time_limit = time_limit
        self._tables = Tables(url, "a join's store", _metadata)

    def close(self) -> None:
        """Close the connections."""
        self._tables.close()

    def arrive(self, part: Part, message: str, run: str, body: bytes) -> list[bytes] | None:
        """See `JoinStore`."""
        with self._transaction() as transaction:
            job = self._job(transaction, part)
            if job.state != _OPEN:
                if job.owner == message and job.state == _CLAIMED:
                    return self._run_again(transaction, job, part, run)
                if job.state == _EXPIRED or part.number not in self._numbers(transaction, part):
                    raise answers.came_late(part)
                return None
            if not self._keep(transaction, part, body):
                return None  # it came before
            if job.size + len(body) > answers.MOST_BYTES:
                raise answers.too_large(part, answers.MOST_BYTES)
            self._update(transaction, part, arrived=job.arrived + 1, size=job.size + len(body))
            if job.arrived + 1 < part.total:
                return None
            self._update(transaction, part, state=_CLAIMED, owner=message, run=run)
            return self._bodies(transaction, part)

    def end(self, part: Part, message: str, run: str, late: Late) -> list[bytes] | None:
        """See `JoinStore`."""
        with self._transaction() as transaction:
            job = self._job(transaction, part)
            if job.state == _OPEN:
                state = _CLAIMED if late == "join" or not part.total else _EXPIRED
                self._update(transaction, part, state=state, owner=message, run=run)
            elif job.owner != message or job.state == _FINISHED:
                return None
            elif job.state == _CLAIMED:
                return self._run_again(transaction, job, part, run)
            else:
                state = _EXPIRED
            if state == _CLAIMED:
                return self._bodies(transaction, part)
            numbers = self._numbers(transaction, part)
        raise answers.incomplete(part, numbers, self._within)

    def release(self, job: str, run: str) -> None:
        """See `JoinStore`."""
        with self._transaction() as transaction:
            mine = self._of(_jobs, job) & (_jobs.c.run == run)
            transaction.execute(sa.update(_jobs).where(mine).values(run=None))

    def finish(self, job: str) -> None:
        """See `JoinStore`."""
        with self._transaction() as transaction:
            transaction.execute(sa.update(_jobs).where(self._of(_jobs, job)).values(state=_FINISHED, size=0))
            transaction.execute(sa.update(_parts).where(self._of(_parts, job)).values(body=b""))
            purge(transaction, _jobs, time.time())

    def _of(self, table: sa.Table, job: str) -> sa.ColumnElement[bool]:
        """Return the condition that a row of a table is of this job."""
        return (table.c.queue == self._queue) & (table.c.job == job)

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        try:
            with self._tables.transaction() as transaction:
                yield transaction
        except StoreError as error:
            raise Retry(str(error), count=False) from error

    def _job(self, transaction: sa.Connection, part: Part) -> sa.Row[Any]:
        """Return a job's row, locked until the transaction ends; a new one if there is none. Raises Reject."""
        values = {
            "queue": self._queue,
            "job": part.job,
            "total": part.total,
            "arrived": 0,
            "state": _OPEN,
            "size": 0,
            "kept_until": time.time() + self._within + answers.KEPT,
        }
        transaction.execute(self._tables.insert(_jobs).values(values).on_conflict_do_nothing())
        job = transaction.execute(sa.select(_jobs).where(self._of(_jobs, part.job)).with_for_update()).one()
        if job.total != part.total:
            raise answers.split_otherwise(part, job.total)
        return job

    def _run_again(self, transaction: sa.Connection, job: sa.Row[Any], part: Part, run: str) -> list[bytes]:
        """Return the bodies for another run, by the same message. Raises Retry for a copy; see `being_joined`."""
        if job.run == run:
            raise answers.being_joined(part, self._time_limit)
        self._update(transaction, part, run=run)
        return self._bodies(transaction, part)

    def _keep(self, transaction: sa.Connection, part: Part, body: bytes) -> bool:
        """Keep a body; False if the part has one. No other transaction has the job meanwhile."""
        mine = self._of(_parts, part.job) & (_parts.c.number == part.number)
        if transaction.execute(sa.select(_parts.c.number).where(mine)).first() is not None:
            return False
        values = {"queue": self._queue, "job": part.job, "number": part.number, "body": body}
        transaction.execute(sa.insert(_parts).values(values))
        return True

    def _update(self, transaction: sa.Connection, part: Part, **values: object) -> None:
        transaction.execute(sa.update(_jobs).where(self._of(_jobs, part.job)).values(**values))

    def _numbers(self, transaction: sa.Connection, part: Part) -> set[int]:
        numbers = sa.select(_parts.c.number).where(self._of(_parts, part.job))
        return set(transaction.execute(numbers).scalars())

    def _bodies(self, transaction: sa.Connection, part: Part) -> list[bytes]:
        found = sa.select(_parts.c.body).where(self._of(_parts, part.job)).order_by(_parts.c.number)
        return [bytes(body) for body in transaction.execute(found).scalars()]
