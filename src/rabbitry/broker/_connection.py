"""A client's connection to the broker: handshake, channels, the hot path of publishing, and closing.

Handlers raise; only `refuse` turns an error into channel.close or connection.close.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from operator import length_hint
from typing import Final

from rabbitry._errors import sendable
from rabbitry.amqp.driver import Driver
from rabbitry.amqp.protocol import hot
from rabbitry.amqp.protocol.connection import Connection as Core
from rabbitry.amqp.protocol.connection import Role
from rabbitry.amqp.protocol.constants import FRAME_MIN_SIZE, Reply
from rabbitry.amqp.protocol.encoding import encode_method
from rabbitry.amqp.protocol.events import ACK, HEADER, METHOD, PUBLISH, VIOLATION, Event
from rabbitry.amqp.protocol.methods import (
    ChannelClose,
    ChannelCloseOk,
    ChannelOpen,
    ChannelOpenOk,
    ConnectionClose,
    ConnectionCloseOk,
    ConnectionOpen,
    ConnectionOpenOk,
    ConnectionStartOk,
    ConnectionTune,
    ConnectionTuneOk,
    ConnectionUpdateSecret,
    ConnectionUpdateSecretOk,
    Method,
)
from rabbitry.amqp.protocol.states import ChannelState, ConnectionState
from rabbitry.amqp.protocol.tables import Table
from rabbitry.broker._alarms import Alarms
from rabbitry.broker._channel import Channel
from rabbitry.broker._confirms import Confirms
from rabbitry.broker._counts import Churn
from rabbitry.broker._dispatcher import Dispatcher
from rabbitry.broker._errors import ChannelRefusal, ConnectionRefusal, Refusal, cut_text, ids_of
from rabbitry.broker._handlers import HANDLERS
from rabbitry.broker._handshake import (
    capabilities_of,
    check_channel_limit,
    check_limits,
    check_tuned,
    find_vhost,
    log_in,
    start,
)
from rabbitry.broker._parameters import Parameters
from rabbitry.broker._permissions import Permissions
from rabbitry.broker._publishing import Publishing
from rabbitry.broker._queues import Queue, ReplyTo
from rabbitry.broker._shares import Shares
from rabbitry.broker._store.journal import Journal
from rabbitry.broker._vhost import VirtualHost
from rabbitry.broker.access import Access
from rabbitry.broker.config import BrokerConfig
from rabbitry.broker.reading import ReadingGate, Reason
from rabbitry.exceptions import ProtocolViolation

_logger = logging.getLogger(__name__)
_HANDSHAKE_TIMEOUT: Final = 10.0
_SILENT_CLOSE: Final = 3.0
_MUCH: Final = 250
"""Events of one chunk above which the chunk has to wait for its turn."""
_TURN: Final = 0.008
"""Seconds of work for one client after which the other clients have their turn."""
_LOOK: Final = 16
"""Plain publishes and single acks between two checks of the clock."""
_MOST_UNSENT: Final = 32 << 20
"""Bytes of answers unread by the client above which the broker stops reading from it."""
_OVER: Final = (ConnectionState.CLOSING, ConnectionState.CLOSE_RECEIVED, ConnectionState.CLOSED)
"""States in which a connection accepts only the end of its closing handshake."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """The parts of a broker that its connections use.

    Attributes:
        config: The settings.
        parameters: Has the broker's name for clients.
        access: The users and their permissions.
        vhosts: The virtual hosts, by name.
        nowhere: The virtual host of a client that has not opened one yet.
        connections: The connections that are open; each adds and removes itself.
        journal: Stores durable state.
        dispatcher: The queue of deliveries.
        shares: Schedules clients with much work.
        replies: The consumers of direct replies, by name.
        alarms: Block publishing clients while one is on.
        churn: Counts connections and channels.
    """

    config: BrokerConfig
    parameters: Parameters
    access: Access
    vhosts: Mapping[str, VirtualHost]
    nowhere: VirtualHost
    connections: set[ClientConnection]
    journal: Journal
    dispatcher: Dispatcher
    shares: Shares
    replies: dict[str, ReplyTo]
    alarms: Alarms
    churn: Churn


class ClientConnection:
    """One client, from protocol header to disconnection.

    Args:
        shared: The parts of the broker that its connections share.
        host: The broker's host, as shown to operators.
        port: The AMQP port.
        on_login: Called when the client has opened a virtual host, and when it has disconnected.
    """

    def __init__(self, shared: Shared, host: str, port: int, on_login: Callable[[], None] | None = None) -> None:
        self._shared = shared
        self._journal = shared.journal
        self._dispatcher = shared.dispatcher
        self._shares = shared.shares
        self.host = host
        self.port = port
        self._on_login = on_login or (lambda: None)
        self.core = Core(
            Role.BROKER,
            frame_max=FRAME_MIN_SIZE,  # until more is agreed on (section 4.2.3)
            channel_max=shared.config.channel_max,
            max_body_size=shared.config.largest_message,
        )
        self.driver = Driver(self.core, self, lambda: shared.connections.add(self))
        self.vhost = shared.nowhere
        self.user = ""
        self.peer = ""
        self.client_properties: Table = {}
        self.wants_cancel = False
        self.channels: dict[int, Channel] = {}
        self.exclusive_queues: set[Queue] = set()
        self._to_confirm: set[Confirms] = set()
        self.wants_blocked = False
        self.gate = ReadingGate(self.driver)
        self._enter(shared.nowhere)
        self._held: list[Event] | None = None
        """Events on hold, for one of the gate's reasons, until the events before them are processed."""
        self._is_known = False
        self._is_stopped = False
        """Whether its channels must not deliver, since the socket is full."""
        self.connected_at = time.time()
        self.mechanism = ""
        self.heartbeat = 0
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(_HANDSHAKE_TIMEOUT, self._give_up)
        self.closed: asyncio.Future[None] = self._loop.create_future()

    # -- the driver's events ---------------------------------------------------------------------------

    def on_events(self, events: list[Event]) -> None:
        """Process the events of one chunk: a few at once, many when the client has its turn."""
        if self._held is not None:
            self._held += events  # data that the socket had read already; the next chunk stays in the socket
        elif len(events) > _MUCH and not self._shares.may_go_on(len(events)):
            self._yield(events)
        elif self._loop.time() - self.driver.read_at > _TURN:
            self._yield(events)  # a later part of one chunk
        else:
            self._carry_out(events)

    def _carry_out(self, events: list[Event]) -> None:
        """Process events, then send confirms and deliver the messages that they published.

        A client that adds to a store with many pending writes is paused for a while; one that only settles or queries
        is not.
        """
        journal = self._journal
        before = journal.unwritten
        self._take(events)
        for confirms in self._to_confirm:
            journal.confirm(confirms, confirms.published)
        self._to_confirm.clear()
        self._dispatcher.dispatch()
        if journal.is_on:
            self._shared.alarms.count_disk()
        if self._held is None and journal.unwritten > before and journal.is_crowded:
            self.gate.pause(Reason.FLOW)
            journal.when_taken(functools.partial(self.gate.resume, Reason.FLOW))

    def _take(self, events: list[Event]) -> None:
        ends_at = time.monotonic() + _TURN
        before = self._journal.unwritten
        rest = iter(events)
        while self._take_some(rest) and length_hint(rest):
            if time.monotonic() > ends_at:
                self._yield([*rest], adds=self._journal.unwritten > before)
                return

    def _take_some(self, rest: Iterator[Event]) -> bool:
        """Process events until it is time to check the clock. Return False if the rest is held or discarded.

        Only the last event processed can change the state that routing depends on.
        """
        self._publishing.follow_changes()
        channels = self.channels
        publish = self._publishing.publish
        for event in islice(rest, _LOOK):
            try:
                if event[0] == PUBLISH:
                    channel = channels.get(event[1])
                    if channel is not None and publish(channel, event[2], event[3], event[4]):
                        return self._has_taken(rest)
                elif event[0] == ACK:
                    channel = channels.get(event[1])
                    if channel is None:
                        continue
                    if event[3]:
                        channel.settle(event[2], multiple=True)
                    else:
                        channel.ack(event[2])
                    if event[3] or channel.channel_prefetch:  # very many consumers may wait for the latter
                        return self._has_taken(rest)
                elif event[0] == METHOD:
                    if self._dispatcher.touched:
                        self._dispatcher.dispatch()  # deliver all messages published before it first
                    self._on_method(event[1], event[2])
                    return self._has_taken(rest)
                elif event[0] == HEADER:
                    self._start()
                elif event[0] == VIOLATION:
                    raise event[2]
            except (Refusal, ProtocolViolation) as error:
                self.refuse(event[1], error, ids_of(event))
                return isinstance(error, ChannelRefusal) and self._has_taken(rest)
        return True

    def _has_taken(self, rest: Iterator[Event]) -> bool:
        """Return whether the next events may be processed now; if not, hold them."""
        if self._held is not None:
            self._held += rest
            return False
        if self.driver.unsent > _MOST_UNSENT:
            # Hold its requests until it has read its answers, which could fill the memory.
            self._hold(Reason.UNREAD, [*rest])
            return False
        return True

    def wait_for_commit(self, number: int, answer: Method | None) -> None:
        """Hold the client's later frames until its change is durable, then answer: answers stay in order."""
        self._hold(Reason.COMMIT, [])
        self._journal.after_commit(functools.partial(self._take_held, number, answer))

    def carry_out_when_loaded(self, number: int, method: Method, queue: Queue) -> None:
        """Hold a method and the client's later frames until the store has read a queue."""
        self._hold(Reason.LOADING, [(METHOD, number, method)])
        self._journal.when_loaded(queue, self._take_held)

    def hold_publish(self, event: Event) -> None:
        """Hold a publish, and the client's later frames, until the alarm ends that blocks the connection."""
        self._hold(Reason.ALARM, [event])

    def on_unblocked(self) -> None:
        """Take what was held when an alarm blocked the connection, in its turn: very many may be unblocked at once."""
        if Reason.ALARM in self.gate.reasons:
            self._yield(self._take_out())

    def carry_out_again(self, number: int, method: Method) -> None:
        """Hold a method and the client's later frames until other clients have had their turn.

        What it waits for may itself wait until the store accepts more; trying in each iteration would keep a core busy.
        """
        self._yield([(METHOD, number, method)], adds=not self._journal.is_stuck)

    def work(self, steps: Iterator[None], then: Callable[[], None] = lambda: None) -> None:
        """Run the steps of a long operation, alternating with other clients, then call `then`. Hold later frames."""
        if self._shares.work(steps, functools.partial(self._worked, then), self._journal.may_grow):
            then()
        elif self._held is None:
            self._hold(Reason.TURN, [])

    def change(self, number: int, steps: Iterator[None], answer: Callable[[], Method | None]) -> None:
        """Run the steps of a change as `work` does, and answer on channel `number` when all of it is durable."""
        journal = self._journal
        before = journal.changes

        def changed() -> None:
            method = answer()
            if journal.changes != before:
                self.wait_for_commit(number, method)
            elif method is not None:
                self.tell(number, method)

        self.work(steps, changed)

    def _worked(self, then: Callable[[], None]) -> None:
        events = self._take_out()
        if self.closed.done():
            self._dispatcher.dispatch()  # delivers the messages that the steps requeued
            return
        then()
        if self.is_held:  # `then` may have put it on hold again
            self.on_events(events)
            events = []
        self._carry_out(events)

    @property
    def is_held(self) -> bool:
        """Whether its frames wait for something."""
        return self._held is not None

    def _yield(self, events: list[Event], *, adds: bool = False) -> None:
        """Let other clients go first (see `rabbitry.broker._shares`).

        adds: whether the client adds to the store, and therefore also waits until the store accepts more.
        """
        self._hold(Reason.TURN, events)
        wait = functools.partial(self._shares.wait, self._take_held)
        if not adds or self._journal.may_grow(wait):
            wait()

    def _take_held(self, number: int = 0, answer: Method | None = None) -> None:
        events = self._take_out()
        if self.closed.done():
            return
        if answer is not None:
            self.tell(number, answer)
        if events:
            self._carry_out(events)

    def _hold(self, reason: Reason, events: list[Event]) -> None:
        """Keep events, and those that the socket has read already, until `_take_out`."""
        self._held = events
        self.gate.pause(reason)

    def _take_out(self) -> list[Event]:
        """Return the held events, and resume reading unless another reason to pause remains."""
        events, self._held = self._held or [], None
        self.gate.resume_frames()
        return events

    def on_lost(self, error: Exception | None) -> None:
        """Remove the client; its unsettled deliveries are requeued."""
        self._timer.cancel()
        self._on_login()
        self._release()
        self._shared.connections.discard(self)
        self._shared.churn.connection_closed += 1
        self.vhost.totals.add_octets(self.driver.bytes_received, self.driver.bytes_sent)
        if self.user and self.core.state is not ConnectionState.CLOSED:
            _logger.debug("connection of %s from %s lost: %s", self.user, self.peer, error or "closed without a close")
        if not self.closed.done():
            self.closed.set_result(None)
        self._dispatcher.dispatch()
        # Breaking the reference cycles frees the connection at once, without the garbage collector.
        del self._publishing
        self._on_login = lambda: None

    @property
    def published_to(self) -> list[str]:
        """The names of the exchanges that it published to, 100 at most."""
        return list(self._publishing.exchanges)

    @property
    def name(self) -> str:
        """Its name for operators: the addresses of both ends."""
        return f"{self.peer} -> {self.host}:{self.port}"

    def on_writable(self) -> None:
        """Resume delivering."""
        self._is_stopped = False
        for channel in self.channels.values():
            channel.can_deliver = True
            channel.unpark()
        self._dispatcher.dispatch()
        if Reason.UNREAD in self.gate.reasons:
            self._take_held()

    def stop_delivering(self) -> None:
        """Stop delivering until the socket has room again."""
        if self._is_stopped:
            return
        self._is_stopped = True
        for channel in self.channels.values():
            channel.can_deliver = False

    # -- methods ---------------------------------------------------------------------------------------

    def send(self, channel: int, method: Method) -> None:
        """Send a method. Raises UsageError if the connection's or the channel's state does not allow it."""
        self.driver.write(self.core.send_method(channel, method))

    def _on_method(self, number: int, method: Method) -> None:
        if number == 0:
            self._on_connection_method(method)
        elif isinstance(method, ChannelOpen):
            check_channel_limit(self.user, self._shared.connections, self._shared.access)
            self.channels[number] = Channel(self, number, self.vhost, self._shared.replies)
            self._shared.churn.channel_created += 1
            self.channels[number].can_deliver = self.driver.can_write
            self.tell(number, ChannelOpenOk())
        elif isinstance(method, ChannelClose):
            self._drop_channel(number, functools.partial(self._answer_close, number))
        elif number in self.channels:
            handler = HANDLERS.get(type(method))
            if handler is None:
                raise ConnectionRefusal(Reply.NOT_IMPLEMENTED, f"{type(method).__name__} is not available here")
            journal = self._journal
            changes = journal.changes
            answer = handler(self, self.channels[number], method)
            if self.is_held:
                pass  # the operation that holds the client's frames answers
            elif journal.changes != changes:
                self.wait_for_commit(number, answer)
            elif answer is not None:
                self.tell(number, answer)

    def _answer_close(self, number: int) -> None:
        # The close is handled before any later frame is read, so the states are still those in which it arrived. If
        # both sides close at once, the channel may be closing: the client waits for close-ok all the same (section
        # 2.2.4).
        if self.core.state not in _OVER:
            self.send(number, ChannelCloseOk())

    def tell(self, channel: int, method: Method) -> None:
        """Send a method, unless the connection or the channel is closed."""
        if self.core.state in _OVER:
            return
        if channel and self.core.channel_state(channel) not in (ChannelState.OPENING, ChannelState.OPEN):
            return
        self.send(channel, method)

    def _on_connection_method(self, method: Method) -> None:
        match method:
            case ConnectionStartOk():
                self._login(method)
            case ConnectionTuneOk():
                self._tuned(method)
            case ConnectionOpen():
                self._open(method)
            case ConnectionClose():
                self._release(self._answer_end)  # exclusive queues are gone before close-ok
            case ConnectionCloseOk():
                self.driver.finish()
            case ConnectionUpdateSecret():
                self.tell(0, ConnectionUpdateSecretOk())  # passwords do not expire here
            case _:
                raise ConnectionRefusal(Reply.NOT_IMPLEMENTED, f"{type(method).__name__} is not available here")

    def _answer_end(self) -> None:
        if self.core.state is ConnectionState.CLOSED:
            # Both sides closed at once, and the client's close-ok came with its close: the core has nothing more to
            # send, but the client waits for close-ok all the same (section 2.2.4).
            self.driver.write(hot.encode_method_frame(0, encode_method(ConnectionCloseOk())))
        else:
            self.send(0, ConnectionCloseOk())
        self.driver.finish()

    # -- handshake -------------------------------------------------------------------------------------

    def _start(self) -> None:
        peer = self.driver.get_extra_info("peername")
        self.peer = f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else "?"
        self.tell(0, start(self.driver, self._shared.parameters, self.vhost.release, is_0_8=self.core.is_0_8))

    def _login(self, method: ConnectionStartOk) -> None:
        self.client_properties = method.client_properties
        known = capabilities_of(method.client_properties)
        self.wants_cancel = known.get("consumer_cancel_notify") is True
        # AMQP 0-8 has no such method.
        self.wants_blocked = known.get("connection.blocked") is True and not self.core.is_0_8
        user, is_right = log_in(method, self.driver, self.peer, self._shared.access, self.vhost.release)
        if user is None or not is_right:
            _logger.warning("refused a login from %s as %r", self.peer, "?" if user is None else user)
            text = f"ACCESS_REFUSED - Login was refused using authentication mechanism {method.mechanism}. "
            text += "For details see the broker logfile."
            self._is_known = user is not None and known.get("authentication_failure_close") is True
            raise ProtocolViolation(Reply.ACCESS_REFUSED, text)
        self.user, self.mechanism = user, method.mechanism
        config = self._shared.config
        self.tell(0, ConnectionTune(config.channel_max, config.frame_max, config.heartbeat))

    def _tuned(self, method: ConnectionTuneOk) -> None:
        config = self._shared.config
        check_tuned(method, config)
        self.core.tuned(method.frame_max or config.frame_max, method.channel_max or config.channel_max)
        self.heartbeat = method.heartbeat
        self.driver.start_heartbeat(method.heartbeat)

    def _open(self, method: ConnectionOpen) -> None:
        shared = self._shared
        self._is_known = True
        vhost = find_vhost(method.virtual_host, self.user, shared.vhosts, shared.access)
        others = (known for known in shared.connections if known.vhost is not shared.nowhere)
        check_limits(vhost, self.user, others, shared.access)
        self._enter(vhost)
        shared.churn.connection_created += 1
        self._timer.cancel()
        self._on_login()
        self.tell(0, ConnectionOpenOk())
        _logger.debug("connection of %s from %s to virtual host %r", self.user, self.peer, vhost.name)

    def _enter(self, vhost: VirtualHost) -> None:
        """Enter a virtual host, with the user's permissions there."""
        shared = self._shared
        self.vhost = vhost
        self.permissions = Permissions(shared.access, vhost.name, self.user, vhost.release)
        self._publishing = Publishing(
            self,
            vhost,
            access=shared.access,
            permissions=self.permissions,
            replies=shared.replies,
            alarms=shared.alarms,
            max_message_size=shared.config.largest_message,
            to_confirm=self._to_confirm,
        )

    def _give_up(self) -> None:
        _logger.warning("no login from %s within %g s: closed", self.peer or "a client", _HANDSHAKE_TIMEOUT)
        self.driver.abort()

    # -- closing ---------------------------------------------------------------------------------------

    def refuse(self, number: int, error: Refusal | ProtocolViolation, ids: tuple[int, int]) -> None:
        """Turn an error raised by a handler into channel.close or connection.close."""
        if isinstance(error, ChannelRefusal):
            _logger.info(
                "channel %d of %s from %s closed: %s", number, self.user, self.peer, sendable(error.reply_text)
            )
            self._drop_channel(number)
            self.tell(number, ChannelClose(error.reply_code, cut_text(error.reply_text), *ids))
            return
        if isinstance(error, ProtocolViolation):
            ids = (error.class_id, error.method_id)
        self.hang_up(error.reply_code, error.reply_text, *ids)

    def hang_up(self, reply_code: int, reply_text: str, class_id: int = 0, method_id: int = 0) -> None:
        """Close the connection with a reason; close the socket when the client has answered, or after a while."""
        # Forced by an operator or a shutdown of the broker: nobody's fault, so no warning.
        level = logging.INFO if reply_code == Reply.CONNECTION_FORCED else logging.WARNING
        peer = self.peer or "a client"
        _logger.log(level, "connection from %s closed: %d %s", peer, reply_code, sendable(reply_text))
        self._timer.cancel()
        if self.core.state is ConnectionState.IDLE:
            # Before any login, the answer to a wrong protocol header is the broker's own header (section 4.2.2).
            self.driver.write(self.vhost.release.protocol_header)
            self.driver.finish()
            return
        self._release()
        self._take_out()  # the channels are gone, and the client's close or close-ok must not wait behind held events
        if not self._is_known:
            # As on RabbitMQ, a client without a login gets no reason and is kept waiting, so that retries are costly.
            self.gate.pause(Reason.REFUSED)
            self._timer = self._loop.call_later(_SILENT_CLOSE, self.driver.finish)
            return
        if self.core.state in _OVER:
            self.driver.finish()
            return
        self.send(0, ConnectionClose(reply_code, cut_text(reply_text), class_id, method_id))
        if self.core.framing_lost:
            self.driver.finish()
        else:
            self.driver.expect_end()  # also when blocked, to receive close-ok

    def _drop_channel(self, number: int, then: Callable[[], None] = lambda: None) -> None:
        channel = self.channels.pop(number, None)
        if channel is None:
            then()
        else:
            if (confirms := channel.confirms) is not None and confirms in self._to_confirm:
                self._to_confirm.discard(confirms)
                # Publishes before the error are kept, so confirm those that are settled by now.
                self._journal.confirm(confirms, confirms.published)
            self.work(self._closing(channel), then)

    def _release(self, then: Callable[[], None] = lambda: None) -> None:
        """Close the client's channels and delete its exclusive queues, then call back."""
        channels = [self._closing(channel) for channel in self.channels.values()]
        self.channels.clear()
        self.work(chain(*channels, self._delete_exclusive()), then)

    def _closing(self, channel: Channel) -> Iterator[None]:
        self._shared.churn.channel_closed += 1
        return channel.closing()

    def _delete_exclusive(self) -> Iterator[None]:
        for queue in list(self.exclusive_queues):
            yield from self.vhost.deleting_queue(queue)
