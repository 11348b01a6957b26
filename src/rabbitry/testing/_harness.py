"""A harness for an App: an embedded broker, a worker and a publisher, and what was published where."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Any

from rabbitry._decode import decode_text
from rabbitry._words import counted
from rabbitry.amqp.client import Delivery, connect
from rabbitry.amqp.protocol.tables import Table
from rabbitry.exceptions import UsageError
from rabbitry.flow import App
from rabbitry.flow import dead as dead_letters
from rabbitry.flow.codec import JSON, TEXT, Codec
from rabbitry.flow.job import Job, Result
from rabbitry.flow.worker import Worker
from rabbitry.testing.broker import RunningBroker

TIMEOUT = 10.0


class Harness:
    """What a test does with a running app. Made by `harness`."""

    def __init__(self, app: App, url: str, raise_errors: bool) -> None:
        self.app = app
        self.url = url
        self.errors: list[str] = []
        """Tracebacks of handlers that failed, oldest first."""
        self._raise_errors = raise_errors
        self._published: dict[str, asyncio.Queue[Delivery]] = {}
        self._failed = asyncio.Event()
        self._stack = AsyncExitStack()

    async def start(self) -> None:
        """Run the app; for `harness`."""
        self._publisher = await self._stack.enter_async_context(self.app.publisher(self.url))
        connection = self._connection = await self._stack.enter_async_context(connect(self.url))
        channel = await connection.channel()
        queue = (await channel.declare_queue("", exclusive=True)).name
        for key in self._keys():
            self._published[key] = asyncio.Queue()
            await channel.bind_queue(queue, self.app.exchange_of(key), key)
        deliveries = await self._stack.enter_async_context(channel.consume(queue, no_ack=True))
        listening = asyncio.create_task(self._listen(deliveries))
        self._stack.push_async_callback(_end, listening)
        stages = self.app.select(None)
        worker = Worker(self.app, self.url, stages, connect_attempts=1, on_result=self._on_result)
        await self._stack.enter_async_context(worker)

    async def stop(self) -> None:
        """End everything."""
        await self._stack.aclose()

    async def publish(self, value: object, *, key: str, headers: Table | None = None) -> str:
        """Publish a value to the app and return the message's id. Raises as `Publisher.publish` does."""
        return await self._publisher.publish(value, key=key, headers=headers)

    async def published(self, key: str, *, type: Any = None, timeout: float = TIMEOUT) -> Any:
        """Give the next message published with `key`, by the test or by a stage, in their order.

        It is decoded to `type`; without, to the type of the stage that takes this key, or as its content type
        says. Raises TimeoutError after `timeout` seconds, UsageError for a key that neither stage nor output
        has, and AssertionError where a handler failed meanwhile.
        """
        if key not in self._published:
            raise UsageError(f"nothing is published with key {key!r}; there are {', '.join(self._published)}")
        getting = asyncio.ensure_future(self._published[key].get())
        failing = asyncio.ensure_future(self._failed.wait())
        try:
            await asyncio.wait((getting, failing), timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if not getting.done():
                self.check()
                raise TimeoutError(f"nothing was published with key {key!r} within {timeout} s")
            return self._decode(getting.result(), key, type)
        finally:
            await _end(getting)
            await _end(failing)

    async def dead(self, *, timeout: float = TIMEOUT) -> dead_letters.DeadLetter:
        """Wait for a dead letter and give the oldest; it stays. Raises TimeoutError."""
        async with asyncio.timeout(timeout):
            while True:
                async with aclosing(dead_letters.letters(self._connection, self.app.name)) as letters:
                    async for letter in letters:
                        return letter
                await asyncio.sleep(0.01)

    def check(self) -> None:
        """Raise AssertionError with the traceback where a handler failed, unless `raise_errors` is off."""
        if self.errors and self._raise_errors:
            raise AssertionError(f"{counted(len(self.errors), 'handler')} failed; the first:\n{self.errors[0]}")

    def _on_result(self, job: Job, result: Result) -> None:
        if result.kind == "failed":
            self.errors.append(result.trace)
            if self._raise_errors:
                self._failed.set()

    async def _listen(self, deliveries: Any) -> None:
        async for delivery in deliveries:
            for key in self._published:
                if delivery.routing_key == key or self.app.exchange_type != "direct":
                    self._published.setdefault(delivery.routing_key, asyncio.Queue()).put_nowait(delivery)
                    break

    def _keys(self) -> list[str]:
        thens = [stage.then for stage in self.app.stages.values() if isinstance(stage.then, str)]
        return sorted({*(stage.key for stage in self.app.stages.values()), *self.app.outputs, *thens})

    def _decode(self, delivery: Delivery, key: str, type_: Any) -> Any:
        stage = next((stage for stage in self.app.stages.values() if stage.key == key), None)
        if type_ is not None:
            return Codec(type_).decode(delivery.body)
        if stage is not None:
            return stage.codec.decode(delivery.body)
        content_type = delivery.properties.content_type
        if content_type == JSON:
            return Codec(object).decode(delivery.body)
        return decode_text(delivery.body) if content_type == TEXT else delivery.body


async def _end(task: asyncio.Future[Any]) -> None:
    task.cancel()
    await asyncio.wait((task,))


@asynccontextmanager
async def harness(app: App, *, raise_errors: bool = True) -> AsyncIterator[Harness]:
    """Run an app on an embedded broker of its own while the block is entered.

    raise_errors: an exception of a handler (not Reject, not Retry) is raised in the test as an AssertionError
    with its traceback: where `published` waits, or at the end of the block. Raises AppError for an app that
    makes no sense.
    """
    app.validate()
    with RunningBroker() as broker:
        running = Harness(app, broker.url, raise_errors)
        try:
            await running.start()
            yield running
        finally:
            await running.stop()
        running.check()
