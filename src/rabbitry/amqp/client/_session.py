"""The state that the channels of one connection share: the current link, and everything that outlives it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, Final, Protocol

from rabbitry.amqp.client import _owner
from rabbitry.amqp.client._link import Dialing, Link
from rabbitry.amqp.client._owner import check_loop
from rabbitry.amqp.client._receipts import Failures
from rabbitry.amqp.client._topology import DeclareHook, Deletions, Topology
from rabbitry.amqp.client._window import PublishWindow, Unconfirmed
from rabbitry.amqp.client.url import BrokerURL
from rabbitry.amqp.protocol.methods import ChannelCloseOk
from rabbitry.amqp.protocol.tables import FieldValue
from rabbitry.exceptions import (
    ChannelClosed,
    Closed,
    ConnectionClosed,
    RequestTimeout,
    ResourceLocked,
    UsageError,
    UsedAfterFork,
)

RECOVERABLE: Final = (0, 320, 541)
"""Reply codes after which to reconnect: none (lost), forced by an operator, internal error."""
CLOSE_TIMEOUT: Final = 5.0
"""Seconds that a broker has to answer when a connection is closed."""
LOCKED_PAUSE: Final = 0.5
LOCKED_PATIENCE: Final = 30.0
LOCKED_HEARTBEATS: Final = 4
"""An exclusive queue stays locked until the broker notices that the old connection is dead, after two to three
heartbeats. It is retried for four heartbeats, and for at least LOCKED_PATIENCE seconds."""
PROOF: Final = 1.0
"""Seconds that a connection must last before a suspect is sent over it, so that an unstable network is not blamed on
the message. After a 541 there is no such wait."""
_INTERNAL_ERROR: Final = 541
_LOSSES: Final = 3
"""Losses in a row after which a message is a suspect; two if the broker sends 541."""
_logger = logging.getLogger(__name__)


if TYPE_CHECKING:
    from rabbitry.amqp.client._link import ChannelHandler
    from rabbitry.amqp.client._subscription import Subscription
    from rabbitry.amqp.client._topology import Declarer

    class SessionChannel(ChannelHandler, Protocol):
        """The part of an open channel that its connection calls."""

        window: PublishWindow

        @property
        def subscriptions(self) -> list[Subscription]:
            """The consumers that are consuming or will be restarted."""

        def on_fork(self, error: Closed) -> None:
            """Abandon the channel in a child process."""

        def suspend(self, error: Closed) -> None:
            """Suspend: the connection was lost and is being recovered."""

        async def restore(self, link: Link) -> None:
            """Reopen the channel on a new link."""

        async def resume(self, link: Link) -> None:
            """Restart the consumers, and resend the unconfirmed messages."""

        def wake_publishers(self) -> None:
            """Resume publishers."""


class Resending:
    """The unconfirmed messages that one connection resends after a loss, one by one if one is suspected.

    A message may crash the broker, or make it close the connection (541); resent, it would end each new connection.
    After one loss all unconfirmed messages are resent at once. Messages that were unconfirmed at several losses in a
    row are sent one at a time: if the connection is lost again, the message in flight has ended it.
    """

    def __init__(self, name: str) -> None:
        """name: the connection's name in the log."""
        self.is_careful: bool = False
        """Whether the next link holds back the messages that were in flight, for `begin`."""
        self._name = name
        self._wants_proof = False
        self._has_proof = False
        self._task: asyncio.Task[None] | None = None

    def on_lost(self, error: ConnectionClosed, windows: Iterable[PublishWindow]) -> None:
        """Record the messages in flight over the lost link; one that ended two links fails with `error`."""
        self.stop()
        flying = [(window, entry) for window in windows for entry in window.flying]
        for _, entry in flying:
            entry.losses += 1
        is_internal = error.reply_code == _INTERNAL_ERROR
        least = 2 if is_internal else _LOSSES
        suspects = [(window, entry) for window, entry in flying if entry.losses >= least]
        if len(suspects) == 1 and (is_internal or self._has_proof):
            self.is_careful = False
            self._blame(*suspects[0], error)
        elif flying:
            self.is_careful = bool(suspects)
            self._wants_proof = not is_internal
        # With nothing in flight, the link was lost before a suspect was sent: it remains a suspect.

    def _blame(self, window: PublishWindow, entry: Unconfirmed, error: ConnectionClosed) -> None:
        target = f"exchange {entry.exchange!r}, routing key {entry.routing_key!r}, {len(entry.body)} bytes"
        text = f"{error.reply_text} (the connection was lost each time this message was sent: {target})"
        _logger.error("%s: gave up on a message: %s", self._name, text)
        blamed = type(error)(error.reply_code, text, error.class_id, error.method_id)
        blamed.__cause__ = error
        window.give_up(entry, blamed)

    def begin(self, windows: Iterable[PublishWindow]) -> None:
        """Send the held-back messages, one by one, over a restored link. Does nothing if there are none."""
        self._has_proof = False
        if self.is_careful:
            self._task = asyncio.create_task(self._send(list(windows)), name="resending")

    async def _send(self, windows: list[PublishWindow]) -> None:
        if self._wants_proof:
            await asyncio.sleep(PROOF)
            self._has_proof = True
        for window in windows:
            while (entry := window.send_held()) is not None:
                await asyncio.wait((entry.future,))
        self.is_careful = False
        for window in windows:
            window.wake()

    def stop(self) -> None:
        """Send nothing more over this link."""
        if self._task is not None:
            self._task.cancel()
            self._task = None


class Session:
    """The life of one connection, across all its links: open, recovering, closed for good."""

    def __init__(
        self,
        dialing: Dialing,
        request_timeout: float,
        publish_timeout: float,
        on_blocked: Callable[[str | None], None] | None,
    ) -> None:
        name = dialing.label
        self.dialing = dialing
        self.request_timeout = request_timeout
        self.publish_timeout = publish_timeout
        self.blocked: str | None = None
        """Why the broker blocks publishers; None while it does not."""
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self.link: Link | None = None
        self.closing: set[asyncio.Future[Any]] = set()
        """The answers to channel.close that are waited for."""
        self.channels: set[SessionChannel] = set()
        """The channels that are open, or will be restored with the connection."""
        self.topology: Topology = Topology()
        self.deletions: Deletions = Deletions(self.topology, self.loop, self._subscriptions)
        self.failures: Failures = Failures(self.loop, name)
        self.resending: Resending = Resending(name)
        self.declaring: DeclareHook = DeclareHook()
        self.recover: Callable[[ConnectionClosed], Coroutine[object, object, None]] | None = None
        """Recovers a lost connection; None if a loss is final."""
        self.connecting: asyncio.Task[None] | None = None
        """The task that opens a link: for the first connection, or in a recovery."""
        self._on_blocked = on_blocked
        self._usable = asyncio.Event()
        self._close_reason: ConnectionClosed | None = None
        self._closed: asyncio.Future[None] = self.loop.create_future()
        _owner.note(self)

    def __repr__(self) -> str:
        state = "open" if self.is_open else "closed" if self._close_reason else "recovering"
        return f"<Connection to {self.url} {state}>"

    @property
    def url(self) -> BrokerURL:
        """The broker's URL, with the password of the next login."""
        return self.dialing.url

    @property
    def is_open(self) -> bool:
        """Whether channels can be used now."""
        return self._usable.is_set() and self.link is not None and self.link.is_open

    @property
    def close_reason(self) -> ConnectionClosed | None:
        """Why the connection is closed for good; None while it is not."""
        return self._close_reason

    @property
    def server_properties(self) -> dict[str, FieldValue]:
        """The broker's description of itself: product, version, capabilities and more."""
        return {} if self.link is None else self.link.server_properties

    @property
    def server_version(self) -> tuple[int, ...]:
        """The broker's version as numbers, empty if it sends none."""
        text = str(self.server_properties.get("version", ""))
        return tuple(int(part) for part in text.split("-")[0].split(".") if part.isdecimal())

    def _subscriptions(self) -> list[Subscription]:
        return [subscription for channel in self.channels for subscription in channel.subscriptions]

    # -- waiting ---------------------------------------------------------------------------------------

    def check_loop(self) -> None:
        """Raise UsageError outside the connection's event loop, UsedAfterFork in a child process."""
        check_loop(self.loop, self)

    def check_process(self) -> None:
        """Raise UsedAfterFork if the connection belongs to the parent process."""
        if isinstance(self._close_reason, UsedAfterFork):
            raise self._close_reason.fresh()

    async def usable_link(self, timeout: float | None) -> Link:
        """Wait while the connection recovers, and return the link to send over.

        Raises ConnectionClosed if it is closed for good, RequestTimeout.
        """
        self.check_loop()
        if self.link is not None and self.declaring.is_running:
            if not self.link.is_open:
                raise ConnectionClosed(0, "the new connection was lost before everything was declared")
            return self.link
        if not self.is_open and self._close_reason is None:
            seconds = self.request_timeout if timeout is None else timeout
            try:
                async with asyncio.timeout(seconds):
                    await self._wait_usable()
            except TimeoutError as error:
                raise RequestTimeout(f"the connection did not come back within {seconds} s") from error
        if self._close_reason is not None:
            raise self._close_reason.fresh()
        if self.link is None:
            raise UsageError("the connection was never opened; use `rabbitry.connect`")
        return self.link

    async def _wait_usable(self) -> None:
        while not self.is_open and self._close_reason is None:  # it may be lost again before this task runs
            if self._usable.is_set() and self.link is not None:
                await self.link.wait_lost()  # it is being closed, and either recovers or ends
            else:
                await self._usable.wait()

    async def wait_idle(self) -> None:
        """Wait until everything sent before over any channel is confirmed or has failed."""
        for channel in list(self.channels):
            await channel.window.wait_idle(None)

    async def wait_closed(self, timeout: float | None) -> None:
        """Wait until the connection is closed for good. Raises RequestTimeout past `timeout` seconds."""
        self.check_loop()
        try:
            async with asyncio.timeout(timeout):
                await asyncio.shield(self._closed)
        except TimeoutError as error:
            raise RequestTimeout(f"the connection is still open after {timeout} s") from error

    # -- events from the link ---------------------------------------------------------------------------

    def on_blocked(self, reason: str | None) -> None:
        """Record whether the broker blocks publishers, and resume them when it no longer does."""
        self.blocked = reason
        if reason is None:
            self.on_link_writable()
        else:
            self._answer_closing()
        self._tell_blocked(reason)

    def until_blocked(self, answer: asyncio.Future[Any]) -> None:
        """Wait for the answer to a channel.close no longer than until the broker blocks the connection.

        A broker with an alarm reads nothing more of a connection that has published; RabbitMQ 3.10 does not answer
        channel.close then. The answer comes when the alarm ends, and frees the channel's number.
        """
        self.closing.add(answer)
        answer.add_done_callback(self.closing.discard)
        if self.blocked is not None:
            self._answer_closing()

    def _answer_closing(self) -> None:
        for answer in list(self.closing):
            if not answer.done():
                answer.set_result(ChannelCloseOk())

    def _tell_blocked(self, reason: str | None) -> None:
        listener = self._on_blocked
        if listener is not None:
            try:
                listener(reason)
            except Exception:
                _logger.exception(
                    "on_blocked raised an exception when called with %r; the connection stays open", reason
                )

    def on_link_writable(self) -> None:
        """Resume the publishers of all channels."""
        for channel in list(self.channels):
            channel.wake_publishers()

    def on_link_lost(self, link: Link, error: ConnectionClosed) -> None:
        """Recover if that is enabled and may help; otherwise end the connection."""
        if link is not self.link:
            return  # a link that recovery opened and lost
        if self.blocked is not None:
            self.blocked = None
            self._tell_blocked(None)
        for handler in list(link.channels.values()):
            if handler not in self.channels:
                handler.on_link_gone(error)  # the channel was closing
        if self.recover is None or error.reply_code not in RECOVERABLE:
            self.end(error)
            return
        self._usable.clear()
        self.resending.on_lost(error, [channel.window for channel in self.channels])
        for channel in list(self.channels):
            channel.suspend(error)
        if self.connecting is None or self.connecting.done():
            self.connecting = asyncio.create_task(self.recover(error), name="recovery")

    def on_fork(self, parent: int) -> None:
        """Abandon the connection in a child process, without touching the socket, which is the parent's."""
        error = UsedAfterFork.here(parent)
        self.recover = None
        self._close_reason = error
        self._usable.set()
        if self.link is not None:
            self.link.driver.detach()
        for channel in list(self.channels):
            channel.on_fork(error)

    # -- state changes -------------------------------------------------------------------------

    def resumed(self) -> None:
        """Resume normal work: everything is restored over the link."""
        self._usable.set()
        self.resending.begin(channel.window for channel in self.channels)

    async def close(self, timeout: float) -> None:
        """Close in order: connection.close, wait for close-ok; abort after `timeout` seconds, or when cancelled."""
        if isinstance(self._close_reason, UsedAfterFork):
            return
        check_loop(self.loop)
        reason = ConnectionClosed(0, "the connection was closed by this program")
        self.recover = None  # from here on a loss is final
        try:
            if self.connecting is not None and self.connecting is not asyncio.current_task():
                self.connecting.cancel()
                await asyncio.wait((self.connecting,))
            if self.link is not None:
                await self.link.close(reason, timeout)
        finally:
            if self.link is not None:
                self.link.driver.abort()
            self.end(reason)

    def end(self, error: ConnectionClosed) -> None:
        """End for good: fail the channels and all waiters with the reason."""
        if self._close_reason is None:
            self._close_reason = error
        self.resending.stop()
        for channel in list(self.channels):
            channel.on_link_gone(error)
        self.failures.tell()
        self._usable.set()
        if not self._closed.done():
            self._closed.set_result(None)


if TYPE_CHECKING:

    class DeclaringChannel(Declarer, Protocol):
        """A channel to declare over, not opened yet."""

        @property
        def is_open(self) -> bool:
            """Whether it can be used."""

        async def restore(self, link: Link) -> None:
            """Open it on `link`."""

        async def close(self) -> None:
            """Close it."""


async def restore_topology(session: Session, link: Link, new_channel: Callable[[], DeclaringChannel]) -> None:
    """Run the program's declarations, and redeclare everything else.

    Uses a channel of its own, created by `new_channel`, and another one after each refusal. Raises ConnectionClosed,
    and any error of the program's `declare`.
    """
    await session.declaring.run()
    patience = max(LOCKED_PATIENCE, LOCKED_HEARTBEATS * link.heartbeat)
    locked_until = session.loop.time() + patience
    channel: DeclaringChannel | None = None
    session.deletions.forget_expired()
    for step in session.topology.steps():
        while True:
            if channel is None or not channel.is_open:
                channel = new_channel()
                await channel.restore(link)
            try:
                await step(channel)
            except ResourceLocked as error:
                if session.loop.time() > locked_until:
                    text = "%s: not restored, still locked after %d s: %s"
                    _logger.error(text, session.url, patience, error)  # noqa: TRY400 - not a defect of this code
                    break
                await asyncio.sleep(LOCKED_PAUSE)
            except (ChannelClosed, UsageError) as error:  # UsageError: too long for the new connection's frames
                # A queue that exists with other flags by now must not keep the others from being restored.
                _logger.error("%s: not restored: %s", session.url, error)  # noqa: TRY400 - not a defect of this code
                break
            else:
                break
    if channel is not None:
        await channel.close()
    if not link.is_open:
        raise ConnectionClosed(0, "the new connection was lost before everything was redeclared")
