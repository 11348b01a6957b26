"""The keeper as a stage: it applies a batch of messages in one transaction, and returns what is published for them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from functools import partial
from typing import Final, NoReturn

from sqlalchemy import Connection

from rabbitry.apps.crawl import names
from rabbitry.apps.crawl.keeper import index
from rabbitry.apps.crawl.keeper.database import Database
from rabbitry.apps.crawl.keeper.decoding import decode
from rabbitry.apps.crawl.keeper.failures import Failure, failure_of
from rabbitry.apps.crawl.keeper.inputs import Input
from rabbitry.apps.crawl.keeper.keeper import Decided, Keeper
from rabbitry.apps.crawl.messages import COMMAND, Answer, Tick
from rabbitry.apps.crawl.node import Node, crawl_app
from rabbitry.apps.exceptions import RecordsError
from rabbitry.exceptions import Undecodable
from rabbitry.flow import App, Batch, Message, Outgoing

AT_ONCE: Final = 500
"""Messages of one transaction."""
BUSY: Final = 16
"""Messages from which on a transaction waits for its turn, while more gather for the next one."""
GATHERING: Final = 0.25
"""Seconds from the end of a transaction to such a one. Commits, merges of the index and the crawlers' wake-ups cost the
same for few pages as for many: a page of links takes a quarter less CPU in all roles (`make bench-crawl`)."""
MOST_ANSWERS: Final = 1_000
"""Answers to commands that wait to be published."""
TICK: Final = 0.2
"""Seconds between two ticks."""
_TICK_LASTS: Final = 1.0
_LONGEST_PAUSE: Final = 15.0
"""Seconds until a database that can't be reached is tried again, at most."""
PATIENCE: Final = 20 * 60.0
"""Seconds that messages wait for a database that can't be reached; past 30 minutes the broker closes the channel."""
_TIME_LIMIT: Final = PATIENCE + 5 * 60.0

log = logging.getLogger("rabbitry.apps.crawl")


class Role:
    """The keeper of one process.

    answers: commands' answers that are committed, with where they go. ended: has the error for which this keeper can't
    go on, once there is one; what it has in hand is another one's, or that of the next start.
    """

    def __init__(self, node: Node, database: Database, *, per_host: int = 1, patience: float = PATIENCE) -> None:
        self.node = node
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._patience = patience
        self.answers: asyncio.Queue[tuple[str, str | None, Answer]] = asyncio.Queue(MOST_ANSWERS)
        self._applied_at = 0.0
        """When the last transaction ended, by the monotonic clock."""
        self._database = database
        self._keeper = Keeper(node.id, index, per_host=per_host)

    def app(self, *, plain: bool = False) -> App:
        """Return the app of the keeper, whose queue gets the pages too. plain: as the original programs declare."""
        app = crawl_app(plain=plain)
        app.output(names.PAGE_KEY, queue=names.KEEPER_QUEUE)
        app.output(names.BATCH_KEY, queue=names.BATCH_QUEUE)
        decorate = app.stage(
            names.KEEPER_KEY,
            queue=names.KEEPER_QUEUE,
            name="keeper",
            batch=AT_ONCE,
            time_limit=_TIME_LIMIT,
            # A plain queue has no arguments. Several keepers would take turns on it: reports overtake pages, and some
            # pages are fetched twice, so the docs say to run one.
            single_active=not plain,
        )
        decorate(self.keep)
        return app

    def tick(self) -> Outgoing:
        """Return a tick: whichever keeper is active looks at what is due."""
        return Outgoing(
            Tick(self.node.id), key=names.KEEPER_KEY, type=COMMAND, expiration=_TICK_LASTS, persistent=False
        )

    async def keep(self, bodies: list[bytes], messages: list[Message], batch: Batch) -> list[Outgoing]:
        """Apply messages, in the order they came."""
        inputs: list[Input] = []
        places: list[int] = []
        for place, (body, message) in enumerate(zip(bodies, messages, strict=True)):
            try:
                found = decode(body, message)
            except Undecodable as error:
                batch.fail(place, error)
                continue
            if found is not None:
                inputs.append(found)
                places.append(place)
        if BUSY <= len(inputs) < AT_ONCE:
            # A full one waits for nothing, so that this limits the rate of transactions, and not that of messages.
            await asyncio.sleep(self._applied_at + GATHERING - time.monotonic())
        try:
            comes_again = any(message.attempt > 1 for message in messages)
            decided = [await self._apply(inputs, comes_again=comes_again)]
        except Exception as error:  # noqa: BLE001 - it is told below, message by message
            log.warning("a transaction of %d messages failed: %s; each is applied alone", len(inputs), error)
            decided = await self._one_by_one(inputs, places, batch)
        self._applied_at = time.monotonic()
        self._answer(decided, messages)
        return [Outgoing(one, key=names.BATCH_KEY) for part in decided for one in part.batches]

    async def _one_by_one(self, inputs: Sequence[Input], places: Sequence[int], batch: Batch) -> list[Decided]:
        decided: list[Decided] = []
        for one, place in zip(inputs, places, strict=True):
            try:
                decided.append(await self._apply([one]))
            except Exception as error:  # noqa: BLE001 - the message's, which becomes a dead letter with it
                batch.fail(place, error)
        return decided

    async def _apply(self, inputs: Sequence[Input], *, comes_again: bool = False) -> Decided:
        """Apply inputs in one transaction; where the database can't be reached, wait for it.

        Where it can't be used any more, or could not be reached for `patience` seconds, the keeper ends. Raises what is
        the fault of a message.
        """
        begun, pause = time.monotonic(), 0.5
        while True:
            try:
                return await self._database.write(partial(self._write, inputs=inputs, comes_again=comes_again))
            except RecordsError as error:
                self._keeper.forget()
                failure = failure_of(error)
                if failure is Failure.OF_A_MESSAGE:
                    raise
                if failure is Failure.LASTING or time.monotonic() - begun > self._patience:
                    await self._end(error)
                log.warning("%s; trying again in %.1f s", error, pause)
            except BaseException:
                self._keeper.forget()
                raise
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _end(self, error: RecordsError) -> NoReturn:
        """End the keeper. What is in hand stays so until the worker gives it back to the broker, and is no attempt."""
        if not self.ended.done():
            self.ended.set_exception(error)
        await asyncio.Event().wait()
        raise AssertionError("cancelled before")

    def _write(self, connection: Connection, inputs: Sequence[Input], *, comes_again: bool) -> Decided:
        try:
            return self._keeper.apply(connection, inputs, time.time(), comes_again=comes_again)
        except BaseException:
            self._keeper.forget()
            raise

    def _answer(self, decided: Sequence[Decided], messages: Sequence[Message]) -> None:
        answers = {identity: answer for part in decided for identity, answer in part.answers.items()}
        for message in messages:
            if message.id not in answers or not message.reply_to:
                continue
            if self.answers.full():
                # Who asked first has waited for longest, and may have gone.
                _, correlation_id, _ = self.answers.get_nowait()
                log.warning("the answer to command %s is dropped: more than %d wait", correlation_id, MOST_ANSWERS)
            self.answers.put_nowait((message.reply_to, message.correlation_id, answers[message.id]))
