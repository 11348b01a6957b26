"""A channel: declaring, publishing, consuming, and its orderly end.

Longer than other files: requests, window, consumers and settlements share one state, which every loss of the link and
every close changes as a whole.
"""

import asyncio
import contextlib
import itertools
import logging
import secrets
import struct
from collections import deque
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self, TypeVar

from rabbitry.amqp.client._consumers import Consumers
from rabbitry.amqp.client._declaring import Declaring
from rabbitry.amqp.client._link import Link
from rabbitry.amqp.client._loops import check_loop
from rabbitry.amqp.client._receipts import Receipt, fail, raise_all
from rabbitry.amqp.client._restoring import consume_again
from rabbitry.amqp.client._topology import Topology
from rabbitry.amqp.client._transaction import Transaction
from rabbitry.amqp.client._window import PublishWindow
from rabbitry.amqp.client.consuming import LEAVE_TIMEOUT, Consumer, Delivery, Settlements
from rabbitry.amqp.protocol import events
from rabbitry.amqp.protocol.constants import Reply
from rabbitry.amqp.protocol.events import ContentEvent
from rabbitry.amqp.protocol.methods import (
    NO_ARGUMENTS,
    BasicCancel,
    BasicCancelOk,
    BasicConsume,
    BasicConsumeOk,
    BasicGet,
    BasicGetEmpty,
    BasicGetOk,
    BasicNack,
    BasicQos,
    BasicQosOk,
    ChannelClose,
    ChannelCloseOk,
    ChannelFlow,
    ChannelFlowOk,
    ChannelOpen,
    ChannelOpenOk,
    ConfirmSelect,
    ConfirmSelectOk,
    Method,
    TxSelect,
    TxSelectOk,
)
from rabbitry.amqp.protocol.properties import EncodedProperties, Properties
from rabbitry.amqp.protocol.states import ChannelState
from rabbitry.amqp.protocol.tables import Table, encode_short
from rabbitry.exceptions import (
    ChannelClosed,
    Closed,
    ConnectionClosed,
    ConsumerCancelled,
    DeliveryTimeoutCancelled,
    ProtocolViolation,
    RequestTimeout,
    UsageError,
    channel_closed,
)

if TYPE_CHECKING:
    from rabbitry.amqp.client.connection import Connection

_log = logging.getLogger(__name__)
DEFAULT_PREFETCH: Final = 100
_REQUEST_ATTEMPTS: Final = 3
_FROM_THE_QUEUE: Final = ((BasicConsumeOk,), (BasicCancelOk,))
_T = TypeVar("_T")
_GET_OK = struct.Struct(">QB")


class _Request:
    """A method that was sent, the answer that is expected, and what to do with it whether or not anybody waits."""

    __slots__ = ("future", "kinds", "then")

    def __init__(
        self,
        kinds: tuple[type, ...],
        future: "asyncio.Future[Method | Delivery]",
        then: "Callable[[Method | Delivery], None] | None",
    ) -> None:
        self.kinds = kinds
        self.future = future
        self.then = then


class Channel(Declaring):
    """A channel of a connection. Made by `Connection.channel`; an async context manager that closes it.

    Leaving its block without an error waits until all that was sent is confirmed, and raises what failed and nobody has
    looked at as one ExceptionGroup. Leaving it with an error closes at once.

    Every waiting method takes `timeout` in seconds (None: the connection's `request_timeout`) and raises
    RequestTimeout past it; ChannelClosed or ConnectionClosed with the broker's words where that is what
    the request led to; UsageError for what can't be sent. Cancelling a waiting method leaves the channel in
    order: the answer is taken and dropped when it comes.
    """

    def __init__(self, connection: "Connection", prefetch: int, *, confirms: bool = True) -> None:
        self.connection = connection
        self.loop = asyncio.get_running_loop()
        self.number = 0
        self._prefetch = prefetch
        self._limit = 0
        """Unsettled deliveries of all its consumers together; 0 for no limit."""
        self._link: Link | None = None
        self._closed: Closed | None = ChannelClosed(0, "the channel was never opened")
        self._requests: deque[_Request] = deque()
        self._starting: dict[bytes, asyncio.Future[None]] = {}
        """Consumers whose consume-ok has not come, by tag; done when it has, or when the link is lost."""
        self.window = PublishWindow(self.loop, connection.failures)
        self.window.confirms = confirms
        self.in_transaction = False
        self.is_transactional = False
        """Whether the channel has had a transaction: AMQP can't take a channel out of transactional mode."""
        self._confirming = False
        self._consumers: dict[bytes, Consumer] = {}
        self._restoring: dict[bytes, tuple[Consumer, asyncio.Task[None]]] = {}
        self._consumer_numbers = itertools.count(1)
        self._consumer_suffix = secrets.token_hex(6)
        self._settlements = Settlements(self.loop, 0, self._no_write, self._send)
        self._topology = connection.topology

    def __repr__(self) -> str:
        return f"<Channel {self.number} {'open' if self.is_open else 'closed'} of {self.connection!r}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            with contextlib.suppress(RequestTimeout):  # the error is what counts, and what the channel had goes back
                await self.close(timeout=LEAVE_TIMEOUT)
            return
        try:
            if self._closed is None:
                await self.window.wait_idle(None)
        finally:
            await self.close()
        raise_all(self.connection.failures.take_unseen(self.window))

    @property
    def is_open(self) -> bool:
        """Whether the channel can be used."""
        return self._closed is None

    @property
    def close_reason(self) -> Closed | None:
        """Why the channel is closed; None while it is open."""
        return self._closed

    # -- opening and closing ---------------------------------------------------------------------------

    async def open(self, *, timeout: float | None = None) -> None:
        """Open the channel again after it was closed; the connection stays as it is. Consumers do not come back.

        Does nothing where it is open. Waits while the connection recovers.
        """
        if self._closed is None:
            return
        self._confirming = False
        self.is_transactional = self.in_transaction
        while True:
            link = await self.connection.usable_link(timeout)
            try:
                await self._open_on(link, timeout)
                if (reason := self.close_reason) is not None:  # lost in the turn of the loop that brought the answer
                    raise reason.fresh()
            except ConnectionClosed:
                if self.connection.close_reason is not None:
                    raise
                await link.wait_lost()  # then over the link that recovery makes
            except BaseException:
                # A half-open channel is of no use to anybody; its number is free when the broker has closed it too.
                if self.is_open and self._link is link:
                    self._begin_close()
                raise
            else:
                break
        self.connection.channels.add(self)
        self._attach_window(link)

    async def _open_on(self, link: Link, timeout: float | None) -> None:
        if not link.is_open:
            raise ConnectionClosed(0, "the connection was lost before the channel was open")
        number = link.free_channel_number()
        if number is None:
            raise UsageError(f"all {link.core.channel_max} channels of this connection are in use")
        self.number = number
        self._link = link
        link.channels[number] = self
        self._requests.clear()
        self._settlements = Settlements(self.loop, number, link.driver.write, self._send)
        self._closed = None
        await self.request_now(ChannelOpen(), ChannelOpenOk, timeout)
        await self.request_now(BasicQos(0, self._prefetch, False), BasicQosOk, timeout)
        if self._limit:
            await self.request_now(BasicQos(0, self._limit, True), BasicQosOk, timeout)
        if self.is_transactional:
            await self.request_now(TxSelect(), TxSelectOk, timeout)
        if self._confirming:
            self._send(ConfirmSelect(nowait=True))

    def _attach_window(self, link: Link) -> None:
        self.window.attach(
            self.number, link.core.frame_limit, self._write_publish, self._flush, self._can_write,
            self._topology.current, hold=self.connection.resending.is_careful,
        )  # fmt: skip

    async def close(self, *, timeout: float | None = None) -> None:
        """Close in order: channel.close, wait for close-ok. What is not confirmed fails, what is not settled
        goes back to its queue. Does nothing where it is closed. Cancelling leaves the rest to the broker.
        """
        if self._closed is None:
            check_loop(self.loop, self.connection)
            with contextlib.suppress(ConnectionClosed):  # lost before the answer: then it is as closed as it can be
                await self._until_answered(self._begin_close(), "channel.close", timeout)

    def _begin_close(self) -> "asyncio.Future[Method | Delivery]":
        """Send channel.close; from here on nobody can use the channel, and what waits has failed."""
        self._settlements.flush()
        link = self._link
        self._fail(ChannelClosed(0, "the channel was closed by this program"))
        future: asyncio.Future[Method | Delivery] = self.loop.create_future()
        if link is None or not link.is_open:  # a connection that is closing takes its channels with it
            future.set_result(ChannelCloseOk())
            return future
        self._link = link
        self._requests.append(_Request((ChannelCloseOk,), future, lambda _: self._forget_link()))
        link.send(self.number, ChannelClose(Reply.SUCCESS, "Goodbye"))
        link.hold_or_read()
        return future

    def _fail(self, error: Closed) -> None:
        """End all that waits with `error`."""
        if self._closed is None:
            self._closed = error
        self.connection.channels.discard(self)
        consumers, self._consumers = self._consumers, {}
        for consumer in consumers.values():  # while there is a link, which they may hold
            consumer.end(error)
        restoring, self._restoring = self._restoring, {}
        for consumer, task in restoring.values():
            task.cancel()
            consumer.end(error)
        for consumer in consumers.values():
            self.connection.consumer_gone(consumer)
        self._lose(error)
        self.window.fail(error)

    def _lose(self, error: Closed) -> None:
        """Part with the link: what it was asked fails, what it brought can't be settled any more."""
        self._link = None
        self._settlements.lost = error
        requests, self._requests = self._requests, deque()
        for request in requests:
            fail(request.future, error.fresh())
        starting, self._starting = self._starting, {}
        for answered in starting.values():
            answered.set_result(None)

    # -- for the connection ----------------------------------------------------------------------------

    def on_link_gone(self, error: Closed) -> None:
        """Handle the final loss of the connection, while this channel was open or closing."""
        self._fail(error)

    def on_fork(self, error: Closed) -> None:
        """Abandon the channel in a child process: nothing here may be used, and nothing waits."""
        self._closed = error
        self._link = None
        self._settlements.lost = error
        self.window.abandon(error)

    def suspend(self, error: Closed) -> None:
        """Suspend: the connection was lost and is being recovered; publishers and consumers wait."""
        self._lose(error)
        self.window.suspend()
        # One whose cancel was not answered is gone with the link, and must not be consumed again. One that was on
        # its way back stays with `_restoring`, which tries again.
        self._consumers = {
            key: consumer
            for key, consumer in self._consumers.items()
            if not consumer.has_ended and key not in self._restoring
        }
        for consumer in [*self._consumers.values(), *(consumer for consumer, _ in self._restoring.values())]:
            consumer.drop_buffer()

    async def restore(self, link: Link) -> None:
        """Open the channel on a new link, as it was. Nothing is consumed or published yet: the queues may be missing.

        Raises ConnectionClosed where that link is lost too, ChannelClosed where its owner closes it meanwhile.
        """
        await self._open_on(link, None)

    async def resume(self, link: Link) -> None:
        """Consume again, and send again what was not confirmed.

        Raises as `restore` does; ChannelClosed where the broker refuses a consumer, or the channel's owner
        closed it meanwhile.
        """
        if self._closed is None and self._link is not link:
            # Publishes would go nowhere, be counted, and go out over the next link before it is restored.
            raise ConnectionClosed(0, "the new connection was lost before the channel was restored")
        for key, consumer in list(self._consumers.items()):
            if consumer.has_ended:
                continue  # its cancel is on the way already
            if consumer.restore:
                del self._consumers[key]
                self._bring_back(key, consumer, after_recovery=True)
            else:
                await self.request_now(self._consume_method(consumer), BasicConsumeOk)
        if self._closed is None and self._link is link:
            self._attach_window(link)

    async def limit(self, unsettled: int, *, timeout: float | None = None) -> None:
        """Limit the unsettled deliveries of all consumers of this channel together, from now on (0: no limit).

        Those of quorum queues are not limited (basic.qos with global; RabbitMQ's docs/consumer-prefetch).
        """
        self._limit = unsettled
        await self.request(BasicQos(0, unsettled, True), BasicQosOk, timeout=timeout)

    async def qos(self, prefetch: int, *, timeout: float | None = None) -> None:
        """Limit each consumer that starts from now on to `prefetch` unsettled deliveries (0: no limit)."""
        await self.request(BasicQos(0, prefetch, False), BasicQosOk, timeout=timeout)
        self._prefetch = prefetch
        self._limit = 0  # lifted by the broker

    # -- publishing ------------------------------------------------------------------------------------

    async def publish(
        self,
        body: bytes,
        *,
        exchange: str = "",
        routing_key: str = "",
        properties: Properties | None = None,
        mandatory: bool = True,
        timeout: float | None = None,
    ) -> None:
        """Publish a message and return when the broker has confirmed it.

        Without a delivery mode in `properties` it is persistent; without a message id it gets one.
        timeout: seconds for waiting to send and for the confirm; None means the connection's
        `publish_timeout`. Raises PublishReturned (mandatory and unroutable), PublishRefused, PublishTimeout
        (outcome unknown), ChannelClosed, ConnectionClosed. After cancelling, the outcome is unknown.
        """
        await (await self.send_untracked(body, exchange, routing_key, properties, mandatory, timeout))

    async def send(
        self,
        body: bytes,
        *,
        exchange: str = "",
        routing_key: str = "",
        properties: Properties | EncodedProperties | None = None,
        mandatory: bool = True,
        timeout: float | None = None,
    ) -> asyncio.Future[None]:
        """Publish a message and return its future, which is done when the broker has confirmed it.

        Waits only while too many messages are unconfirmed. Arguments and errors are those of `publish`, but
        that properties may be encoded already; the errors come from the future, and from `wait_for_confirms`.
        """
        check_loop(self.loop, self.connection)
        self._ensure_confirms()
        timeout = self.connection.publish_timeout if timeout is None else timeout
        return await self.window.send(body, exchange, routing_key, properties, mandatory, timeout, True)

    async def send_untracked(
        self,
        body: bytes,
        exchange: str,
        routing_key: str,
        properties: Properties | EncodedProperties | None,
        mandatory: bool,
        timeout: float | None,
    ) -> Receipt:
        """Publish as `send` does, for a caller who tells of the failure itself; for `publish` and `blocking`."""
        check_loop(self.loop, self.connection)
        self._ensure_confirms()
        timeout = self.connection.publish_timeout if timeout is None else timeout
        return await self.window.send(body, exchange, routing_key, properties, mandatory, timeout, False)

    async def wait_for_confirms(self, *, timeout: float | None = None) -> None:
        """Wait until everything sent before is confirmed.

        Raises what failed since the last call as one ExceptionGroup, and PublishTimeout when `timeout`
        seconds (None: no limit but the messages' own) have passed.
        """
        check_loop(self.loop, self.connection)
        await self.window.wait_idle(timeout)
        raise_all(self.connection.failures.take(self.window))

    def _ensure_confirms(self) -> None:
        if self._confirming:
            return
        if not self.window.confirms:
            if self.is_transactional and not self.in_transaction:
                raise UsageError(
                    "can't publish outside of a transaction over a channel that has had one, since it would never take "
                    "effect: publish within `channel.transaction()`, or over another channel"
                )
            return
        self._confirming = True
        link = self._link
        if link is not None and link.core.channel_state(self.number) is ChannelState.OPEN:
            self._send(ConfirmSelect(nowait=True))  # else whoever opens or restores the channel asks for it

    def transaction(self) -> Transaction:
        """Return a transaction, to be entered with `async with`, on a channel opened with `confirms=False`.

        The end of the block commits the publishes and settlements made over this channel within it. An exception or
        a cancellation rolls them back: nothing is published, and deliveries settled in the block stay unsettled until
        the channel is closed. After its first transaction the channel can publish within transactions only.

        See class tx of AMQP 0-9-1 and RabbitMQ's page docs/semantics.

        Raises:
            UsageError: when the block is entered, on a channel with confirms or within another transaction.
            ConnectionClosed: when the block ends, where the connection was lost within it. Nothing took effect; only if
                it was lost during the commit is the outcome unknown.
            ChannelClosed: when the block ends, where the broker closed the channel. Nothing took effect.
            RequestTimeout: when the broker does not answer within the connection's `request_timeout`.
        """
        return Transaction(self)

    @property
    def has_confirms(self) -> bool:
        """Whether the broker confirms what is published over this channel."""
        return self.window.confirms

    @property
    def epoch(self) -> object:
        """An object that each recovery replaces, by which `Transaction` sees that the connection was lost."""
        return self._settlements

    def _write_publish(self, data: bytes) -> None:
        link = self._link
        if link is not None:
            link.driver.write(data)
            if link.is_held:
                link.read()

    def _flush(self) -> None:
        self._settlements.flush()  # acks of this turn travel with it
        link = self._link
        if link is not None:
            link.driver.flush()

    def _can_write(self) -> bool:
        link = self._link
        return link is not None and link.driver.can_write and self.connection.blocked is None

    def _no_write(self, data: bytes) -> None:
        raise self._closed.fresh() if self._closed else UsageError("the channel was never opened")

    @property
    def awaits_answer(self) -> bool:
        """Whether the broker owes an answer or a confirm, or somebody waits to publish."""
        return bool(self._requests) or not self.window.is_idle

    def wake_publishers(self) -> None:
        """Resume publishers: the socket takes data again, or the broker no longer blocks."""
        self.window.wake()

    # -- consuming -------------------------------------------------------------------------------------

    def consume(
        self,
        queue: str,
        *,
        no_ack: bool = False,
        exclusive: bool = False,
        consumer_tag: str = "",
        arguments: Table | None = None,
        restore: bool = False,
    ) -> Consumer:
        """Make a consumer of `queue`, to be entered with `async with`, which starts it.

        no_ack: deliveries count as settled when sent, and are lost with the connection. restore: where the
        broker cancels the consumer (its queue was deleted, its node went down), what was declared over this
        connection is declared again and the consumer started anew, with growing pauses until that works;
        without it the iteration raises ConsumerCancelled.
        """
        tag = consumer_tag or f"rabbitry.{self._consumer_suffix}.{next(self._consumer_numbers)}"
        return Consumer(self, queue, tag, no_ack, exclusive, arguments, restore)

    def consume_all(self, queues: Iterable[str], *, no_ack: bool = False, restore: bool = False) -> Consumers:
        """Return consumers of several queues as one async context manager and iterator.

        Arguments are those of `consume`. The channel's prefetch applies to each queue by itself. The iteration raises
        the error of the first consumer that fails, as that of `consume` does.

        Raises UsageError where `queues` is empty.
        """
        consumers = [self.consume(queue, no_ack=no_ack, restore=restore) for queue in queues]
        if not consumers:
            raise UsageError("consume_all needs at least one queue: pass a list of their names")
        return Consumers(consumers)

    async def start_consumer(self, consumer: Consumer, timeout: float | None) -> None:
        """Ask the broker to start a consumer; for `Consumer`."""
        key = encode_short(consumer.consumer_tag)
        if key in self._consumers or key in self._restoring:
            raise UsageError(f"consumer tag {consumer.consumer_tag!r} is in use on this channel")
        await self._until_usable(timeout)

        def started() -> None:
            consumer.has_started = True

        future = self._ask_to_consume(consumer, started)
        try:
            try:
                await self._until_answered(future, "basic.consume", timeout)
            except ConnectionClosed:
                if not self.is_open:
                    raise
                await self._until_usable(timeout)  # recovery has started it with the others
        except BaseException:
            consumer.end(None)
            if self._link is None:
                self._consumers.pop(key, None)  # nothing to cancel; recovery must not start it
            else:
                self._cancel_once_started(consumer)  # the caller gave up; the broker starts it all the same
            raise

    async def start_again(self, consumer: Consumer) -> None:
        """Start a consumer that was started before; for `restoring`. Raises ConnectionClosed, ChannelClosed."""
        await self._until_usable(None)
        if consumer.has_ended:
            return
        key = encode_short(consumer.consumer_tag)

        def started() -> None:
            # It is one of the others again: from now on recovery starts it with them.
            self._restoring.pop(key, None)

        # No time limit: a consumer that starts late must not be started twice.
        await self._ask_to_consume(consumer, started)

    def _ask_to_consume(self, consumer: Consumer, then: Callable[[], None]) -> "asyncio.Future[Method | Delivery]":
        key = encode_short(consumer.consumer_tag)
        answered: asyncio.Future[None] = self.loop.create_future()

        def started(_: Method | Delivery) -> None:
            del self._starting[key]
            answered.set_result(None)
            then()

        future = self._ask(self._consume_method(consumer), (BasicConsumeOk,), started)
        self._starting[key] = answered
        self._consumers[key] = consumer  # before the answer: deliveries come right behind it
        return future

    def _bring_back(self, key: bytes, consumer: Consumer, *, after_recovery: bool) -> None:
        """Restart a consumer. Owned by `_restoring`."""

        def done(task: asyncio.Task[None]) -> None:
            if self._restoring.get(key) == (consumer, task):
                del self._restoring[key]
            error = None if task.cancelled() else task.exception()
            if error is not None:  # nobody awaits the task: whoever iterates over the consumer learns of it
                reason = ChannelClosed(0, f"the consumer of {consumer.queue!r} can't be restored: {error!r}")
                reason.__cause__ = error
                consumer.end(reason)

        task = self.loop.create_task(
            consume_again(self, consumer, after_recovery=after_recovery), name=f"consume {consumer.queue} again"
        )
        self._restoring[key] = consumer, task
        task.add_done_callback(done)

    async def stop_consumer(self, consumer: Consumer, timeout: float | None) -> None:
        """Cancel a consumer and give back what is not settled; for `Consumer`."""
        key = encode_short(consumer.consumer_tag)
        restoring = self._restoring.pop(key, None)
        if restoring is not None:
            restoring[1].cancel()
        if (starting := self._starting.get(key)) is not None:
            # RabbitMQ ends the connection with 541 where basic.cancel reaches it before it has sent consume-ok.
            try:
                await self._until_answered(asyncio.shield(starting), "basic.consume", timeout)
            except BaseException:
                self._cancel_once_started(consumer)
                raise
        if self._link is None or not self._link.is_open:
            self._consumers.pop(key, None)  # there is nothing to cancel; it will not be restored
            self.connection.consumer_gone(consumer)
        elif self._closed is None and key in self._consumers:
            await self._until_answered(self._ask_to_cancel(consumer), "basic.cancel", timeout)

    def _cancel_once_started(self, consumer: Consumer) -> None:
        """Cancel a consumer that nobody waits for, as soon as the broker has answered basic.consume."""
        key = encode_short(consumer.consumer_tag)

        def cancel(_: object = None) -> None:
            if self._closed is None and self._link is not None and self._link.is_open and key in self._consumers:
                self._ask_to_cancel(consumer)

        starting = self._starting.get(key)
        if starting is None:
            cancel()
        else:
            starting.add_done_callback(cancel)

    def _consume_method(self, consumer: Consumer) -> BasicConsume:
        return BasicConsume(
            self._topology.current(consumer.queue),
            consumer.consumer_tag,
            no_ack=consumer.no_ack,
            exclusive=consumer.exclusive,
            arguments=consumer.arguments or NO_ARGUMENTS,
        )

    def _ask_to_cancel(self, consumer: Consumer) -> "asyncio.Future[Method | Delivery]":
        def done(_: Method | Delivery) -> None:
            # Until cancel-ok deliveries may come; with the answer the last of them is here.
            self._consumers.pop(encode_short(consumer.consumer_tag), None)
            self.connection.consumer_gone(consumer)
            if consumer.gives_back:
                self._settlements.give_back(consumer)

        return self._ask(BasicCancel(consumer.consumer_tag), (BasicCancelOk,), done)

    async def get(self, queue: str, *, no_ack: bool = False, timeout: float | None = None) -> Delivery | None:
        """Take one message from a queue, or None where it is empty. A message whose caller gave up goes back."""
        await self._until_usable(timeout)
        self._topology.queue_used(self._topology.known(queue), self.loop.time())
        method = BasicGet(self._topology.current(queue), no_ack)
        future = self._ask(method, (BasicGetOk, BasicGetEmpty), None if no_ack else self._hold_got)
        try:
            answer = await self._until_answered(future, "basic.get", timeout)
        except BaseException:
            # Cancelled with the answer here already: `_answer` has handed it to nobody.
            if future.done() and not future.cancelled() and future.exception() is None:
                self._return_got(future.result())
            raise
        return answer if isinstance(answer, Delivery) else None

    def _return_got(self, answer: "Method | Delivery") -> None:
        """Requeue a message whose `get` was cancelled."""
        if isinstance(answer, Delivery) and answer.delivery_tag in self._settlements.open:
            answer.nack()

    def _hold_got(self, answer: "Method | Delivery") -> None:
        """Note that what was got waits for its settlement."""
        if isinstance(answer, Delivery):
            self._settlements.open[answer.delivery_tag] = None

    @property
    def consumers(self) -> list[Consumer]:
        """Those that consume, or are to consume again."""
        return [*self._consumers.values(), *(consumer for consumer, _ in self._restoring.values())]

    def measure_buffers(self) -> None:
        """Update each consumer's count of what it has read ahead."""
        for consumer in self._consumers.values():
            consumer.measure()

    def hold_reading(self, consumer: Consumer) -> None:
        """Take nothing more from the socket; for `Consumer`."""
        if self._link is not None:
            self._link.hold_reading(consumer)

    def release_reading(self, consumer: Consumer) -> None:
        """Undo `hold_reading`."""
        if self._link is not None:
            self._link.release_reading(consumer)

    # -- requests and answers --------------------------------------------------------------------------

    def _send(self, method: Method) -> None:
        if self._closed is not None or self._link is None:
            raise self._closed.fresh() if self._closed else ConnectionClosed(0, "the connection is lost, not yet back")
        if not self._link.is_open:
            raise ConnectionClosed(0, "the connection is closing")
        self._link.send(self.number, method)

    def _ask(
        self,
        method: Method,
        kinds: tuple[type, ...],
        then: "Callable[[Method | Delivery], None] | None" = None,
    ) -> "asyncio.Future[Method | Delivery]":
        self._settlements.flush()
        self._send(method)
        future: asyncio.Future[Method | Delivery] = self.loop.create_future()
        self._requests.append(_Request(kinds, future, then))
        if self._link is not None:
            self._link.hold_or_read()
        return future

    @property
    def _notes(self) -> Topology:
        # What the program's `declare` declares is its own to declare again.
        return Topology() if self.connection.is_declaring else self._topology

    async def _until_usable(self, timeout: float | None) -> None:
        """Wait while the connection recovers."""
        check_loop(self.loop, self.connection)
        if self._closed is None:
            await self.connection.usable_link(timeout)

    async def request(self, method: Method, kind: type[_T], timeout: float | None = None) -> _T:
        """Send a method and wait for its answer; again where the connection was lost and came back meanwhile.

        What goes this way says how things are to be, so that saying it twice does no harm. One over which the
        connection was lost a few times may be the cause; the last loss is raised.
        """
        attempt = 1
        while True:
            await self._until_usable(timeout)
            try:
                return await self.request_now(method, kind, timeout)
            except ConnectionClosed:
                if not self.is_open or attempt == _REQUEST_ATTEMPTS:
                    raise
                attempt += 1

    async def request_now(self, method: Method, kind: type[_T], timeout: float | None = None) -> _T:
        """Send a method and wait for its answer, also while the connection recovers; for recovery itself."""
        answer = await self._until_answered(self._ask(method, (kind,)), type(method).__name__, timeout)
        assert isinstance(answer, kind)  # noqa: S101 # on_method lets nothing else through; narrows the type
        return answer

    async def _until_answered(self, future: "asyncio.Future[_T]", what: str, timeout: float | None) -> _T:
        seconds = self.connection.request_timeout if timeout is None else timeout
        try:
            async with asyncio.timeout(seconds):
                return await future
        except TimeoutError as error:
            raise RequestTimeout(f"the broker did not answer {what} within {seconds} s") from error

    def on_method(self, method: Method) -> None:
        """Take a method from the link: an answer, or something of the broker's own accord."""
        if (request := self._asked_for(type(method))) is not None:
            self._answer(request, method)
        elif isinstance(method, BasicNack):
            self.window.refuse(method.delivery_tag, method.multiple)
        elif isinstance(method, BasicCancel):
            self._on_cancel(method)
        elif isinstance(method, ChannelClose):
            self._on_close(method)
        elif isinstance(method, ChannelFlow):
            self._send(ChannelFlowOk(method.active))
        elif not isinstance(method, ConfirmSelectOk):
            raise ProtocolViolation(
                Reply.COMMAND_INVALID, f"COMMAND_INVALID - {type(method).__name__} was not asked for"
            )

    def _asked_for(self, kind: type) -> _Request | None:
        """Return the request that such an answer is to: the first one.

        Answers that RabbitMQ's queue sends, and not its channel, may come after the answers to later requests.
        """
        for request in self._requests:
            if issubclass(kind, request.kinds):
                return request
            if request.kinds not in _FROM_THE_QUEUE:
                break
        return None

    def _answer(self, request: _Request, answer: "Method | Delivery") -> None:
        self._requests.remove(request)
        if request.then is not None:
            request.then(answer)
        if not request.future.done():
            request.future.set_result(answer)
        else:
            self._return_got(answer)

    def _forget_link(self) -> None:
        link = self._link or self.connection.link
        self._link = None
        if link is not None and link.channels.get(self.number) is self:
            del link.channels[self.number]

    def _on_close(self, method: ChannelClose) -> None:
        link = self._link
        if link is None:
            return
        link.send(self.number, ChannelCloseOk())
        if self._closed is not None:
            return  # both sides closed at once: close-ok is still to come
        self._fail(channel_closed(*method))
        if method.reply_code == Reply.NOT_FOUND:
            self.connection.not_found(method.reply_text)
        self._link = link
        self._forget_link()

    def _on_cancel(self, method: BasicCancel) -> None:
        key = encode_short(method.consumer_tag)
        consumer = self._consumers.pop(key, None)
        if consumer is not None:
            if consumer.restore and not consumer.has_ended:
                self._bring_back(key, consumer, after_recovery=False)
            else:
                error = self._cancelled(consumer)
                consumer.end(error)
                if isinstance(error, DeliveryTimeoutCancelled):
                    self.connection.consumer_gone(consumer)
                else:  # the queue was deleted, or its node is down: then it is durable, or gone too
                    self.connection.queue_gone(consumer.queue)
        if not method.nowait:
            self._send(BasicCancelOk(method.consumer_tag))

    def _cancelled(self, consumer: Consumer) -> ConsumerCancelled:
        # From 4.3 on RabbitMQ cancels a consumer that is late with a settlement, where it closed the channel before.
        late = consumer in self._settlements.open.values() and self.connection.server_version >= (4, 3)
        return (DeliveryTimeoutCancelled if late else ConsumerCancelled)(consumer.consumer_tag, consumer.queue)

    def on_confirm(self, delivery_tag: int, multiple: bool) -> None:
        """Take an ack of the broker."""
        self.window.confirm(delivery_tag, multiple)

    def on_content(self, event: ContentEvent) -> None:
        """Take a delivery, a returned message or the answer to a get."""
        kind, _, arguments, header, body = event
        if kind == events.DELIVER:
            try:
                tag_end = 1 + arguments[0]
                delivery_tag, redelivered = _GET_OK.unpack_from(arguments, tag_end)
                consumer = self._consumers.get(arguments[:tag_end])
            except (IndexError, struct.error) as error:
                raise ProtocolViolation(502, "SYNTAX_ERROR - basic.deliver is malformed", 60, 60) from error
            self._deliver(consumer, arguments, tag_end + 9, delivery_tag, redelivered, header, body)
        elif kind == events.RETURN:
            self.window.take_return(arguments, header, body)
        elif kind == events.GET_OK:
            self._on_got(arguments, header, body)

    def _deliver(
        self,
        consumer: Consumer | None,
        arguments: bytes,
        destination_at: int,
        tag: int,
        redelivered: int,
        header: bytes,
        body: bytes,
    ) -> None:
        settlements = self._settlements
        if consumer is None:
            text = "COMMAND_INVALID - a delivery for a consumer that does not exist"
            raise ProtocolViolation(Reply.COMMAND_INVALID, text, 60, 60)
        if not consumer.no_ack:
            settlements.open[tag] = consumer
        consumer.deliver(
            Delivery(
                settlements, arguments, destination_at, tag, redelivered & 1 == 1, consumer.consumer_tag, header, body
            )
        )

    def _on_got(self, arguments: bytes, header: bytes, body: bytes) -> None:
        request = self._asked_for(BasicGetOk)
        if len(arguments) < 15 or request is None:
            raise ProtocolViolation(Reply.COMMAND_INVALID, "COMMAND_INVALID - basic.get-ok was not asked for", 60, 71)
        tag, redelivered = _GET_OK.unpack_from(arguments)
        delivery = Delivery(self._settlements, arguments, 9, tag, redelivered & 1 == 1, "", header, body)
        self._answer(request, delivery)
