"""A publisher for scripts without an event loop: the asyncio one, on an I/O thread."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TypeVar, overload

from rabbitry.amqp.client import Receipt
from rabbitry.amqp.client.blocking.receipts import BlockingReceipt, pass_on
from rabbitry.amqp.protocol.tables import Table
from rabbitry.exceptions import UsageError
from rabbitry.flow.key import Key
from rabbitry.flow.outgoing import Outgoing
from rabbitry.flow.publisher import Publisher
from rabbitry.flow.spec import AppSpec
from rabbitry.flow.timing import Expired, Seconds
from rabbitry.runtime.io_thread import IOThread

T = TypeVar("T")
R = TypeVar("R")


class BlockingPublisher:
    """Publishes values to an app's stages. Made by `App.publisher_blocking`; a context manager. For any thread.

    Leaving the block waits and raises as that of `Publisher` does.
    """

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self.spec: AppSpec = publisher.spec
        self._io: IOThread | None = None

    def __enter__(self) -> Self:
        """Connect and declare. Raises as `Publisher` does."""
        self._io = IOThread(f"{self._publisher.spec.name} publisher I/O")
        try:
            self._io.run(self._publisher.__aenter__())
        except BaseException:
            self._io.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._io is not None:
            try:
                self._io.run(self._publisher.__aexit__(kind, error, traceback))
            finally:
                self._io.stop()

    def publish(
        self,
        value: T | Outgoing,
        *,
        key: str | Key[T],
        headers: Table | None = None,
        unique: str | None = None,
        after: Seconds | None = None,
        at: datetime | None = None,
        expires: Seconds | None = None,
        expired: Expired = "drop",
    ) -> str:
        """Publish a value and return the message's id once it is confirmed.

        Arguments and errors are those of `Publisher.publish`.
        """
        return self._entered().run(
            self._publisher.publish(
                value,
                key=key,
                headers=headers,
                unique=unique,
                after=after,
                at=at,
                expires=expires,
                expired=expired,
            )
        )

    def send(
        self,
        value: T | Outgoing,
        *,
        key: str | Key[T],
        headers: Table | None = None,
        unique: str | None = None,
        after: Seconds | None = None,
        at: datetime | None = None,
        expires: Seconds | None = None,
        expired: Expired = "drop",
    ) -> BlockingReceipt:
        """Send a value and return the message's receipt, a future that is done once the broker has confirmed it.

        Waits only while too many messages are unconfirmed. Arguments and errors are those of `publish`; the receipt
        raises those that the broker causes.
        """
        io = self._entered()
        sending = self._publisher.send(
            value, key=key, headers=headers, unique=unique, after=after, at=at, expires=expires, expired=expired
        )
        return io.run(_passed_on(sending, io))

    @overload
    def call(
        self,
        value: T | Outgoing,
        *,
        key: str | Key[T],
        timeout: float,
        type: type[R],
        headers: Table | None = None,
        on_progress: Callable[[Any], None] | None = None,
        id: str | None = None,
    ) -> R: ...
    @overload
    def call(
        self,
        value: T | Outgoing,
        *,
        key: str | Key[T],
        timeout: float,
        type: None = None,
        headers: Table | None = None,
        on_progress: Callable[[Any], None] | None = None,
        id: str | None = None,
    ) -> Any: ...
    def call(
        self,
        value: object,
        *,
        key: str | Key[Any],
        timeout: float,
        type: Any = None,
        headers: Table | None = None,
        on_progress: Callable[[Any], None] | None = None,
        id: str | None = None,
    ) -> Any:
        """Publish a value, wait until it is handled, and return what the handler returned; see `Publisher.call`.

        `on_progress` is called on the I/O thread, and must not block.
        """
        return self._entered().run(
            self._publisher.call(
                value, key=key, timeout=timeout, type=type, headers=headers, on_progress=on_progress, id=id
            )
        )

    def cancel(self, id: str) -> None:
        """Cancel a job by the id of its first message, as `Publisher.cancel` does."""
        self._entered().run(self._publisher.cancel(id))

    def wait_for_confirms(self) -> None:
        """Wait until everything sent before is confirmed. Raises what failed since the last call as one group."""
        self._entered().run(self._publisher.wait_for_confirms())

    def _entered(self) -> IOThread:
        if self._io is None:
            raise UsageError("enter the publisher first: `with app.publisher_blocking() as publisher:`")
        return self._io


async def _passed_on(sending: Coroutine[Any, Any, Receipt], io: IOThread) -> BlockingReceipt:
    return pass_on(await sending, io)
