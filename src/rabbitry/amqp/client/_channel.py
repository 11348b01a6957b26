"""The core behind `Channel`: opening, closing, recovery, and the methods and contents that the broker sends."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from typing import TYPE_CHECKING, Final, TypeVar

from rabbitry.amqp.client._channel_link import Answer, ChannelLink
from rabbitry.amqp.client._link import Link
from rabbitry.amqp.client._publishing import Publishing
from rabbitry.amqp.client._session import Session, restore_topology
from rabbitry.amqp.client._settlements import Delivery
from rabbitry.amqp.client._subscriptions import Subscriptions
from rabbitry.amqp.client._topology import Topology
from rabbitry.amqp.client._window import PublishWindow
from rabbitry.amqp.protocol import events
from rabbitry.amqp.protocol.constants import Reply
from rabbitry.amqp.protocol.events import ContentEvent
from rabbitry.amqp.protocol.methods import (
    BasicCancel,
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
    ConfirmSelectOk,
    Method,
    QueueDeclare,
    QueueDeclareOk,
)
from rabbitry.exceptions import (
    ChannelClosed,
    Closed,
    ConnectionClosed,
    ProtocolViolation,
    RequestTimeout,
    UsageError,
    channel_closed,
)

if TYPE_CHECKING:
    from rabbitry.amqp.client._subscription import Subscription

DEFAULT_PREFETCH: Final = 100
LEAVE_TIMEOUT: Final = 5.0
"""Seconds that the broker has to answer when a block is left with an error."""
_T = TypeVar("_T")
_GET_OK = struct.Struct(">QB")


class ChannelCore:
    """One channel, across all its links. It handles the events of its link, and its connection restores it.

    It owns its part of the link (`line`), its consumers (`consumers`) and its publishing (`publishing`), and changes
    them together when the link is lost or the channel is closed.
    """

    def __init__(self, session: Session, prefetch: int, *, confirms: bool = True) -> None:
        self.session = session
        self.line: ChannelLink = ChannelLink(session)
        self.publishing: Publishing = Publishing(self.line, confirms=confirms)
        self.window: PublishWindow = self.publishing.window
        self.consumers: Subscriptions = Subscriptions(self.line, self._look, self._restore_topology)
        self._by_tag = self.consumers.by_tag
        _check_prefetch(prefetch)
        self._prefetch = prefetch
        self._limit = 0
        """Limit on the unsettled deliveries of all its consumers together; 0 for no limit."""

    @property
    def is_open(self) -> bool:
        """Whether the channel can be used."""
        return self.line.closed is None

    # -- opening and closing ---------------------------------------------------------------------------

    async def open(self, timeout: float | None = None) -> None:
        """Open the channel if it is closed. Raises as `Channel.open` does."""
        if self.line.closed is None:
            return
        self.publishing.start_anew()
        while True:
            link = await self.session.usable_link(timeout)
            try:
                await self._open_on(link, timeout)
                self.line.check_open()  # the link may be lost in the loop iteration that brought the answer
            except ConnectionClosed:
                if self.session.close_reason is not None:
                    raise
                await link.wait_lost()  # then try again on the link that recovery opens
            except BaseException:
                # A half-open channel is useless; its number is free once the broker has closed it too.
                if self.is_open and self.line.link is link:
                    self._begin_close()
                raise
            else:
                break
        self.session.channels.add(self)
        self.publishing.attach(link)

    async def _open_on(self, link: Link, timeout: float | None) -> None:
        self.line.attach(link, self)
        await self.line.request_now(ChannelOpen(), ChannelOpenOk, timeout)
        await self.line.request_now(BasicQos(0, self._prefetch, False), BasicQosOk, timeout)
        if self._limit:
            await self.line.request_now(BasicQos(0, self._limit, True), BasicQosOk, timeout)
        await self.publishing.restore_mode(timeout)

    async def close(self, timeout: float | None = None) -> None:
        """Close the channel in order if it is open. Raises as `Channel.close` does."""
        if self.is_open:
            self.session.check_loop()
            answer = self._begin_close()
            self.session.until_blocked(answer)
            with contextlib.suppress(ConnectionClosed):  # lost before the answer: the channel is closed too
                await self.line.until_answered(answer, "channel.close", timeout)

    async def leave(self, error: BaseException | None) -> None:
        """Close the channel at the end of its block, which raised `error`, or None.

        Without an error, wait until all messages are confirmed, and raise the failures that nobody has retrieved.
        """
        if error is not None:
            with contextlib.suppress(RequestTimeout):  # `error` is the one to raise; the broker requeues
                await self.close(LEAVE_TIMEOUT)
            return
        try:
            if self.is_open:
                await self.window.wait_idle(None)
        finally:
            await self.close()
        self.publishing.raise_unseen()

    def _begin_close(self) -> asyncio.Future[Answer]:
        """Send channel.close, refuse further use of the channel, and fail everything that waits."""
        self.line.settlements.flush()
        link = self.line.link
        self._fail(ChannelClosed(0, "the channel was closed by this program"))
        if link is None or not link.is_open:  # closing the connection closes its channels
            future: asyncio.Future[Answer] = self.session.loop.create_future()
            future.set_result(ChannelCloseOk())
            return future
        link.send(self.line.number, ChannelClose(Reply.SUCCESS, "Goodbye"))
        return self.line.expect_close(link, self)

    def _fail(self, error: Closed) -> None:
        """Fail everything that waits with `error`."""
        if self.line.closed is None:
            self.line.closed = error
        self.session.channels.discard(self)
        self.consumers.end(error)
        self._lose(error)
        self.window.fail(error)

    def _lose(self, error: Closed) -> None:
        self.line.lose(error)
        self.consumers.lose()

    # -- for the connection ----------------------------------------------------------------------------

    @property
    def subscriptions(self) -> list[Subscription]:
        """The consumers that are consuming or will be restarted."""
        return self.consumers.all

    @property
    def awaits_answer(self) -> bool:
        """Whether an answer or a confirm is outstanding, or a publisher waits."""
        return self.line.awaits_answer or not self.window.is_idle

    def measure_buffers(self) -> None:
        """Update the size of each consumer's buffer."""
        self.consumers.measure()

    def wake_publishers(self) -> None:
        """Resume publishers: the socket has room again, or the broker no longer blocks."""
        self.window.wake()

    def on_link_gone(self, error: Closed) -> None:
        """Handle the final loss of the connection while this channel is open or closing."""
        self._fail(error)

    def on_fork(self, error: Closed) -> None:
        """Abandon the channel in a child process: it can't be used, and nothing in the child waits for it."""
        self.line.abandon(error)
        self.window.abandon(error)

    def suspend(self, error: Closed) -> None:
        """Suspend: the connection was lost and is being recovered; publishers and consumers wait."""
        self._lose(error)
        self.window.suspend()
        self.consumers.suspend()

    async def restore(self, link: Link) -> None:
        """Reopen the channel on a new link, without consuming or publishing yet: the queues may be missing.

        Raises ConnectionClosed if that link is lost too, ChannelClosed if the program closes the channel meanwhile.
        """
        await self._open_on(link, None)

    async def resume(self, link: Link) -> None:
        """Restart the consumers, and resend the unconfirmed messages.

        Raises as `restore` does; ChannelClosed also if the broker refuses a consumer.
        """
        if self.is_open and self.line.link is not link:
            # Publishes would be lost with this link, be counted, and be sent over the next link before it is restored.
            raise ConnectionClosed(0, "the new connection was lost before the channel was restored")
        await self.consumers.resume()
        if self.is_open and self.line.link is link:
            self.publishing.attach(link)

    async def _restore_topology(self) -> None:
        """Redeclare everything that was declared over the connection. Raises as `restore_topology` does."""
        link = await self.session.usable_link(None)
        await restore_topology(self.session, link, lambda: ChannelCore(self.session, 0))

    async def _look(self, queue: str) -> None:
        """Raise NotFound unless the queue exists. Asks over a channel of its own, which a 404 closes."""
        probe = ChannelCore(self.session, DEFAULT_PREFETCH)
        await probe.open()
        try:
            await probe.line.request(QueueDeclare(queue, passive=True), QueueDeclareOk)
        except BaseException as error:
            await probe.leave(error)
            raise
        await probe.close()
        self.topology.queue_used(self.topology.known(queue), self.session.loop.time())

    # -- requests --------------------------------------------------------------------------------------

    @property
    def topology(self) -> Topology:
        """The topology declared over the connection."""
        return self.session.topology

    @property
    def notes(self) -> Topology:
        """The topology that declarations are recorded in; those of the program's `declare` are recorded nowhere."""
        return Topology() if self.session.declaring.is_running else self.session.topology

    async def request_now(self, method: Method, kind: type[_T], /) -> _T:
        """Send a method and wait for its answer, even while the connection recovers."""
        return await self.line.request_now(method, kind)

    async def qos(self, prefetch: int, timeout: float | None) -> None:
        """Limit each consumer that starts from now on to `prefetch` unsettled deliveries (0: no limit)."""
        _check_prefetch(prefetch)
        await self.line.request(BasicQos(0, prefetch, False), BasicQosOk, timeout)
        self._prefetch = prefetch
        self._limit = 0  # the broker lifts the limit of all consumers together

    async def limit(self, unsettled: int, timeout: float | None) -> None:
        """Limit the unsettled deliveries of all consumers together, from now on (0: no limit)."""
        self._limit = unsettled
        await self.line.request(BasicQos(0, unsettled, True), BasicQosOk, timeout)

    async def get(self, queue: str, *, no_ack: bool, timeout: float | None) -> Delivery | None:
        """Get one message from a queue, None if it is empty. If the caller is cancelled, the message is requeued."""
        await self.line.until_usable(timeout)
        topology = self.session.topology
        topology.queue_used(topology.known(queue), self.session.loop.time())
        method = BasicGet(topology.current(queue), no_ack)
        future = self.line.ask(method, (BasicGetOk, BasicGetEmpty), None if no_ack else self._hold_got)
        try:
            answer = await self.line.until_answered(future, "basic.get", timeout)
        except BaseException:
            # Cancelled although the answer has arrived: `_answer` found no waiter for it.
            if future.done() and not future.cancelled() and future.exception() is None:
                self._return_got(future.result())
            raise
        return answer if isinstance(answer, Delivery) else None

    def _return_got(self, answer: Answer) -> None:
        """Requeue a message whose `get` was cancelled."""
        if isinstance(answer, Delivery) and answer.delivery_tag in self.line.settlements.open:
            answer.nack()

    def _hold_got(self, answer: Answer) -> None:
        """Record that the message awaits its settlement."""
        if isinstance(answer, Delivery):
            self.line.settlements.open[answer.delivery_tag] = None

    # -- events from the broker -------------------------------------------------------------------------

    def on_method(self, method: Method) -> None:
        """Process a method from the link: an answer, or a method that the broker sends unasked."""
        if (request := self.line.find(type(method))) is not None:
            self.line.answer(request, method)
        elif isinstance(method, BasicNack):
            self.window.refuse(method.delivery_tag, multiple=method.multiple)
        elif isinstance(method, BasicCancel):
            self.consumers.on_cancel(method)
        elif isinstance(method, ChannelClose):
            self._on_close(method)
        elif isinstance(method, ChannelFlow):
            self.line.send(ChannelFlowOk(method.active))
        elif not isinstance(method, ConfirmSelectOk):
            raise ProtocolViolation(
                Reply.COMMAND_INVALID, f"COMMAND_INVALID - {type(method).__name__} was not requested"
            )

    def _on_close(self, method: ChannelClose) -> None:
        link = self.line.link
        if link is None:
            return
        link.send(self.line.number, ChannelCloseOk())
        if not self.is_open:
            return  # both sides closed at once: close-ok is still to come
        self._fail(channel_closed(*method))
        if method.reply_code == Reply.NOT_FOUND:
            self.session.deletions.not_found(method.reply_text)
        self.line.link = link
        self.line.free_number(self)

    def on_confirm(self, delivery_tag: int, *, multiple: bool) -> None:
        """Process an ack of the broker."""
        self.window.confirm(delivery_tag, multiple=multiple)

    def on_content(self, event: ContentEvent) -> None:
        """Process a delivery, a returned message or the answer to basic.get."""
        kind, _, arguments, header, body = event
        if kind == events.DELIVER:
            try:
                tag_end = 1 + arguments[0]
                delivery_tag, redelivered = _GET_OK.unpack_from(arguments, tag_end)
                subscription = self._by_tag.get(arguments[:tag_end])
            except (IndexError, struct.error) as error:
                raise ProtocolViolation(502, "SYNTAX_ERROR - basic.deliver is malformed", 60, 60) from error
            if subscription is None:
                text = "COMMAND_INVALID - a delivery for a consumer that does not exist"
                raise ProtocolViolation(Reply.COMMAND_INVALID, text, 60, 60)
            settlements = self.line.settlements
            if not subscription.no_ack:
                settlements.open[delivery_tag] = subscription
            subscription.deliver(
                Delivery(
                    settlements,
                    arguments,
                    tag_end + 9,
                    delivery_tag,
                    redelivered & 1 == 1,
                    subscription.tag,
                    header,
                    body,
                )
            )
        elif kind == events.RETURN:
            self.window.take_return(arguments, header, body)
        elif kind == events.GET_OK:
            self._on_got(arguments, header, body)

    def _on_got(self, arguments: bytes, header: bytes, body: bytes) -> None:
        request = self.line.find(BasicGetOk)
        if len(arguments) < 15 or request is None:
            raise ProtocolViolation(Reply.COMMAND_INVALID, "COMMAND_INVALID - basic.get-ok was not requested", 60, 71)
        tag, redelivered = _GET_OK.unpack_from(arguments)
        delivery = Delivery(self.line.settlements, arguments, 9, tag, redelivered & 1 == 1, "", header, body)
        if not self.line.answer(request, delivery):
            self._return_got(delivery)


def _check_prefetch(prefetch: int) -> None:
    if not isinstance(prefetch, int) or not 0 <= prefetch <= 0xFFFF:
        raise UsageError(f"prefetch={prefetch!r} is out of range: pass a whole number from 0 (no limit) to 65535")
