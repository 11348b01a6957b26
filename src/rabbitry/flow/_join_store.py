"""The store of joins: which parts of each job have arrived, and which message runs the join.

SQLite or PostgreSQL (`_stores`); this module is imported when a worker of a join starts. What is decided about a job is
decided in one transaction that holds the job's row, so that of any number of workers one runs the join.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import sqlalchemy as sa

from rabbitry._words import counted
from rabbitry.flow._parts import Late, Part
from rabbitry.flow._stores import Tables
from rabbitry.flow.exceptions import Reject, Retry, StoreError

MOST_BYTES: Final = 64 << 20
"""Bytes of the bodies of a job's parts. They are in memory at once when the join runs."""
KEPT: Final = 7 * 86400.0
"""Seconds after its limit of time for which a job is known, so that a part that comes again does not begin it anew."""
_MOST_NAMED: Final = 20
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


class Store:
    """The jobs of one join. Used from any thread; `close` ends its connections.

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
        """Keep a part. Return the bodies of all in their order if this message is to run the join, and None if not.

        Args:
            part: The place of the part in its job.
            message: The message's id. The same one gets the same answer when it is delivered again.
            run: Counts its deliveries, as far as one was begun.
            body: The part.

        Raises:
            Reject: The job can't take the part.
            Retry: The store can't be reached; or this is a copy of the message that runs the join.
        """
        with self._transaction() as transaction:
            job = self._job(transaction, part)
            if job.state != _OPEN:
                if job.owner == message and job.state == _CLAIMED:
                    return self._run_again(transaction, job, part, run)
                if job.state == _EXPIRED or part.number not in self._numbers(transaction, part):
                    raise Reject(
                        f"part {part.number} of job {part.job!r} came after the job's limit of time", reason="late"
                    )
                return None
            if not self._keep(transaction, part, body):
                return None  # it came before
            if job.size + len(body) > MOST_BYTES:
                raise Reject(
                    f"the parts of job {part.job!r} have more than {MOST_BYTES} bytes: publish where they are kept"
                )
            self._update(transaction, part, arrived=job.arrived + 1, size=job.size + len(body))
            if job.arrived + 1 < part.total:
                return None
            self._update(transaction, part, state=_CLAIMED, owner=message, run=run)
            return self._bodies(transaction, part)

    def end(self, part: Part, message: str, run: str, late: Late) -> list[bytes] | None:
        """End a job that has no parts, or whose time is over. Returns and raises as `arrive` does.

        With late="dead", Reject names the parts that are missing.
        """
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
            missing = sorted(set(range(part.total)) - self._numbers(transaction, part))
        names = ", ".join(str(number) for number in missing[:_MOST_NAMED])
        more = f" and {len(missing) - _MOST_NAMED} more" if len(missing) > _MOST_NAMED else ""
        raise Reject(
            f"job {part.job!r} has {counted(len(missing), 'part')} of {part.total} missing after {self._within:g} s: "
            f"{names}{more}",
            reason="late",
        )

    def release(self, job: str, run: str) -> None:
        """Note that a run of the join failed, so that its message runs it again however it comes."""
        with self._transaction() as transaction:
            mine = (_jobs.c.queue == self._queue) & (_jobs.c.job == job) & (_jobs.c.run == run)
            transaction.execute(sa.update(_jobs).where(mine).values(run=None))

    def finish(self, job: str) -> None:
        """Note that the results of a join are confirmed, and drop what is not needed any more."""
        with self._transaction() as transaction:
            mine = (_jobs.c.queue == self._queue) & (_jobs.c.job == job)
            transaction.execute(sa.update(_jobs).where(mine).values(state=_FINISHED, size=0))
            mine = (_parts.c.queue == self._queue) & (_parts.c.job == job)
            transaction.execute(sa.update(_parts).where(mine).values(body=b""))
            transaction.execute(sa.delete(_jobs).where(_jobs.c.kept_until < time.time()))

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
            "kept_until": time.time() + self._within + KEPT,
        }
        transaction.execute(self._tables.insert(_jobs).values(values).on_conflict_do_nothing())
        mine = (_jobs.c.queue == self._queue) & (_jobs.c.job == part.job)
        job = transaction.execute(sa.select(_jobs).where(mine).with_for_update()).one()
        if job.total != part.total:
            raise Reject(
                f"job {part.job!r} was split in {job.total} parts, and in {part.total} when it was handled again: "
                "make the same parts of the same message"
            )
        return job

    def _run_again(self, transaction: sa.Connection, job: sa.Row[Any], part: Part, run: str) -> list[bytes]:
        """Return the bodies for another run, by the same message. Raises Retry for a copy of the delivery that runs it.

        A worker that is killed while it publishes a redelivered message anew leaves two copies of it, and so does a
        client that publishes again what was not confirmed. They have equal counts, and what comes again because its
        worker died has a higher one. A copy waits until that run is over: then the results are confirmed, or it is the
        message's turn.
        """
        if job.run == run:
            raise Retry(f"job {part.job!r} is being joined", after=self._time_limit, count=False)
        self._update(transaction, part, run=run)
        return self._bodies(transaction, part)

    def _keep(self, transaction: sa.Connection, part: Part, body: bytes) -> bool:
        """Keep a body; False if the part has one. No other transaction has the job meanwhile."""
        mine = (_parts.c.queue == self._queue) & (_parts.c.job == part.job) & (_parts.c.number == part.number)
        if transaction.execute(sa.select(_parts.c.number).where(mine)).first() is not None:
            return False
        values = {"queue": self._queue, "job": part.job, "number": part.number, "body": body}
        transaction.execute(sa.insert(_parts).values(values))
        return True

    def _update(self, transaction: sa.Connection, part: Part, **values: object) -> None:
        mine = (_jobs.c.queue == self._queue) & (_jobs.c.job == part.job)
        transaction.execute(sa.update(_jobs).where(mine).values(**values))

    def _numbers(self, transaction: sa.Connection, part: Part) -> set[int]:
        mine = (_parts.c.queue == self._queue) & (_parts.c.job == part.job)
        return set(transaction.execute(sa.select(_parts.c.number).where(mine)).scalars())

    def _bodies(self, transaction: sa.Connection, part: Part) -> list[bytes]:
        mine = (_parts.c.queue == self._queue) & (_parts.c.job == part.job)
        found = sa.select(_parts.c.body).where(mine).order_by(_parts.c.number)
        return [bytes(body) for body in transaction.execute(found).scalars()]
