"""A harness for an App: an embedded broker, a worker and a publisher, and all messages that were published."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final, Never, TypeVar, overload

from rabbitry._decode import decode_text
from rabbitry._words import counted
from rabbitry.amqp.client import connect, parse_url
from rabbitry.amqp.client.url import entered
from rabbitry.amqp.protocol.tables import Table
from rabbitry.exceptions import UsageError
from rabbitry.flow import App
from rabbitry.flow.codec import JSON, TEXT, Codec
from rabbitry.flow.key import Key
from rabbitry.flow.once import store_given
from rabbitry.flow.outgoing import Outgoing
from rabbitry.flow.spec import topic_matches
from rabbitry.flow.timing import without_delays
from rabbitry.flow.wiring import cancelling, dead_letters, topology
from rabbitry.flow.worker import Result, Work, Worker
from rabbitry.testing._broker import RunningBroker
from rabbitry.testing._recording import Published

TIMEOUT = 10.0
_T = TypeVar("_T")
_R = TypeVar("_R")
_LOOK: Final = 0.01
"""Seconds between two looks at the dead letters."""


class Harness:
    """An app that runs under a test. Created by `harness`."""

    def __init__(self, app: App, broker: RunningBroker, *, raise_errors: bool) -> None:
        self.app = app
        self.broker = broker
        """The harness's broker: it has the queues of the outside world, and can stop, restart or raise an alarm."""
        self.url: str = broker.url
        self.errors: list[str] = []
        """Tracebacks of handlers that failed, oldest first."""
        self._raise_errors = raise_errors
        self._published: list[Published] = []
        """All that was published to the app, in order."""
        self._taken = broker.recorder.count
        """How many messages of the recorder were looked at for it."""
        self._is_told = False
        """Whether the loop will look at the recorder."""
        self._looked: dict[str, int] = {}
        """By key: how many of the messages `published` has gone over."""
        self._dead: Counter[dead_letters.DeadLetter] = Counter()
        """The dead letters that `dead` has returned."""
        self._news = asyncio.Event()
        """Set by each message, and by a handler that fails."""
        self._is_over = False
        self._exchanges = {app.spec().exchange_of(key) for key in self._keys()}

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Run the app while the block is entered; for `harness`."""
        loop = asyncio.get_running_loop()

        def tell() -> None:  # on the broker's thread; once until the loop looks, however many messages come
            if not self._is_told:
                self._is_told = True
                loop.call_soon_threadsafe(self._take)

        async with self.app.publisher(self.url) as self._publisher, connect(self.url) as self._connection:
            # The outside world takes what no stage takes. Its queue keeps nothing, and survives a restart.
            channel = await self._connection.channel()
            outside = f"harness of {self.app.name}"
            await channel.declare_queue(outside, durable=True, arguments={"x-max-length": 0})
            for key in self._keys():
                await channel.bind_queue(outside, self.app.spec().exchange_of(key), key)
            # From before the worker begins and the test publishes. The broker tells, and no queue: what is published
            # over other connections before this one is there again after a restart is among it.
            with self.broker.recorder.telling(tell):
                self._worker = Worker(
                    self.app.spec(),
                    self.url,
                    None,
                    running=self.app.workers,
                    connect_attempts=1,
                    waits=False,
                    on_result=self._on_result,
                )
                try:
                    async with self._worker:
                        yield
                finally:
                    self._is_over = True

    async def publish(self, value: _T | Outgoing, *, key: str | Key[_T], headers: Table | None = None) -> str:
        """Publish a value to the app and return the message's id. Raises as `Publisher.publish` does."""
        return await self._publisher.publish(value, key=key, headers=headers)

    @overload
    async def call(
        self,
        value: _T | Outgoing,
        *,
        key: str | Key[_T],
        type: type[_R],
        timeout: float = TIMEOUT,
        headers: Table | None = None,
        on_progress: Callable[[Any], None] | None = None,
        id: str | None = None,
    ) -> _R: ...
    @overload
    async def call(
        self,
        value: _T | Outgoing,
        *,
        key: str | Key[_T],
        type: None = None,
        timeout: float = TIMEOUT,
        headers: Table | None = None,
        on_progress: Callable[[Any], None] | None = None,
        id: str | None = None,
    ) -> Any: ...
    async def call(
        self,
        value: object,
        *,
        key: str | Key[Any],
        type: Any = None,
        timeout: float = TIMEOUT,
        headers: Table | None = None,
        on_progress: Callable[[Any], None] | None = None,
        id: str | None = None,
    ) -> Any:
        """Publish a value, and return what the handler returned. Arguments and errors are those of `Publisher.call`."""
        return await self._publisher.call(
            value, key=key, timeout=timeout, type=type, headers=headers, on_progress=on_progress, id=id
        )

    async def cancel(self, id: str) -> None:
        """Cancel a job by the id of its first message, as `Publisher.cancel` does."""
        await self._publisher.cancel(id)

    @overload
    async def published(self, key: Key[_T], *, timeout: float = TIMEOUT) -> _T: ...
    @overload
    async def published(self, key: str, *, type: Any = None, timeout: float = TIMEOUT) -> Any: ...
    async def published(self, key: str | Key[Any], *, type: Any = None, timeout: float = TIMEOUT) -> Any:
        """Return the next message that was published with `key` by the test or by a stage.

        Each key, and each pattern, goes through all messages in their order independently of the others.

        Args:
            key: The routing key. For a topic exchange, it may be the pattern of a stage or an output.
            type: The type to decode the body to. None: the type of the key if it has one, else that of the stage that
                takes this key, or what the content type says.
            timeout: Seconds to wait.

        Raises:
            TimeoutError: No such message came within `timeout` seconds.
            UsageError: No stage or output has this key, or the harness's block has ended.
            AssertionError: A handler failed meanwhile.
            Exception: The error that ended the worker.
        """
        key, type = _typed(key, type)
        self._check_key(key)
        failing = asyncio.create_task(self._worker.wait())
        try:
            async with asyncio.timeout(timeout):
                while True:
                    self._news.clear()
                    if (message := self._next(key)) is not None:
                        return self._decode(message.body, message.properties.content_type, key, type)
                    self.check()
                    if failing.done():
                        failing.result()
                    news = asyncio.create_task(self._news.wait())
                    try:
                        await asyncio.wait((news, failing), return_when=asyncio.FIRST_COMPLETED)
                    finally:
                        await _end(news)
        except TimeoutError:
            raise TimeoutError(f"nothing was published with key {key!r} within {timeout} s") from None
        finally:
            await _end(failing)
            if not failing.cancelled():
                failing.result()

    @overload
    def all_published(self, key: Key[_T]) -> list[_T]: ...
    @overload
    def all_published(self, key: str, *, type: Any = None) -> list[Any]: ...
    def all_published(self, key: str | Key[Any], *, type: Any = None) -> list[Any]:
        """Return all messages that were published with `key` so far, in their order, whatever `published` has returned.

        After `idle` these are all that there will be.

        Args:
            key: The routing key. For a topic exchange, it may be the pattern of a stage or an output.
            type: The type to decode the bodies to, as for `published`.

        Raises:
            UsageError: No stage or output has this key, or the harness's block has ended.
        """
        key, type = _typed(key, type)
        self._check_key(key)
        self._take()
        return [
            self._decode(message.body, message.properties.content_type, key, type)
            for message in self._published
            if self._is_of(key, message.routing_key)
        ]

    async def idle(self, *, timeout: float = TIMEOUT) -> None:
        """Wait until the app has nothing left to do: no message waits for a stage, is handled, or waits for a retry.

        Messages for the outside world, also in queues that the test declared, and dead letters may wait.

        Raises:
            TimeoutError: There was something left after `timeout` seconds; the text names the queues.
            AssertionError: A handler failed, unless `raise_errors` is off.
            Exception: The error that ended the worker.
        """
        resting = {
            dead_letters.dead_queue(self.app.name),
            cancelling.cancelled_queue(self.app.name),
            *(output.queue for output in self.app.outputs.values()),
        }
        own = {queue.name for queue in topology.derive(self.app.spec()).queues} - resting
        failing = asyncio.create_task(self._worker.wait())
        ends_at = time.monotonic() + timeout
        try:
            while True:
                # Results are confirmed before their input is acknowledged, so nothing is left at a moment without any.
                depths = await asyncio.to_thread(self.broker.depths)
                busy = {name: depth for name, depth in depths.items() if depth and name in own}
                self.check()
                if failing.done():
                    failing.result()
                if not busy:
                    return
                if time.monotonic() > ends_at:
                    break
                await asyncio.sleep(_LOOK)
        finally:
            await _end(failing)
        queues = ", ".join(f"{name} ({depth})" for name, depth in busy.items())
        raise TimeoutError(f"the app still had messages after {timeout:g} s, in {queues}")

    async def all_dead(self) -> list[dead_letters.DeadLetter]:
        """Return all dead letters, oldest first, whatever `dead` has returned. They stay in their queue."""
        async with aclosing(dead_letters.letters(self._connection, self.app.name)) as letters:
            return [letter async for letter in letters]

    async def dead(self, *, timeout: float = TIMEOUT) -> dead_letters.DeadLetter:
        """Return the oldest dead letter that was not returned yet, or wait for one. It stays in its queue.

        Raises:
            TimeoutError: No dead letter came within `timeout` seconds.
        """
        try:
            async with asyncio.timeout(timeout) as limit:
                while True:
                    seen: Counter[dead_letters.DeadLetter] = Counter()
                    async with aclosing(dead_letters.letters(self._connection, self.app.name)) as letters:
                        async for letter in letters:
                            seen[letter] += 1
                            if seen[letter] > self._dead[letter]:
                                self._dead[letter] += 1
                                return letter
                    await asyncio.sleep(_LOOK)
        except TimeoutError:
            if limit.expired():
                raise TimeoutError(f"no dead letter came within {timeout:g} s") from None
            raise

    def check(self) -> None:
        """Raise AssertionError with the traceback if a handler failed, unless `raise_errors` is off."""
        if self.errors and self._raise_errors:
            raise AssertionError(f"{counted(len(self.errors), 'handler')} failed; the first:\n{self.errors[0]}")

    def _on_result(self, work: Work, result: Result) -> None:
        for failed in (result, *(failure for _, failure in result.failures)):
            if failed.kind == "failed":
                self.errors.append(failed.trace)
                self._news.set()

    def _take(self) -> None:
        """Take what was published since the last look."""
        self._is_told = False  # before the look: what comes after it is told again
        fresh, self._taken = self.broker.recorder.news(self._taken)
        self._published += [message for message in fresh if message.exchange in self._exchanges]
        self._news.set()

    def _check_key(self, key: str) -> None:
        if self._is_over:
            raise UsageError("the harness has ended: ask for what is published within its block")
        keys = self._keys()
        if key not in keys and not self.app.spec().leads_somewhere(key):
            raise UsageError(f"nothing is published with key {key!r}; there are {', '.join(keys)}")

    def _is_of(self, key: str, routing_key: str) -> bool:
        return routing_key == key or (self.app.exchange_type == "topic" and topic_matches(key, routing_key))

    def _next(self, key: str) -> Published | None:
        for number in range(self._looked.get(key, 0), len(self._published)):
            self._looked[key] = number + 1
            message = self._published[number]
            if self._is_of(key, message.routing_key):
                return message
        return None

    def _keys(self) -> list[str]:
        thens = [str(stage.then) for stage in self.app.stages.values() if isinstance(stage.then, str | Key)]
        return sorted({*(stage.key for stage in self.app.stages.values()), *self.app.outputs, *thens})

    def _decode(self, body: bytes, content_type: str | None, key: str, type_: Any) -> Any:
        stage = next((stage for stage in self.app.stages.values() if stage.key == key), None)
        if type_ is None and (typed := self.app.spec().types.get(key)) is not None:
            type_ = typed.type
        if type_ is not None:
            return Codec(type_).decode(body, content_type)
        if stage is not None:
            return stage.value_codec.decode(body, content_type)
        if content_type == JSON:
            return Codec(object).decode(body)
        return decode_text(body) if content_type == TEXT else body


def _typed(key: str | Key[Any], type_: Any) -> tuple[str, Any]:
    return (key.name, key.type) if isinstance(key, Key) else (key, type_)


async def _end(task: asyncio.Future[Any]) -> None:
    task.cancel()
    await asyncio.wait((task,))


@asynccontextmanager
async def harness(app: App, *, raise_errors: bool = True, **unknown: Never) -> AsyncIterator[Harness]:
    """Run an app on a new embedded broker inside the block.

    Inside the block, everything that publishes or connects without a URL uses that broker. Retries and what is
    published with a delay come at once. Joins keep their parts in a folder of the harness, and their limit of time does
    not pass. If the worker fails for good, the block is cancelled, and leaving it raises the cause.

    Args:
        app: The app.
        raise_errors: Whether an exception of a handler (other than Reject and Retry) is raised in the test, as an
            AssertionError with its traceback: by a waiting `published`, or at the end of the block.
        unknown: None are accepted.

    Raises:
        AppError: The app is invalid.
        UsageError: `app` is something else, or an argument is unknown.
    """
    if unknown:
        raise UsageError(
            f"harness(app) takes no {next(iter(unknown))!r}: give options to the app and its stages; in a harness, "
            "retries and delays come at once"
        )
    if not isinstance(app, App):
        raise UsageError(f"harness(app) takes a rabbitry.App, not {type(app).__name__}")
    app.validate()
    with (
        RunningBroker() as broker,
        entered(parse_url(broker.url)),
        tempfile.TemporaryDirectory(prefix="rabbitry-harness-") as folder,
        without_delays(parse_url(broker.url)),
        store_given(f"sqlite:///{folder}/store.sqlite3"),
    ):
        running = Harness(app, broker, raise_errors=raise_errors)
        async with running.run():
            yield running
        running.check()
