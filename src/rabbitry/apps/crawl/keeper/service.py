"""Running a keeper until it is stopped: its stage, its ticks, answers to commands and queries."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import msgspec

from rabbitry.amqp.client import Connection, Properties, connect
from rabbitry.apps._connected import Work, run_connected
from rabbitry.apps.crawl import names
from rabbitry.apps.crawl.answers import AskStatus, Status
from rabbitry.apps.crawl.asking import Asking
from rabbitry.apps.crawl.keeper import identity
from rabbitry.apps.crawl.keeper.answering import answer_questions
from rabbitry.apps.crawl.keeper.database import Database
from rabbitry.apps.crawl.keeper.role import TICK, Role
from rabbitry.apps.crawl.node import Node
from rabbitry.exceptions import PublishError, RabbitryError, UsageError
from rabbitry.flow.codec import JSON
from rabbitry.flow.worker import Worker
from rabbitry.runtime.tasks import until

_PATIENCE: Final = 3.0
"""Seconds that another keeper has to name its crawl."""
_TICKING: Final = 1
"""The index of the ticks among the keeper's tasks."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Options:
    """Options of a keeper.

    database: its URL; None for the environment's, or the user's own. per_host: batches of a host at once. plain:
    declare with the original programs' flags.
    """

    database: str | None = None
    per_host: int = 1
    plain: bool = False


async def run(
    options: Options,
    url: str,
    stop: asyncio.Event,
    *,
    strict: bool = False,
    connect_attempts: int | None = None,
    deadline: float = 10.0,
    started: Callable[[str], None] | None = None,
) -> bool:
    """Run a keeper until `stop` is set; return whether it finished its work in progress within `deadline` seconds.

    `started` is called with the node's name when it consumes and answers queries. Raises the errors of `Worker`,
    RecordsError if the database can't be opened or becomes unusable, and UsageError if another keeper has another
    database.
    """
    database = Database(options.database)
    await asyncio.to_thread(database.__enter__)
    try:
        node = Node("keeper")
        role = Role(node, database, per_host=options.per_host)
        worker = role.app(plain=options.plain).worker(url, strict=strict, connect_attempts=connect_attempts, id=node.id)
        if await until(stop, worker.__aenter__()) is None:
            return True
        try:
            await until(stop, _compare(url, await database.read(identity.of)))
        except BaseException:
            await worker.stop(0.0)
            raise
        answering = asyncio.Event()
        tasks = _begun(role, worker, url, stop, partial(answer_questions, database, stop, answering))
        ready = asyncio.create_task(answering.wait())
        try:
            await until(stop, asyncio.wait([ready, *tasks], return_when=asyncio.FIRST_COMPLETED))
            if started is not None and answering.is_set():
                started(str(node))
            await until(stop, asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED))
            tasks[_TICKING].cancel()  # a stopped worker can't publish them
            await asyncio.wait((tasks[_TICKING],))
            # A keeper that can't write can't finish anything.
            is_done = await worker.stop(0.0 if role.ended.done() else deadline)
            for task in tasks:
                if task.done() and not task.cancelled():
                    task.result()
            return is_done
        finally:
            ready.cancel()
            for task in tasks:
                task.cancel()
            await asyncio.gather(ready, *tasks, return_exceptions=True)
    finally:
        await asyncio.to_thread(database.__exit__, None, None, None)


def _begun(role: Role, worker: Worker, url: str, stop: asyncio.Event, answers: Work) -> list[asyncio.Task[None]]:
    """Begin all that a keeper does, as tasks; see _TICKING."""
    parts = (
        worker.wait(),
        _tick(role, worker),
        _fail(role),
        run_connected(url, partial(_publish_answers, role), name=f"{names.APP} answers", stop=stop),
        run_connected(url, answers, name=f"{names.APP} questions", stop=stop),
    )
    return [asyncio.create_task(part) for part in parts]


async def _compare(url: str, crawl: str) -> None:
    """Raise UsageError if a keeper on the broker runs another crawl, because it then has another database.

    If none answers, the messages will show it (`identity.check`).
    """
    try:
        async with connect(url, name=f"{names.APP} identity", recover=False) as connection:
            channel = await connection.channel()
            if not (await channel.declare_queue(names.QUESTION_QUEUE, passive=True)).consumer_count:
                return
        async with Asking(url, patience=_PATIENCE) as asking:
            answered = await asking.ask(AskStatus())
    except RabbitryError as error:
        _logger.debug("no other keeper names its crawl: %s", error)
        return
    if isinstance(answered, Status) and answered.crawl not in ("", crawl):
        raise UsageError(
            "a keeper on this broker has another database: use the same for all keepers, on several machines a "
            "PostgreSQL URL (--database); crawlers and processors need none"
        )


async def _fail(role: Role) -> None:
    """Wait until the keeper fails for good. Raises RecordsError."""
    await role.ended


async def _tick(role: Role, worker: Worker) -> None:
    """Publish ticks; the active worker acts on them."""
    while True:
        try:
            await worker.publish(role.tick(), key=names.KEEPER_KEY)
        except RabbitryError as error:
            _logger.debug("no tick: %s", error)  # the worker logs that the connection is being recovered
        await asyncio.sleep(TICK)


async def _publish_answers(role: Role, connection: Connection) -> None:
    """Publish the answers to commands. Those of clients that have left are dropped. Raises ConnectionClosed."""
    channel = await connection.channel()
    while True:
        reply_to, correlation_id, answer = await role.answers.get()
        try:
            if not channel.is_open:
                await channel.open()
            await channel.publish(
                msgspec.json.encode(answer),
                routing_key=reply_to,
                properties=Properties(content_type=JSON, correlation_id=correlation_id, delivery_mode=1),
                mandatory=False,
            )
        except PublishError as error:
            _logger.warning("a command is not answered: %s", error)
