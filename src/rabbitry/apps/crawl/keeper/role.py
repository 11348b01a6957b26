"""The keeper as a stage: it applies a batch of messages in one transaction and returns the messages to publish."""

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
from rabbitry.apps.crawl.keeper.costs import LIMIT, most_of
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
"""Messages in one transaction."""
BUSY: Final = 16
"""Messages above which a transaction is delayed, so that more gather for it."""
GATHERING: Final = 0.25
"""Seconds of that delay, from the end of the previous transaction. Commits, index merges and crawlers' wake-ups cost
the same for few pages as for many: a page of links takes a quarter less CPU in all roles (`make bench-crawl`)."""
_WAITING: Final = 0.5
"""Seconds without a tick after which more messages wait on the broker than this batch could take: it is not delayed.
Batches of long documents are never full, and with a delay for each a keeper would fall behind while it sleeps."""
_DECODED: Final = 4_000_000
"""Bytes of JSON decoded at once."""
_CROWDED: Final = 40_000
"""The most that a batch's documents may cost (`costs.py`) above which more probably wait on the broker, with commands
behind them. All then go to the backlog: 4 MB of links take 15 ms of CPU, while applying them takes a second. Documents
of long texts and few links cost little by the byte: the backlog would add a quarter to each (`make bench-crawl`)."""
_ORDER: Final = {COMMAND: 0, Document.__name__: 2}
MOST_ANSWERS: Final = 1_000
"""Answers to commands that wait to be published."""
TICK: Final = 0.2
"""Seconds between two ticks."""
_TICK_LASTS: Final = 1.0
_LATE: Final = 2.0
"""Seconds without a tick after which the keeper is behind: ticks expire, because messages wait longer than they last.
Small documents crowd in too, without ever filling a transaction: 1,500 of 25 kB kept a command waiting for 15 s."""
_PAUSES: Final = Backoff(1.0, 15.0)
"""Seconds before an unreachable database is tried again."""
PATIENCE: Final = 20 * 60.0
"""Seconds that messages wait for an unreachable database; after 30 minutes the broker closes the channel."""
_TIME_LIMIT: Final = PATIENCE + 5 * 60.0

T = TypeVar("T")
_logger = logging.getLogger(__name__)


class Role:
    """The keeper of one process.

    answers: committed commands' answers with their destinations. ended: holds the error that ended this keeper, if any;
    its unacknowledged messages then go to another keeper, or wait for the next start.
    """

    def __init__(self, node: Node, database: Database, *, per_host: int = 1, patience: float = PATIENCE) -> None:
        self.node = node
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._patience = patience
        self.answers: asyncio.Queue[tuple[str, str | None, Answer]] = asyncio.Queue(MOST_ANSWERS)
        self._applied_at = 0.0
        """The end of the last transaction, by the monotonic clock."""
        self._ticked_at: float | None = None
        """When the last tick came, or else the first messages, by the monotonic clock."""
        self._database = database
        self._keeper = Keeper(node.id, index, per_host=per_host)
        self._app = crawl_app()

    def app(self, *, plain: bool = False) -> App:
        """Return the keeper's app, whose queue also gets the pages. plain: use the original programs' flags."""
        app = self._app = crawl_app(plain=plain)
        app.output(names.PAGE_KEY, queue=names.KEEPER_QUEUE)
        app.output(names.BATCH_KEY, queue=names.BATCH_QUEUE)
        decorate = app.stage(
            names.KEEPER_KEY,
            queue=names.KEEPER_QUEUE,
            name="keeper",
            batch=AT_ONCE,
            time_limit=_TIME_LIMIT,
            # A plain queue has no arguments. Several keepers would then share it in turn: reports would overtake pages,
            # and some pages would be fetched twice. Therefore the docs say to run one.
            single_active=not plain,
        )
        decorate(self.keep)
        return app

    def tick(self) -> Outgoing:
        """Return a tick: the active keeper then checks what is due."""
        return Outgoing(
            Tick(self.node.id), key=names.KEEPER_KEY, type=COMMAND, expiration=_TICK_LASTS, persistent=False
        )

    async def keep(self, bodies: list[bytes], messages: list[Message], batch: Batch) -> list[Outgoing]:
        """Apply messages: commands first, because their senders wait, and documents last, because they may wait.

        Messages of each kind are applied in order of arrival.
        """
        order = sorted(range(len(messages)), key=lambda place: _ORDER.get(messages[place].type or "", 1))
        documents = sum(
            most_of(body) for body, it in zip(bodies, messages, strict=True) if it.type == Document.__name__
        )
        seconds = self._seconds_without_tick(messages)
        is_late = seconds > _LATE
        is_crowded = documents >= _CROWDED or (is_late and documents > 0)
        is_urgent = is_crowded or seconds > _WAITING or any(message.reply_to for message in messages)
        if not is_urgent and BUSY <= sum(message.type != COMMAND for message in messages) < AT_ONCE:
            # A full batch is not delayed: the delay limits the rate of transactions, not that of messages.
            await asyncio.sleep(self._applied_at + GATHERING - time.monotonic())
        comes_again = any(message.attempt > 1 for message in messages)
        decided: list[Decided] = []
        for inputs, places in _decoded(order, bodies, messages, batch, is_apart=is_crowded):
            try:
                while inputs or not decided:
                    # If documents wait already, later ones have no room either.
                    is_full = any(part.waiting for part in decided)
                    # With many documents, a batch's other messages leave the backlog alone, and so do commands.
                    kind = type(inputs[0]) if inputs else None
                    part = await self._apply(
                        inputs,
                        comes_again=comes_again,
                        limit=0 if is_full or (is_crowded and kind is Document) else LIMIT,
                        is_alone=kind is Asked or (is_crowded and kind is not Document),
                        is_late=is_late,
                    )
                    self._answer(part, messages)
                    decided.append(part)
                    del inputs[: part.taken], places[: part.taken]
            except Exception as error:  # noqa: BLE001 - it is reported below, message by message
                _logger.warning("a transaction of %d messages failed: %s; applying each alone", len(inputs), error)
                decided += await self._one_by_one(inputs, places, batch, messages, is_late=is_late)
        self._applied_at = time.monotonic()
        return [Outgoing(one, key=names.BATCH_KEY) for part in decided for one in part.batches]

    def _seconds_without_tick(self, messages: Sequence[Message]) -> float:
        """Note whether a tick came; return how long none has come. If it is long, the keeper is behind."""
        now = time.monotonic()
        if self._ticked_at is None or any(one.type == COMMAND and not one.reply_to for one in messages):
            self._ticked_at = now
        return now - self._ticked_at

    async def _one_by_one(
        self, inputs: Sequence[Input], places: Sequence[int], batch: Batch, messages: list[Message], *, is_late: bool
    ) -> list[Decided]:
        decided: list[Decided] = []
        for one, place in zip(inputs, places, strict=True):
            try:
                part = await self._apply([one], is_alone=True, is_late=is_late)
            except Exception as error:  # noqa: BLE001 - the message becomes a dead letter with it
                batch.fail(place, error)
            else:
                self._answer(part, messages)
                decided.append(part)
        if len(decided) == len(inputs):
            await self._give_back()
        return decided

    async def _give_back(self) -> None:
        """Publish the documents that waited longest again: one may be at fault and then becomes a dead letter."""
        documents = await self._transact(partial(self._keeper.first_waiting, now=time.time()))
        for document in documents:
            await self._app.publish(document, key=names.KEEPER_KEY)
        if documents:
            await self._transact(partial(self._keeper.drop_waiting, now=time.time(), documents=documents))

    async def _apply(
        self,
        inputs: Sequence[Input],
        *,
        comes_again: bool = False,
        limit: int = LIMIT,
        is_alone: bool = False,
        is_late: bool = False,
    ) -> Decided:
        """Apply inputs in one transaction; see `_transact`."""
        return await self._transact(
            lambda connection: self._keeper.apply(
                connection, inputs, time.time(), comes_again=comes_again, limit=limit, is_alone=is_alone,
                is_late=is_late,
            )
        )  # fmt: skip

    async def _transact(self, work: Callable[[Connection], T]) -> T:
        """Do the keeper's work in one transaction; if the database can't be reached, wait for it.

        If it becomes unusable, or can't be reached for `patience` seconds, the keeper ends. Raises errors caused by a
        message. After a failed transaction the keeper reads all its state again in the next one.
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
        """End the keeper. Its messages stay unacknowledged until the worker returns them, and no attempt is counted."""
        if not self.ended.done():
            self.ended.set_exception(error)
        await asyncio.Event().wait()
        raise AssertionError("the wait above ends only by cancelling")

    def _checked(self, work: Callable[[Connection], T], connection: Connection) -> T:
        """Do work; on failure forget the state at once, because the next transaction may run before the loop knows."""
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
                # The first one has waited longest, and its client may have left.
                _, correlation_id, _ = self.answers.get_nowait()
                _logger.warning("the answer to command %s is dropped: more than %d wait", correlation_id, MOST_ANSWERS)
            self.answers.put_nowait((message.reply_to, message.correlation_id, answers[message.id]))


def _decoded(
    order: Sequence[int], bodies: Sequence[bytes], messages: Sequence[Message], batch: Batch, *, is_apart: bool
) -> Iterator[tuple[list[Input], list[int]]]:
    """Decode messages in a given order, in parts; yield the input and the positions of its messages.

    Commands are a part of their own, because clients wait for them; is_apart: documents are, too.

    A decoded link takes five times as many bytes as its text.
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
