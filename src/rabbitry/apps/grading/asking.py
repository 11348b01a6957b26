"""Queries about the records over the broker, and what a page reads of records that may be kept elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

import msgspec

from rabbitry._decode import json_decoder
from rabbitry._ids import NoSuchID
from rabbitry.amqp.client import Consumer, Properties, connect
from rabbitry.apps.grading import looking
from rabbitry.apps.grading.looking import Look, Looked
from rabbitry.apps.grading.message import ID, sendable
from rabbitry.apps.grading.stages import APP, STATUS_QUEUE
from rabbitry.exceptions import (
    Closed,
    ConnectionClosed,
    PublishReturned,
    RabbitryError,
    RequestTimeout,
    UsageError,
)
from rabbitry.flow.codec import JSON

if TYPE_CHECKING:
    from rabbitry.apps.grading.modules import Course
    from rabbitry.apps.grading.records import Database

ANSWER_WITHIN: Final = 5.0
"""Seconds that the question and a coordinator's answer may take."""
_REPLY_TO: Final = "amq.rabbitmq.reply-to"
"""RabbitMQ's docs/direct-reply-to: answers need no queue, and leave none behind."""
_decode_answer: Callable[[bytes], dict[str, Any] | str | None] = json_decoder(dict[str, Any] | str | None)  # type: ignore[arg-type] # a union is no type
_decode_looked: Final = json_decoder(Looked)


class Asking:
    """Queries coordinators, any number at once. An async context manager; entering raises ConnectFailed."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._stack = AsyncExitStack()
        self._waiting: dict[str, asyncio.Future[bytes]] = {}

    async def __aenter__(self) -> Self:
        try:
            connection = await self._stack.enter_async_context(connect(self._url, name=f"{APP} status"))
            # The broker checks it. The name in a client's certificate is not known here.
            self._login = None if connection.url.external else connection.url.user
            self._channel = await connection.channel()
            answers = await self._stack.enter_async_context(self._channel.consume(_REPLY_TO, no_ack=True))
        except BaseException:
            await self._stack.aclose()
            raise
        self._reading = asyncio.create_task(self._read(answers), name="answers of coordinators")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._reading.cancel()
        await asyncio.wait((self._reading,))
        await self._stack.aclose()

    async def ask(self, identity: str) -> dict[str, Any] | None:
        """Return a submission's record with its history, by its id or a prefix of it; None if unknown.

        Raises:
            NoSuchID: Several ids begin with it.
            RequestTimeout: No coordinator answers.
            Closed: The connection was lost for good.
        """
        found = _decode_answer(await self._answer({ID: sendable(identity)}))
        if isinstance(found, str):
            raise NoSuchID(found, is_ambiguous=True)
        return found

    async def look(self, asked: Look) -> Any:
        """Return a part of the records, as `looking.read` does.

        Raises:
            NoSuchID: There is no such submission or request.
            UsageError: The coordinator does not answer this login, or the module is unknown there.
            RequestTimeout: No coordinator answers.
            Closed: The connection was lost for good.
        """
        answered = _decode_looked(await self._answer({"Look": asked}))
        if answered.error is None:
            return answered.found
        if answered.is_unknown or answered.is_ambiguous:
            raise NoSuchID(answered.error, is_ambiguous=answered.is_ambiguous)
        raise UsageError(answered.error)

    async def _answer(self, question: object) -> bytes:
        identity = uuid.uuid4().hex
        properties = Properties(
            content_type=JSON,
            correlation_id=identity,
            reply_to=_REPLY_TO,
            expiration=str(int(ANSWER_WITHIN * 1000)),
            user_id=self._login,
        )
        if self._reading.done():
            raise ConnectionClosed(0, "the connection was closed")
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[identity] = future
        try:
            async with asyncio.timeout(ANSWER_WITHIN):  # while the broker is away, publishing takes as long as it may
                await self._channel.publish(
                    msgspec.json.encode(question), routing_key=STATUS_QUEUE, properties=properties
                )
                return await future
        except (PublishReturned, TimeoutError) as error:
            raise RequestTimeout(
                "no coordinator answers on this broker: start one, or name the course's database with --database "
                "or RABBITRY_DATABASE"
            ) from error
        finally:
            del self._waiting[identity]
            if future.done() and not future.cancelled():
                future.exception()  # if publishing failed, nobody awaits it

    async def _read(self, answers: Consumer) -> None:
        """Pass each answer to the query that waits for it, until an error, which all waiting queries raise."""
        why: RabbitryError = ConnectionClosed(0, "the connection was closed before the answer came")
        try:
            async for delivery in answers:
                with contextlib.suppress(RabbitryError):  # malformed properties: no query's answer
                    future = self._waiting.get(delivery.properties.correlation_id or "")
                    if future is not None and not future.done():
                        future.set_result(delivery.body)
        except RabbitryError as error:
            why = error
        finally:
            for future in self._waiting.values():
                if not future.done():
                    future.set_exception(why)


class Looking:
    """What a page shows of the records: read where they are kept, else asked of a coordinator over the broker.

    Args:
        url: The broker.
        course: A function that returns the course.
        records: A function that returns the open database; None if there is none here.
    """

    def __init__(
        self, url: str, course: Callable[[], Awaitable[Course]], records: Callable[[], Awaitable[Database | None]]
    ) -> None:
        self._url = url
        self._course = course
        self._records = records
        self._has_kept = False
        self._asking: Asking | None = None
        self._opening = asyncio.Lock()

    async def kept(self) -> Database | None:
        """Return the open database if the course's records are in it; None if it has a role's inbox at most."""
        records = await self._records()
        if records is None:
            return None
        if not self._has_kept:
            from rabbitry.apps.grading.records.course import are_kept

            self._has_kept = await records.read(are_kept)
        return records if self._has_kept else None

    async def read(self, asked: Look) -> Any:
        """Return a part of the records. Raises the errors of `looking.read` and of `Asking`."""
        records = await self.kept()
        if records is not None:
            return await records.read(partial(looking.read, asked=asked, course=await self._course()))
        async with self._opening:
            if self._asking is None:
                self._asking = await Asking(self._url).__aenter__()
            asking = self._asking
        try:
            return await asking.look(asked)
        except Closed:
            if self._asking is asking:
                await self.close()  # closed for good; the next query connects again
            raise

    async def close(self) -> None:
        """Close the connection if there is one."""
        asking, self._asking = self._asking, None
        if asking is not None:
            with contextlib.suppress(RabbitryError):
                await asking.__aexit__(None, None, None)
