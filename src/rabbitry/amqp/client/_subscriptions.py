"""The consumers of one channel: starting, cancelling and restarting them."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from rabbitry.amqp.client._channel_link import Answer, ChannelLink
from rabbitry.amqp.protocol.layouts import NO_ARGUMENTS
from rabbitry.amqp.protocol.methods import BasicCancel, BasicCancelOk, BasicConsume, BasicConsumeOk
from rabbitry.amqp.protocol.tables import encode_short
from rabbitry.exceptions import (
    ChannelClosed,
    Closed,
    ConnectionClosed,
    ConsumerCancelled,
    DeliveryTimeoutCancelled,
    RequestTimeout,
    UsageError,
)

if TYPE_CHECKING:
    from rabbitry.amqp.client._subscription import Subscription

_logger = logging.getLogger(__name__)


class Subscriptions:
    """The subscriptions of one channel, including those that are starting or being restarted.

    by_tag: those known to the broker or requested from it, by encoded consumer tag, as a delivery has it.
    """

    def __init__(
        self,
        line: ChannelLink,
        look: Callable[[str], Awaitable[None]],
        restore_topology: Callable[[], Awaitable[None]],
    ) -> None:
        """Store the channel's link, and two functions for restarting consumers.

        look: raises unless the queue exists. restore_topology: redeclares everything that was declared over the
        connection.
        """
        self.by_tag: dict[bytes, Subscription] = {}
        self._line = line
        self._session = line.session
        self._look = look
        self._restore_topology = restore_topology
        self._starting: dict[bytes, asyncio.Future[None]] = {}
        """Consumers without consume-ok, by tag; the future is done when it arrives, or when the link is lost."""
        self._restoring: dict[bytes, tuple[Subscription, asyncio.Task[None]]] = {}

    # -- for subscriptions ---------------------------------------------------------------------------------

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop of the connection."""
        return self._line.loop

    def check_loop(self) -> None:
        """Raise UsageError outside the connection's event loop, UsedAfterFork in a child process."""
        self._session.check_loop()

    def hold_reading(self, holder: object) -> None:
        """Stop reading the socket on behalf of `holder`."""
        if self._line.link is not None:
            self._line.link.hold_reading(holder)

    def release_reading(self, holder: object) -> None:
        """Undo `hold_reading`."""
        if self._line.link is not None:
            self._line.link.release_reading(holder)

    # -- starting --------------------------------------------------------------------------------------

    async def start(self, subscription: Subscription, timeout: float | None) -> None:
        """Request a consumer from the broker."""
        key = encode_short(subscription.tag)
        if key in self.by_tag or key in self._restoring:
            raise UsageError(f"consumer tag {subscription.tag!r} is in use on this channel")
        line = self._line
        await line.until_usable(timeout)

        def started() -> None:
            subscription.has_started = True

        future = self._ask_to_consume(subscription, started)
        try:
            try:
                await line.until_answered(future, "basic.consume", timeout)
            except ConnectionClosed:
                if line.closed is not None:
                    raise
                await line.until_usable(timeout)  # recovery restarts it with the others
        except BaseException:
            subscription.end(None)
            if line.link is None:
                self.by_tag.pop(key, None)  # nothing to cancel; recovery must not start it
            else:
                self._cancel_once_started(subscription)  # the caller was cancelled, but the broker starts it
            raise

    def _ask_to_consume(self, subscription: Subscription, then: Callable[[], None]) -> asyncio.Future[Answer]:
        key = encode_short(subscription.tag)
        answered: asyncio.Future[None] = self.loop.create_future()

        def started(_: Answer) -> None:
            del self._starting[key]
            answered.set_result(None)
            then()

        future = self._line.ask(self._consume_method(subscription), (BasicConsumeOk,), started)
        self._starting[key] = answered
        self.by_tag[key] = subscription  # set before the answer: deliveries follow it at once
        return future

    def _consume_method(self, subscription: Subscription) -> BasicConsume:
        return BasicConsume(
            self._session.topology.current(subscription.queue),
            subscription.tag,
            no_ack=subscription.no_ack,
            exclusive=subscription.exclusive,
            arguments=subscription.arguments or NO_ARGUMENTS,
        )

    # -- cancelling ------------------------------------------------------------------------------------

    async def stop(self, subscription: Subscription, timeout: float | None) -> None:
        """Cancel a consumer and requeue its unsettled deliveries."""
        line = self._line
        key = encode_short(subscription.tag)
        restoring = self._restoring.pop(key, None)
        if restoring is not None:
            restoring[1].cancel()
        if (starting := self._starting.get(key)) is not None:
            # RabbitMQ closes the connection with 541 if basic.cancel arrives before it has sent consume-ok.
            try:
                await line.until_answered(asyncio.shield(starting), "basic.consume", timeout)
            except BaseException:
                self._cancel_once_started(subscription)
                raise
        if not line.is_usable:
            self.by_tag.pop(key, None)  # there is nothing to cancel; it will not be restored
            self._session.deletions.consumer_gone(subscription)
        elif line.closed is None and key in self.by_tag:
            await line.until_answered(self._ask_to_cancel(subscription), "basic.cancel", timeout)

    def _cancel_once_started(self, subscription: Subscription) -> None:
        """Cancel a consumer that nobody waits for, once the broker has answered basic.consume."""
        key = encode_short(subscription.tag)

        def cancel(_: object = None) -> None:
            if self._line.closed is None and self._line.is_usable and key in self.by_tag:
                self._ask_to_cancel(subscription)

        starting = self._starting.get(key)
        if starting is None:
            cancel()
        else:
            starting.add_done_callback(cancel)

    def _ask_to_cancel(self, subscription: Subscription) -> asyncio.Future[Answer]:
        def done(_: Answer) -> None:
            # Deliveries may arrive until cancel-ok; when it is here, so is the last of them.
            self.by_tag.pop(encode_short(subscription.tag), None)
            self._session.deletions.consumer_gone(subscription)
            if subscription.gives_back:
                self._line.settlements.give_back(subscription)

        return self._line.ask(BasicCancel(subscription.tag), (BasicCancelOk,), done)

    def on_cancel(self, method: BasicCancel) -> None:
        """Handle a consumer that the broker has cancelled: restart it or end it."""
        key = encode_short(method.consumer_tag)
        subscription = self.by_tag.pop(key, None)
        if subscription is not None:
            if subscription.restore and not subscription.has_ended:
                self._bring_back(key, subscription, after_recovery=False)
            else:
                error = self._cancelled(subscription)
                subscription.end(error)
                if isinstance(error, DeliveryTimeoutCancelled):
                    self._session.deletions.consumer_gone(subscription)
                else:  # the queue was deleted, or its node is down: then it is durable, or lost too
                    self._session.deletions.queue_gone(subscription.queue)
        if not method.nowait:
            self._line.send(BasicCancelOk(method.consumer_tag))

    def _cancelled(self, subscription: Subscription) -> ConsumerCancelled:
        # Since 4.3, RabbitMQ cancels a consumer whose settlement is late; before, it closed the channel.
        late = subscription in self._line.settlements.open.values() and self._session.server_version >= (4, 3)
        return (DeliveryTimeoutCancelled if late else ConsumerCancelled)(subscription.tag, subscription.queue)

    # -- for the channel -------------------------------------------------------------------------------

    @property
    def all(self) -> list[Subscription]:
        """The consumers that are consuming or will be restarted."""
        return [*self.by_tag.values(), *(subscription for subscription, _ in self._restoring.values())]

    def measure(self) -> None:
        """Update the size of each consumer's buffer."""
        for subscription in self.by_tag.values():
            subscription.measure()

    def end(self, error: Closed) -> None:
        """End all consumers with `error`; called before the link, which they may hold, is detached."""
        consuming = list(self.by_tag.values())
        self.by_tag.clear()
        for subscription in consuming:
            subscription.end(error)
        restoring, self._restoring = self._restoring, {}
        for subscription, task in restoring.values():
            task.cancel()
            subscription.end(error)
        for subscription in consuming:
            self._session.deletions.consumer_gone(subscription)

    def lose(self) -> None:
        """Wake tasks that wait for a consumer to start: the link is lost, and the answer with it."""
        starting, self._starting = self._starting, {}
        for answered in starting.values():
            answered.set_result(None)

    def suspend(self) -> None:
        """Drop the deliveries of the lost link, and the consumers that recovery must not restart."""
        # A consumer whose cancel was not answered ended with the link and must not be restarted. One that was being
        # restarted stays with `_restoring`, which tries again.
        ended = [key for key, one in self.by_tag.items() if one.has_ended or key in self._restoring]
        for key in ended:
            del self.by_tag[key]
        for subscription in self.all:
            subscription.drop_buffer()

    async def resume(self) -> None:
        """Restart the consumers over the current link. Raises ConnectionClosed, ChannelClosed."""
        for key, subscription in list(self.by_tag.items()):
            if subscription.has_ended:
                continue  # its cancel is already sent
            if subscription.restore:
                del self.by_tag[key]
                self._bring_back(key, subscription, after_recovery=True)
            else:
                await self._line.request_now(self._consume_method(subscription), BasicConsumeOk)

    # -- restarting consumers --------------------------------------------------------

    def _bring_back(self, key: bytes, subscription: Subscription, *, after_recovery: bool) -> None:
        """Restart a consumer. Owned by `_restoring`."""

        def done(task: asyncio.Task[None]) -> None:
            if self._restoring.get(key) == (subscription, task):
                del self._restoring[key]
            error = None if task.cancelled() else task.exception()
            if error is not None:  # nobody awaits the task: the consumer's iterator raises it
                reason = ChannelClosed(0, f"the consumer of {subscription.queue!r} can't be restored: {error!r}")
                reason.__cause__ = error
                subscription.end(reason)

        task = self.loop.create_task(
            self._consume_again(subscription, after_recovery=after_recovery),
            name=f"consume {subscription.queue} again",
        )
        self._restoring[key] = subscription, task
        task.add_done_callback(done)

    async def _consume_again(self, subscription: Subscription, *, after_recovery: bool) -> None:
        """Restart a consumer, with growing pauses, until that succeeds or consumer, channel or connection have ended.

        The broker has cancelled it, or a recovery did not find its queue: a queue whose node is down does not exist
        (404) until the node is back.

        after_recovery: everything was redeclared just now, so try at once; otherwise redeclare everything before each
        attempt.
        """
        from rabbitry.runtime import backoff  # few consumers are ever restarted

        for attempt in itertools.count(0 if after_recovery else 1):
            if attempt:
                await asyncio.sleep(backoff.AGAIN.pause(attempt))
            if subscription.has_ended or self._line.closed is not None:
                return
            try:
                if attempt:
                    await self._restore_topology()
                await self._look(self._session.topology.current(subscription.queue))
                await self._start_again(subscription)
                return
            except ConnectionClosed as error:
                if self._session.close_reason is not None:
                    subscription.end(error)
                    return  # otherwise it recovers, and the next attempt waits for that
            except (ChannelClosed, RequestTimeout, UsageError) as error:
                _logger.warning("consumer of %r not restored yet: %s", subscription.queue, error)

    async def _start_again(self, subscription: Subscription) -> None:
        """Restart a consumer that had been started before. Raises ConnectionClosed, ChannelClosed."""
        await self._line.until_usable(None)
        if subscription.has_ended:
            return
        key = encode_short(subscription.tag)

        def started() -> None:
            # From now on recovery restarts it with the other consumers.
            self._restoring.pop(key, None)

        # No time limit: a consumer that starts late must not be started twice.
        await self._ask_to_consume(subscription, started)
