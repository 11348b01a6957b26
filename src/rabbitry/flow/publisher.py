"""Publishing to an app from outside: the topology is declared first, so that what is sent waits for its worker."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar, Unpack, overload

from rabbitry.amqp.client import BrokerURL, Connection, Properties, Receipt, connect
from rabbitry.amqp.protocol.tables import Table
from rabbitry.exceptions import PublishRefused, PublishReturned, UsageError
from rabbitry.flow import _tracing
from rabbitry.flow._calling import Calls
from rabbitry.flow._outlet import Outlet
from rabbitry.flow._publication import addressed, publication_of
from rabbitry.flow.key import Key, name_of
from rabbitry.flow.message import Publication
from rabbitry.flow.once import Unique
from rabbitry.flow.outgoing import Outgoing
from rabbitry.flow.spec import AppSpec
from rabbitry.flow.timing import Expired, Seconds, Times, Timing, delays_on, timing_of
from rabbitry.flow.wiring import topology
from rabbitry.flow.wiring.cancelling import cancellation_of, checked_id
from rabbitry.flow.wiring.declarer import Declarer

if TYPE_CHECKING:
    from rabbitry.flow._spans import Publishing

T = TypeVar("T")
R = TypeVar("R")
_NOT_ENTERED: Final = "enter the publisher first: `async with app.publisher() as publisher:`"


class Publisher:
    """Publishes values to an app's stages. An async context manager; create one with `App.publisher`.

    Leaving the block without an error waits until every message is confirmed, and raises the failures that no caller
    has seen yet as one ExceptionGroup. Leaving it with an error closes the connection at once.

    Raises:
        ConnectFailed: On entering: no broker can be reached.
        LoginRefused: On entering: the broker refused the login.
        VirtualHostRefused: On entering: the virtual host does not exist, or the user may not use it.
        TopologyMismatch: On entering: strict, and a queue or exchange exists with other flags.
        AccessRefused: On entering: the user may not declare the app's queues and exchanges.
    """

    def __init__(self, spec: AppSpec, find_url: Callable[[], str | BrokerURL | None], *, strict: bool) -> None:
        """Create a publisher that connects when its block is entered.

        Args:
            spec: The app.
            find_url: Returns the broker's URL when the block is entered; None: see `rabbitry.connect`.
            strict: Raise TopologyMismatch instead of using a queue or exchange that exists with other flags.
        """
        self.spec = spec
        self._find_url = find_url
        self._strict = strict
        self._waits = True
        """Whether delays are waited for; not on the broker of a harness."""
        self._connection: Connection | None = None
        self._outlet: Outlet | None = None
        self._calls: Calls | None = None
        self._unique = Unique(spec)

    async def __aenter__(self) -> Self:
        connection = await connect(self._find_url(), name=f"{self.spec.name} publisher")
        try:
            declarer = Declarer()
            redeclare = partial(topology.declare, connection, self.spec, declarer=declarer)
            await redeclare(strict=self._strict)
            self._waits = delays_on(connection.url)
            self._calls = Calls(connection)
            self._outlet = Outlet(connection, await connection.channel(), redeclare)
        except BaseException:
            await connection.close()
            raise
        self._connection = connection
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if self._calls is not None:
                await self._calls.close()
        finally:
            try:
                if self._connection is not None:
                    await self._connection.__aexit__(kind, error, traceback)
            finally:
                await self._unique.close()  # nothing is unconfirmed any more

    async def wait_for_confirms(self) -> None:
        """Wait until everything sent before is confirmed. Raises what failed since the last call as one group."""
        if self._outlet is not None:
            await self._outlet.wait_for_confirms()

    async def publish(
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
        """Publish a value and return the message's id once the broker has confirmed it.

        After cancelling, the outcome is unknown.

        Args:
            value: The body: a value of a stage's type, text, or bytes.
            key: The routing key; with a `Key` the value must be of its type.
            headers: Headers of the message, such as a `traceparent` in place of the current span's.
            unique: Publish nothing if a message with this text and key was published within the app's `window`, and
                return the id of that one. Texts are kept in the app's `store`.
            after: Seconds to wait before it is delivered, or a timedelta; rounded up to whole seconds, four years at
                most. It waits on the broker, in queues that all apps share, and no worker takes part.
            at: The time at which it is delivered, in place of `after`: a datetime with a time zone.
            expires: Seconds, or a timedelta, after which it expires if no worker has taken it; counted from its
                delivery if it is delivered later. None: it never does.
            expired: What happens then. "drop": it is dropped. "dead": it becomes a dead letter of the reason `expired`,
                when a worker comes to it.

        Raises:
            UsageError: The key leads nowhere, with a delay to no queue that this app knows; the value can't be encoded
                or is not of the key's type; or a time is invalid.
            StoreError: Of a unique message: the store does not answer. Nothing was published.
            AccessRefused: The user may not declare the queues of delays (`rabbitry.delay.…`).
            PublishReturned: No queue takes the message.
            PublishRefused: The broker refused the message.
            PublishTimeout: The broker did not confirm in time.
        """
        timing = self._timing(timing_of(after, at, expires, expired))
        if unique is None:
            receipt = await self._send_value(value, key, headers, timing)
            await receipt
            return receipt.message_id

        async def send(identity: str) -> None:
            await (await self._send_value(value, key, headers, timing, identity))

        return await self._unique.publish(unique, name_of(key), send)

    @overload
    async def call(
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
    async def call(
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
    async def call(
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
        """Publish a value, wait until it is handled, and return what the handler returned.

        The key must lead to a stage with `replies=True`. After a timeout, or cancelling, the message may still be
        handled; `Outgoing(value, expiration=…)` has the broker drop it if no worker took it by then, and `cancel(id)`
        cancels it. If the connection is lost meanwhile, the reply may be, too.

        Args:
            value: The body, as for `publish`.
            key: The routing key.
            timeout: Seconds to wait for the reply, over all attempts.
            type: The type to decode the reply to; None: what its content type says.
            headers: Of the message.
            on_progress: Called in the publisher's event loop with each value that the handler gives to
                `Context.progress`.
            id: The message's id, to `cancel` it by, 1 to 255 bytes that no other message has; None for a random one.

        Raises:
            CallCancelled: The message was cancelled.
            CallFailed: The message failed for good and became a dead letter: the text is the handler's error. Or an
                idempotent stage had handled a message with its key before: the reason is `handled`.
            CallTimeout: No reply came in time.
            Undecodable: The reply is not of the type.
            UsageError: The key leads to no stage that replies, or the value can't be encoded.
            PublishError: The broker did not take the message.
            ConnectionClosed: The publisher was closed meanwhile.
        """
        with self._span(key) as span:
            identity, message = publication_of(self.spec, value, key, headers)
            if not self.spec.replies_to(message.routing_key):
                raise UsageError(
                    f"key {message.routing_key!r}: no stage that takes it has replies=True, so no reply would come"
                )
            if self._calls is None:
                raise UsageError(_NOT_ENTERED)
            if id is not None:
                identity = checked_id(id)
            if span is not None:
                span.describe(message, identity)
            answer = await self._calls.call(identity, message, timeout=timeout, type=type, on_progress=on_progress)
        if span is not None:
            span.end(None)
        return answer

    async def cancel(self, id: str) -> None:
        """Cancel a job by the id of its first message, which `publish` returned, before or while it is handled.

        Returns once the broker has confirmed that the cancellation is kept. It holds for 24 hours, and for the last
        10,000 of an app, on all workers, also those that start later:

        - A message of the job is dropped when a worker takes it, and counted in the worker's reports; so is everything
          that followed from the first message and has its correlation id: results, parts, retries.
        - An `async def` handler that runs is cancelled, as a task is, and may clean up until its time limit. A `def`
          handler in a thread sees `Context.cancelled`; one in a process is killed with it; a generator is closed at its
          next value. Nothing that the handler returns is published.
        - A caller that waits for the reply gets CallCancelled.

        A message whose handler had ended, and a batch that had begun, are not affected.

        Raises:
            UsageError: The app was not made with cancellable=True.
            PublishError: The broker did not take it.
        """
        if not self.spec.cancellable:
            raise UsageError(
                f"app {self.spec.name!r}: its workers do not listen for cancellations: make it with "
                f"App({self.spec.name!r}, cancellable=True)"
            )
        await (await self._send(cancellation_of(self.spec.name, id)))

    async def send(
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
    ) -> Receipt:
        """Send a value and return the message's receipt, a future that is done once the broker has confirmed it.

        Waits only while too many messages are unconfirmed. Arguments and errors are those of `publish`; the receipt
        raises those that the broker causes. With `unique`, it waits for the store; the receipt of a message that was
        published before is done.
        """
        timing = self._timing(timing_of(after, at, expires, expired))
        if unique is None:
            return await self._send_value(value, key, headers, timing)
        return await self._unique.send(unique, name_of(key), partial(self._send_value, value, key, headers, timing))

    async def _send_value(
        self,
        value: object,
        key: str | Key[Any],
        headers: Table | None,
        timing: Timing | None,
        identity: str | None = None,
    ) -> Receipt:
        """Send a value; identity: the message's id, None for a random one."""
        with self._span(key) as span:
            identity, message = publication_of(self.spec, value, key, headers, timing, identity)
            if span is not None:
                span.describe(message, identity)
            receipt = await self._send(message)
        if span is not None:
            receipt.add_done_callback(partial(_end_span, span, receipt))
        return receipt

    def _span(self, key: str | Key[Any]) -> AbstractContextManager[Publishing | None]:
        """Return the span of a message, None if the program does not use OpenTelemetry."""
        if not _tracing.is_used():
            return nullcontext()
        from rabbitry.flow import _spans

        return _spans.publishing(self.spec.name, name_of(key))

    def _timing(self, timing: Timing | None) -> Timing | None:
        return timing if timing is None or self._waits else timing._replace(delay=0.0)

    async def send_body(self, body: bytes, properties: Properties, *, key: str, **times: Unpack[Times]) -> Receipt:
        """Publish a body that is encoded already; see `send`."""
        return await self._send(addressed(self.spec, body, properties, key, self._timing(timing_of(**times))))

    async def _send(self, message: Publication) -> Receipt:
        if self._outlet is None:
            raise UsageError(_NOT_ENTERED)
        receipt = await self._outlet.send(message)
        receipt.add_done_callback(partial(self._on_done, receipt))
        return receipt

    def _on_done(self, receipt: Receipt, _: object) -> None:
        # The receipt is not asked for its exception here: its failure would then count as seen by the program.
        if self._outlet is not None and isinstance(receipt.failure, PublishRefused):
            self._outlet.refused()
        elif self._outlet is not None and isinstance(receipt.failure, PublishReturned):
            self._outlet.declare_first()  # a queue may have been deleted


def _end_span(span: Publishing, receipt: Receipt, _: object) -> None:
    span.end(receipt.failure)
