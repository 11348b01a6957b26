"""Joins: stages whose handler runs once for all parts of a job.

Each part is kept in the join's store and acknowledged. The message that brings the last one runs the handler: its id is
in the store, so that it is told from a copy of a part that comes later, and runs the handler again if its worker dies.
"""

from __future__ import annotations

import contextlib
from typing import Final

from rabbitry._installing import missing
from rabbitry.exceptions import Undecodable
from rabbitry.flow._gate import Taken
from rabbitry.flow._gates import gated, store_url
from rabbitry.flow._parts import Join, Late, part_of
from rabbitry.flow._stores.join_answers import JoinStore
from rabbitry.flow._stores.redis import is_redis
from rabbitry.flow.codec import Codec
from rabbitry.flow.exceptions import AppError, Reject, Retry
from rabbitry.flow.message import (
    INTERRUPTED,
    PART,
    REPLAYED,
    UNCOUNTED,
    Message,
    count_in,
    text_header,
    uncounted_pause,
)
from rabbitry.flow.outgoing import Outgoing
from rabbitry.flow.stage import Stage
from rabbitry.flow.wiring.delays import LONGEST

_JOINED: Final = "x-rabbitry-joined"
"""The job whose join is done, in a message to the join itself."""


def make_join(
    stage: Stage, what: str, *, app: str, of: str, within: float, late: Late, store: str | None
) -> tuple[Stage, Join]:
    """Make a join of a stage whose handler takes a list. Raises AppError for a handler that can't be one."""
    if not within:
        raise AppError(f"{what}: within={within!r}: a join has a limit of time: give positive seconds")
    if within > LONGEST:
        raise AppError(f"{what}: within={within!r}: give at most {LONGEST} seconds, four years")
    join = Join(of, stage.queue, float(within), stage.time_limit)

    def opened() -> JoinStore:
        return _open(f"{what}: a join", store_url(app, store, "joins"), join)

    def gate(store: JoinStore, message: Message, body: bytes) -> _Arrival:
        return _Arrival(store, message, body, stage.codec, join, late)

    return gated(stage, what, opened, gate), join


def _open(what: str, url: str, join: Join) -> JoinStore:
    try:
        if is_redis(url):
            from rabbitry.flow._stores.join_redis import RedisStore

            return RedisStore(url, join.queue, join.within, join.time_limit)
        from rabbitry.flow._stores.join_sql import SqlStore

        return SqlStore(url, join.queue, join.within, join.time_limit)
    except ModuleNotFoundError as error:
        raise AppError(missing(what, error, "redis" if is_redis(url) else "records")) from error


class _Arrival:
    """A message of a join's queue, and the store that it goes to: a `Gate`."""

    is_skipped = False

    def __init__(self, store: JoinStore, message: Message, body: bytes, codec: Codec, join: Join, late: Late) -> None:
        self._store = store
        self._message = message
        self._body = body
        self._codec = codec
        self._join = join
        self._late = late
        self._job = ""
        counts = (count_in(message.headers, name) for name in (UNCOUNTED, INTERRUPTED, REPLAYED))
        self._run = ".".join(str(count) for count in (message.attempt, *counts))

    def take(self) -> Taken | None:
        """Return the parts of the job, in their order, if the join runs now. Raises Reject, Retry and Undecodable."""
        headers = self._message.headers
        if (job := text_header(headers, _JOINED)) is not None:
            self._store.finish(job)
            return None
        part = part_of(text_header(headers, PART) or "")
        if part is None:
            raise Reject("no part of a job: a join takes what follows from the results of the stage that it is `of`")
        self._job = part.job
        if part.is_notice:
            bodies = self._store.end(part, self._message.id, self._run, self._late)
        else:
            # One that can't be decoded is a dead letter of its own.
            body = self._codec.kept(self._body, self._message.content_type)
            bodies = self._store.arrive(part, self._message.id, self._run, body)
        if bodies is None:
            return None
        try:
            return Taken([self._codec.restored(body) for body in bodies])
        except Undecodable as error:  # a worker that could read it has kept it: one of another version of the app
            self.release()
            raise Retry(
                f"a part of job {part.job!r} was kept by a worker of another version, and can't be read here: {error}",
                after=uncounted_pause(count_in(headers, UNCOUNTED)),
                count=False,
            ) from error

    def release(self) -> None:
        """Note that the handler failed or was ended. While the store can't be reached, a copy waits longer."""
        with contextlib.suppress(Retry):
            self._store.release(self._job, self._run)

    def note(self) -> Outgoing:
        """Return the message of the join to itself that notes that its results are confirmed."""
        return Outgoing(b"", key=self._join.queue, headers={_JOINED: self._job})
