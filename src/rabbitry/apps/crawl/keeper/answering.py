"""Answers to queries about a crawl from its database: over the broker, or for a program that has opened the database.

Each query has a time limit, and only a few slow ones run at once, so that none delays the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

import msgspec
from sqlalchemy import Connection as Transaction
from sqlalchemy.exc import DBAPIError

from rabbitry._decode import json_decoder
from rabbitry.amqp.client import Channel, Connection, Delivery, Properties
from rabbitry.apps.crawl import names
from rabbitry.apps.crawl.answers import (
    MOST_HOSTS,
    Answered,
    AskExport,
    AskHosts,
    AskSearch,
    AskStatus,
    AskWhy,
    NodeSeen,
    Question,
    Refused,
    Status,
)
from rabbitry.apps.crawl.keeper import index, reading
from rabbitry.apps.crawl.keeper.database import Database
from rabbitry.apps.crawl.keeper.exporting import export
from rabbitry.apps.crawl.keeper.searching import search
from rabbitry.apps.exceptions import RecordsError
from rabbitry.exceptions import Closed, ProtocolViolation, PublishError, RequestTimeout, Undecodable, UsageError
from rabbitry.flow.codec import JSON
from rabbitry.runtime.tasks import background, until
from rabbitry.telemetry import Collector

TIME_LIMIT: Final = 5.0
"""Seconds that the database has for a query."""
LARGEST_QUESTION: Final = 100_000
"""Bytes."""
AT_ONCE: Final = 16
"""Queries that one keeper holds; the others wait on the broker."""
LONG_AT_ONCE: Final = 2
"""Searches and exports that run at once. The database has four readers."""
LONG_HELD: Final = 8
"""Searches and exports that a keeper holds; the limit leaves room for other queries."""
BUSY: Final = "the keeper is busy with other searches and exports: try again in a few seconds"

_ROLES: Final = ("crawler", "processor", "keeper")
_STEPS: Final = 10_000
"""Steps of SQLite's virtual machine between two checks of the clock: less than a millisecond."""

_logger = logging.getLogger(__name__)
_encode: Final = msgspec.json.Encoder().encode
_decode_question: Final[Any] = json_decoder(Question)  # type: ignore[arg-type] # a union is no type


def answer(transaction: Transaction, question: Question) -> Answered:
    """Return the answer to a query. Raises UsageError, or RecordsError if it takes more than TIME_LIMIT."""
    with _limited(transaction):
        if isinstance(question, AskStatus):
            status = reading.status(transaction, time.time())
            return msgspec.structs.replace(status, documents=index.count(transaction))
        if isinstance(question, AskWhy):
            return reading.why(transaction, question.url, time.time())
        if isinstance(question, AskHosts):
            limit = max(1, min(question.limit, MOST_HOSTS))
            return reading.hosts(transaction, limit, max(0, min(question.offset, 1 << 40)))
        if isinstance(question, AskSearch):
            return search(transaction, question.words, question.limit, question.offset)
        return export(transaction, max(0, min(question.after, (1 << 63) - 1)), bodies=question.bodies)


@contextlib.contextmanager
def _limited(transaction: Transaction) -> Iterator[None]:
    """Interrupt the database's work for a query after TIME_LIMIT."""
    deadline = time.monotonic() + TIME_LIMIT
    driver = transaction.connection.driver_connection
    if isinstance(driver, sqlite3.Connection):
        driver.set_progress_handler(lambda: time.monotonic() > deadline, _STEPS)
    else:
        transaction.exec_driver_sql(f"SET LOCAL statement_timeout = {int(TIME_LIMIT * 1000)}")
    try:
        yield
    except DBAPIError as error:
        if time.monotonic() <= deadline:
            raise
        raise RecordsError(f"the answer took more than {TIME_LIMIT:g} s and was abandoned: ask for less") from error
    finally:
        if isinstance(driver, sqlite3.Connection):
            driver.set_progress_handler(None, 0)


# -- over the broker -------------------------------------------------------------------------------------


async def answer_questions(
    database: Database, stop: asyncio.Event, answering: asyncio.Event, connection: Connection
) -> None:
    """Answer queries from the database until `stop` is set. Raises ConnectionClosed, ConsumerCancelled.

    `answering` is set once the queue for queries exists. Any number of keepers answer in parallel, active or not.
    """
    collector = Collector()
    async with background(_collect(collector, connection)):
        async with await connection.channel(prefetch=AT_ONCE) as channel:
            await channel.declare_queue(names.QUESTION_QUEUE, durable=True)
            answering.set()
            await until(stop, _Answering(database, channel, collector).run())


async def _collect(collector: Collector, connection: Connection) -> None:
    """Collect the live nodes' telemetry; without it, `status` lists none."""
    try:
        await collector.run(connection)
    except (Closed, RequestTimeout) as error:
        if connection.is_open:
            _logger.warning("this keeper can't list the crawl's running nodes: %s", error)


class _Answering:
    """The queries of one channel, each in a task of its own; prefetch bounds their number."""

    def __init__(self, database: Database, channel: Channel, collector: Collector) -> None:
        self._database = database
        self._channel = channel
        self._collector = collector
        self._long = asyncio.Semaphore(LONG_AT_ONCE)
        self._held = 0

    async def run(self) -> None:
        """Answer until cancelled. Raises ConnectionClosed, ChannelClosed, ConsumerCancelled."""
        tasks: set[asyncio.Task[None]] = set()
        try:
            async with self._channel.consume(names.QUESTION_QUEUE) as questions:
                async for delivery in questions:
                    task = asyncio.create_task(self._take(delivery))
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _take(self, delivery: Delivery) -> None:
        try:
            # A redelivered query may have killed a keeper. The client repeats its query.
            if not delivery.redelivered:
                await self._reply(delivery)
        except (PublishError, ProtocolViolation) as error:
            _logger.warning("a query about the crawl is not answered: %s", error)
        except Closed as error:
            _logger.debug("a query about the crawl is not answered: %s", error)  # `run` raises it
        finally:
            if delivery.is_open:  # else the connection was lost meanwhile
                delivery.ack()

    async def _reply(self, delivery: Delivery) -> None:
        properties = delivery.properties
        body = _encode(await self._answer(delivery.body))
        if properties.reply_to:
            # The client may be gone; then the answer is not needed.
            await self._channel.publish(
                body,
                routing_key=properties.reply_to,
                properties=Properties(content_type=JSON, correlation_id=properties.correlation_id, delivery_mode=1),
                mandatory=False,
            )

    async def _answer(self, body: bytes) -> Answered:
        if len(body) > LARGEST_QUESTION:
            return Refused(f"a query must have at most {LARGEST_QUESTION:,} bytes", is_usage=True)
        try:
            question: Question = _decode_question(body)
            work = partial(answer, question=question)
            if isinstance(question, AskSearch | AskExport):
                return await self._answer_long(work)
            answered = await self._database.read(work)
        except (UsageError, Undecodable) as error:
            return Refused(str(error), is_usage=True)
        except RecordsError as error:
            return Refused(str(error))
        return msgspec.structs.replace(answered, nodes=self._nodes()) if isinstance(answered, Status) else answered

    async def _answer_long(self, work: Callable[[Transaction], Answered]) -> Answered:
        if self._held >= LONG_HELD:
            return Refused(BUSY, is_busy=True)
        self._held += 1
        try:
            async with self._long:
                return await self._database.read(work)
        finally:
            self._held -= 1

    def _nodes(self) -> list[NodeSeen]:
        return [
            NodeSeen(
                report.role,
                report.id,
                report.at,
                report.host,
                report.counters.get(f"to.{names.PAGE_KEY}" if report.role == "crawler" else "done", 0),
            )
            for report in self._collector.nodes()
            if report.app == names.APP and report.role in _ROLES
        ]
