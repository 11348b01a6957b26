"""Queries and commands to the keeper over the broker."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import msgspec

from rabbitry._decode import json_decoder
from rabbitry.amqp.client import BrokerURL, Channel, Connection, Delivery, Properties, connect
from rabbitry.apps.crawl import names
from rabbitry.apps.crawl.answers import Answered, Question, Refused
from rabbitry.apps.crawl.messages import COMMAND, Answer, Command
from rabbitry.apps.crawl.node import crawl_app
from rabbitry.apps.exceptions import RecordsError
from rabbitry.exceptions import (
    ConnectionClosed,
    PublishReturned,
    RabbitryError,
    RequestTimeout,
    Undecodable,
    UsageError,
)
from rabbitry.flow.codec import JSON
from rabbitry.flow.wiring import topology
from rabbitry.flow.wiring.declarer import Declarer
from rabbitry.runtime.backoff import Backoff

PATIENCE: Final = 10.0
"""Seconds that an answer may take."""
_PAUSES: Final = Backoff(0.4, 5.0)
"""Seconds before a busy keeper is asked again; the pause doubles each time."""
GRACE: Final = 1.0
"""Seconds that a command waits for its answer if no keeper runs: one may be starting."""
NO_KEEPER: Final = "no keeper runs on this broker: start one, on any machine, with: rabbitry crawl keeper"
LARGEST_ANSWER: Final = 64 * 1024 * 1024
"""The most bytes of an answer."""

_REPLY_TO: Final = "amq.rabbitmq.reply-to"
"""RabbitMQ's docs/direct-reply-to: answers need no queue, and leave none behind."""

T = TypeVar("T")
_encode: Final = msgspec.json.Encoder().encode
_decode_answered: Final[Callable[[bytes], Any]] = json_decoder(Answered)  # type: ignore[arg-type] # a union is no type
_decode_answer: Final = json_decoder(Answer)


class Waiting(RabbitryError):
    """A command that no keeper has answered yet: it waits on the broker and is not lost."""


class Asking:
    """Sends queries and commands to the keeper, any number at once, over one lasting connection.

    It connects at the first use, and again after a failure. An async context manager, which closes it.
    """

    def __init__(self, url: str | BrokerURL, *, plain: bool = False, patience: float = PATIENCE) -> None:
        """Prepare a client. plain: declare with the original programs' flags. patience: seconds for each answer."""
        self._url = url
        self._app = crawl_app(plain=plain)
        self._app.output(names.KEEPER_KEY, queue=names.KEEPER_QUEUE, single_active=True)
        self._declarer = Declarer()
        self._patience = patience
        self._opening = asyncio.Lock()
        self._connection: Connection | None = None
        self._channel: Channel | None = None
        self._reading: asyncio.Task[None] | None = None
        self._waiting: dict[str, asyncio.Future[Delivery]] = {}
        self._has_declared = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def ask(self, question: Question) -> Answered:
        """Return the answer to a query, which may be `Refused`. A busy keeper is asked again for a while.

        Raises RequestTimeout if no keeper answers, Undecodable if the answer is malformed, and ConnectFailed,
        ConnectionClosed or PublishError.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._patience
        attempt = 0
        while True:
            attempt += 1
            answered = await self._ask(question)
            is_busy = isinstance(answered, Refused) and answered.is_busy
            pause = _PAUSES.pause(attempt)
            if not is_busy or loop.time() + pause > deadline:
                return answered
            await asyncio.sleep(pause)

    async def _ask(self, question: Question) -> Answered:
        channel = await self._open()
        try:
            delivery = await self._answer(
                channel, "", names.QUESTION_QUEUE, _encode(question), "Question", self._patience
            )
        except PublishReturned as error:
            raise RequestTimeout(NO_KEEPER) from error
        except TimeoutError as error:
            raise RequestTimeout(f"no keeper answers within {self._patience:g} s; {NO_KEEPER}") from error
        answered: Answered = _decoded(delivery, _decode_answered)
        return answered

    async def find(self, question: Question, kind: type[T]) -> T:
        """Return the answer to a query, which must be of the given type.

        Raises the errors of `ask`, and UsageError or RecordsError if the query is refused.
        """
        return expected(await self.ask(question), kind)

    async def tell(self, command: Command, *, patience: float | None = None) -> Answer:
        """Send a command to the keeper, and return its answer once it is committed.

        patience: seconds to wait for the answer; by default those of all answers, or GRACE if no keeper runs.

        Raises Waiting if no answer comes: the command stays in the queue until a keeper takes it. Raises ConnectFailed,
        ConnectionClosed, PublishError, Undecodable.
        """
        channel = await self._open()
        if not self._has_declared:
            # The queue keeps commands sent before any keeper has ever run.
            assert self._connection is not None  # noqa: S101 # it is open; narrows the type
            await topology.declare(self._connection, self._app.spec(), declarer=self._declarer)
            self._has_declared = True
        has_keeper = (await channel.declare_queue(names.KEEPER_QUEUE, passive=True)).consumer_count > 0
        if patience is None:
            patience = self._patience if has_keeper else min(GRACE, self._patience)
        try:
            delivery = await self._answer(
                channel, names.EXCHANGE, names.KEEPER_KEY, _encode(command), COMMAND, patience
            )
        except TimeoutError as error:
            why = f"it has not answered within {patience:g} s" if has_keeper else NO_KEEPER
            raise Waiting(f"sent, and kept in queue '{names.KEEPER_QUEUE}' until a keeper takes it: {why}") from error
        except PublishReturned:
            self._has_declared = False  # the queue was deleted
            raise
        return _decoded(delivery, _decode_answer)

    async def close(self) -> None:
        """Close the connection if there is one; calls that wait for an answer raise ConnectionClosed."""
        reading, connection = self._reading, self._connection
        self._reading = self._connection = self._channel = None
        if reading is not None:
            reading.cancel()
            await asyncio.wait((reading,))
        if connection is not None:
            await connection.close()

    # -- the connection --------------------------------------------------------------------------------

    async def _open(self) -> Channel:
        """Return the channel for queries; open one if there is none or it is closed."""
        async with self._opening:
            if self._channel is not None and self._reading is not None and not self._reading.done():
                return self._channel
            await self.close()
            self._has_declared = False
            connection = await connect(self._url, name=f"{names.APP} questions")
            try:
                channel = await connection.channel()
                started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._reading = asyncio.create_task(self._read(channel, started))
                await started
            except BaseException:
                await connection.close()
                raise
            self._connection, self._channel = connection, channel
            return channel

    async def _read(self, channel: Channel, started: asyncio.Future[None]) -> None:
        """Pass each answer to the call that waits for it, until `close` or an error, which all waiting calls raise."""
        try:
            async with channel.consume(_REPLY_TO, no_ack=True) as answers:
                started.set_result(None)
                async for delivery in answers:
                    with contextlib.suppress(RabbitryError):  # malformed properties: no query's answer
                        future = self._waiting.pop(delivery.properties.correlation_id or "", None)
                        if future is not None and not future.done():
                            future.set_result(delivery)
        except RabbitryError as error:
            self._fail(started, error)
        finally:
            self._fail(started, ConnectionClosed(0, "the connection was closed before the answer came"))

    def _fail(self, started: asyncio.Future[None], error: RabbitryError) -> None:
        if not started.done():
            started.set_exception(error)
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(error)
        self._waiting.clear()

    async def _answer(
        self, channel: Channel, exchange: str, key: str, body: bytes, type_: str, patience: float
    ) -> Delivery:
        """Publish, and return the answer. Raises TimeoutError, PublishError, ConnectionClosed."""
        identity = uuid.uuid4().hex
        is_question = not exchange
        future = self._waiting[identity] = asyncio.get_running_loop().create_future()
        properties = Properties(
            content_type=JSON,
            type=type_,
            app_id=names.APP,
            message_id=identity,
            correlation_id=identity,
            reply_to=_REPLY_TO,
            delivery_mode=1 if is_question else 2,
            # After that, nobody waits for the answer to a query any more; a command stays for its keeper.
            expiration=str(int(patience * 1000)) if is_question else None,
        )
        try:
            await channel.publish(body, exchange=exchange, routing_key=key, properties=properties)
            async with asyncio.timeout(patience):
                answer: Delivery = await future
            return answer
        finally:
            self._waiting.pop(identity, None)
            if future.done() and not future.cancelled():
                future.exception()  # if publishing failed, nobody awaits it


def expected(answered: Answered, kind: type[T]) -> T:
    """Return the answer if it is of the type. Raises UsageError and RecordsError if refused, else Undecodable."""
    if isinstance(answered, Refused):
        raise UsageError(answered.error) if answered.is_usage else RecordsError(answered.error)
    if not isinstance(answered, kind):
        raise Undecodable(f"the keeper's answer is a {type(answered).__name__}, not a {kind.__name__}")
    return answered


def _decoded(delivery: Delivery, decode: Callable[[bytes], T]) -> T:
    if len(delivery.body) > LARGEST_ANSWER:
        raise Undecodable(f"the keeper's answer has {len(delivery.body):,} bytes, more than {LARGEST_ANSWER:,}")
    try:
        return decode(delivery.body)
    except Undecodable as error:
        raise Undecodable(f"the keeper's answer can't be decoded: {error}") from error
