"""Context: publishing, progress and cancellation for the message that a handler handles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar, Unpack

from rabbitry.flow.timing import Timing, timing_of

if TYPE_CHECKING:
    from rabbitry.amqp.protocol.tables import Table
    from rabbitry.flow.key import Key
    from rabbitry.flow.message import Message
    from rabbitry.flow.outgoing import Outgoing
    from rabbitry.flow.timing import Times

_T = TypeVar("_T")


class Handled(Protocol):
    """The part of a call's input that its context uses."""

    is_cancelled: bool

    @property
    def is_stale(self) -> bool:
        """Whether it can't be settled any more, and is delivered again."""

    def message(self) -> Message:
        """Read the metadata."""


class Publishing(Protocol):
    """Publishes for handlers; the worker."""

    async def publish_for(
        self,
        cause: Message,
        value: object,
        key: str | Key[Any],
        *,
        headers: Table | None,
        priority: int | None,
        timing: Timing | None,
        unique: str | None,
    ) -> str:
        """Publish a value that follows from a message; see `Context.publish`."""

    def publish_blocking_for(
        self,
        cause: Message,
        value: object,
        key: str | Key[Any],
        *,
        headers: Table | None,
        priority: int | None,
        timing: Timing | None,
        unique: str | None,
    ) -> str:
        """Publish as `publish_for` does, without an event loop."""

    async def report_for(self, cause: Message, value: object) -> None:
        """Send progress to the caller of a message; see `Context.progress`."""

    def report_blocking_for(self, cause: Message, value: object) -> None:
        """Send as `report_for` does, without an event loop."""


class Context:
    """The handling of one message, passed to a handler that has a parameter of this type.

    Handlers of single messages have it, in the worker's loop and in threads; batches and `processes=True` do not.
    """

    __slots__ = ("_handled", "_message", "_publishing")

    def __init__(self, handled: Handled, publishing: Publishing) -> None:
        self._handled = handled
        self._publishing = publishing
        self._message: Message | None = None

    @property
    def message(self) -> Message:
        """The message's metadata."""
        if self._message is None:
            self._message = self._handled.message()
        return self._message

    @property
    def cancelled(self) -> bool:
        """Whether the handler should end early, since its result is no longer used.

        This is so when the job was cancelled by its id (`Publisher.cancel`), when the time limit is over, when the
        worker stops and its deadline has passed, and when the message is delivered again because the connection was
        lost. An `async def` handler is cancelled then; a handler in a thread has to check this itself.
        """
        return self._handled.is_cancelled or self._handled.is_stale

    async def publish(
        self,
        value: _T | Outgoing,
        *,
        key: str | Key[_T],
        headers: Table | None = None,
        priority: int | None = None,
        unique: str | None = None,
        **times: Unpack[Times],
    ) -> str:
        """Publish a value at once, with the message's correlation id and trace, and return its id when it is confirmed.

        It is published also if the handler fails afterwards, and again with each attempt. What is to be published only
        if the handler succeeds should be returned; values that are yielded stay published too.

        Args:
            value: The body, as for `App.publish`; or an `Outgoing`, whose own key, headers and priority go first.
            key: The routing key.
            headers: Of the message.
            priority: 0 to 255, for queues with priorities.
            unique: Publish nothing if a message with this text and key was published, also by another attempt; this
                is as for `Publisher.publish`.
            times: `after`, `at`, `expires` and `expired`, as for `Publisher.publish`.

        Raises:
            UsageError: The key leads nowhere, with a delay to no queue that this app knows; the value can't be encoded;
                or a time is invalid.
            StoreError: Of a unique message: the store does not answer. Nothing was published.
            PublishError: The broker did not take the message.
        """
        timing = timing_of(**times)
        return await self._publishing.publish_for(
            self.message, value, key, headers=headers, priority=priority, timing=timing, unique=unique
        )

    def publish_blocking(
        self,
        value: _T | Outgoing,
        *,
        key: str | Key[_T],
        headers: Table | None = None,
        priority: int | None = None,
        unique: str | None = None,
        **times: Unpack[Times],
    ) -> str:
        """Publish as `publish` does, in a `def` handler."""
        timing = timing_of(**times)
        return self._publishing.publish_blocking_for(
            self.message, value, key, headers=headers, priority=priority, timing=timing, unique=unique
        )

    async def progress(self, value: object) -> None:
        """Send a value to the caller of the message (`Publisher.call`); does nothing if there is no caller.

        A value that the broker refuses is dropped, since the caller's queue may be full.

        Args:
            value: What the caller's `on_progress` gets: a number, text, or any value that can be a body.

        Raises:
            TypeError: The value can't be encoded.
        """
        if self.message.reply_to:
            await self._publishing.report_for(self.message, value)

    def progress_blocking(self, value: object) -> None:
        """Send as `progress` does, in a `def` handler."""
        if self.message.reply_to:
            self._publishing.report_blocking_for(self.message, value)
