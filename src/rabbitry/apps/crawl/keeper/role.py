"""The keeper as a stage: it applies a batch of messages in one transaction, and returns what is published for them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final, NoReturn, TypeVar

from sqlalchemy import Connection

from rabbitry.apps.crawl import names
from rabbitry.apps.crawl.keeper import index
from rabbitry.apps.crawl.keeper.costs import LIMIT
from rabbitry.apps.crawl.keeper.database import Database
from rabbitry.apps.crawl.keeper.decoding import decode
from rabbitry.apps.crawl.keeper.failures import Failure, failure_of
from rabbitry.apps.crawl.keeper.inputs import Asked, Input, Page
from rabbitry.apps.crawl.keeper.keeper import Decided, Keeper
from rabbitry.apps.crawl.messages import COMMAND, Answer, Document, Tick
from rabbitry.apps.crawl.node import Node, crawl_app
from rabbitry.apps.exceptions import RecordsError
from rabbitry.exceptions import Undecodable
from rabbitry.flow import App, Batch, Message, Outgoing
from rabbitry.runtime.backoff import Backoff

AT_ONCE: Final = 128
"""Messages of one transaction."""
BUSY: Final = 16
"""Messages from which on a transaction waits for its turn, while more gather for the next one."""
GATHERING: Final = 0.25
"""Seconds from the end of a transaction to such a one. Commits, merges of the index and the crawlers' wake-ups cost the
same for few pages as for many: a page of links takes a quarter less CPU in all roles (`make bench-crawl`)."""
_DECODED: Final = 4_000_000
"""Bytes of JSON that are decoded at once."""
_CROWDED: Final = 3_000_000
"""Bytes of documents from which on more of them probably wait on the broker, with commands behind them. They all go
into the backlog then: 4 MB take 15 ms of CPU, and to apply them takes a second."""
_ORDER: Final = {COMMAND: 0, Document.__name__: 2}
MOST_ANSWERS: Final = 1_000
"""Answers to commands that wait to be published."""
TICK: Final = 0.2
"""Seconds between two ticks."""
_TICK_LASTS: Final = 1.0
_PAUSES: Final = Backoff(1.0, 15.0)
"""Until a database that can't be reached is tried again."""
PATIENCE: Final = 20 * 60.0
"""Seconds that messages wait for a database that can't be reached; past 30 minutes the broker closes the channel."""
_TIME_LIMIT: Final = PATIENCE + 5 * 60.0

T = TypeVar("T")
_logger = logging.getLogger(__name__)


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
        self._app = crawl_app()

    def app(self, *, plain: bool = False) -> App:
        """Return the app of the keeper, whose queue gets the pages too. plain: as the original programs declare."""
        app = self._app = crawl_app(plain=plain)
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
        """Apply messages: commands first, since somebody waits for them, and documents last, since these may wait.

        Those of each kind are applied in the order they came.
        """
        order = sorted(range(len(messages)), key=lambda place: _ORDER.get(messages[place].type or "", 1))
        documents = (place for place, message in enumerate(messages) if message.type == Document.__name__)
        is_crowded = sum(len(bodies[place]) for place in documents) >= _CROWDED
        is_urgent = is_crowded or any(message.reply_to for message in messages)
        if not is_urgent and BUSY <= sum(message.type != COMMAND for message in messages) < AT_ONCE:
            # A full one waits for nothing, so that this limits the rate of transactions, and not that of messages.
            await asyncio.sleep(self._applied_at + GATHERING - time.monotonic())
        comes_again = any(message.attempt > 1 for message in messages)
        decided: list[Decided] = []
        for inputs, places in _decoded(order, bodies, messages, batch, is_apart=is_crowded):
            try:
                while inputs or not decided:
                    # If documents wait already, those behind them have no room either.
                    is_full = any(part.waiting for part in decided)
                    # While they crowd in, the other messages of a batch leave the backlog alone, and so do commands.
                    kind = type(inputs[0]) if inputs else None
                    part = await self._apply(
                        inputs,
                        comes_again=comes_again,
                        limit=0 if is_full or (is_crowded and kind is Document) else LIMIT,
                        is_alone=kind is Asked or (is_crowded and kind is not Document),
                    )
                    self._answer(part, messages)
                    decided.append(part)
                    del inputs[: part.taken], places[: part.taken]
            except Exception as error:  # noqa: BLE001 - it is told below, message by message
                _logger.warning("a transaction of %d messages failed: %s; each is applied alone", len(inputs), error)
                decided += await self._one_by_one(inputs, places, batch, messages)
        self._applied_at = time.monotonic()
        return [Outgoing(one, key=names.BATCH_KEY) for part in decided for one in part.batches]

    async def _one_by_one(
        self, inputs: Sequence[Input], places: Sequence[int], batch: Batch, messages: list[Message]
    ) -> list[Decided]:
        decided: list[Decided] = []
        for one, place in zip(inputs, places, strict=True):
            try:
                part = await self._apply([one], is_alone=True)
            except Exception as error:  # noqa: BLE001 - the message's, which becomes a dead letter with it
                batch.fail(place, error)
            else:
                self._answer(part, messages)
                decided.append(part)
        if len(decided) == len(inputs):
            await self._give_back()
        return decided

    async def _give_back(self) -> None:
        """Publish documents that waited longest again, one of which may be at fault: it becomes a dead letter then."""
        documents = await self._transact(partial(self._keeper.first_waiting, now=time.time()))
        for document in documents:
            await self._app.publish(document, key=names.KEEPER_KEY)
        if documents:
            await self._transact(partial(self._keeper.drop_waiting, now=time.time(), documents=documents))

    async def _apply(
        self, inputs: Sequence[Input], *, comes_again: bool = False, limit: int = LIMIT, is_alone: bool = False
    ) -> Decided:
        """Apply inputs in one transaction; see `_transact`."""
        return await self._transact(
            lambda connection: self._keeper.apply(
                connection, inputs, time.time(), comes_again=comes_again, limit=limit, is_alone=is_alone
            )
        )

    async def _transact(self, work: Callable[[Connection], T]) -> T:
        """Do work of the keeper in one transaction; if the database can't be reached, wait for it.

        If it can't be used any more, or could not be reached for `patience` seconds, the keeper ends. Raises what is
        the fault of a message. A keeper whose transaction failed reads everything anew in the next one.
        """
        begun, attempt = time.monotonic(), 0
        while True:
            attempt += 1
            try:
                return await self._database.write(partial(self._checked, work))
            except RecordsError as error:
                self._keeper.forget()
                failure = failure_of(error)
                if failure is Failure.OF_A_MESSAGE:
                    raise
                if failure is Failure.LASTING or time.monotonic() - begun > self._patience:
                    await self._end(error)
                pause = _PAUSES.pause(attempt)
                _logger.warning("%s; trying again in %.1f s", error, pause)
            except BaseException:
                self._keeper.forget()
                raise
            await asyncio.sleep(pause)

    async def _end(self, error: RecordsError) -> NoReturn:
        """End the keeper. What is in hand stays so until the worker gives it back to the broker, and is no attempt."""
        if not self.ended.done():
            self.ended.set_exception(error)
        await asyncio.Event().wait()
        raise AssertionError("cancelled before")

    def _checked(self, work: Callable[[Connection], T], connection: Connection) -> T:
        """Do work, after which the next transaction may run at once, before the loop knows that this one failed."""
        try:
            return work(connection)
        except BaseException:
            self._keeper.forget()
            raise

    def _answer(self, decided: Decided, messages: Sequence[Message]) -> None:
        answers = decided.answers
        for message in messages if answers else ():
            if message.id not in answers or not message.reply_to:
                continue
            if self.answers.full():
                # Who asked first has waited for longest, and may have gone.
                _, correlation_id, _ = self.answers.get_nowait()
                _logger.warning("the answer to command %s is dropped: more than %d wait", correlation_id, MOST_ANSWERS)
            self.answers.put_nowait((message.reply_to, message.correlation_id, answers[message.id]))


def _decoded(
    order: Sequence[int], bodies: Sequence[bytes], messages: Sequence[Message], batch: Batch, *, is_apart: bool
) -> Iterator[tuple[list[Input], list[int]]]:
    """Decode messages in an order, a part at a time; yields inputs, and the places of their messages.

    Commands are in a part of their own, since somebody waits for its transaction; is_apart: documents are, too.

    A link takes five times as many bytes as its text once it is decoded.
    """
    apart = (Asked, Document) if is_apart else (Asked,)
    inputs: list[Input] = []
    places: list[int] = []
    size = 0
    for place in order:
        try:
            found = decode(bodies[place], messages[place])
        except Undecodable as error:
            batch.fail(place, error)
            continue
        if found is None:
            continue
        if inputs and any(isinstance(inputs[-1], kind) != isinstance(found, kind) for kind in apart):
            yield inputs, places
            inputs, places, size = [], [], 0
        inputs.append(found)
        places.append(place)
        size += len(bodies[place]) if not isinstance(found, Page) else 0
        if size >= _DECODED:
            yield inputs, places
            inputs, places, size = [], [], 0
    yield inputs, places
