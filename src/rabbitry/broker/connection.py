"""A client's connection to the broker: handshake, channels, the hot path of publishing, and closing.

Handlers raise; `_refuse` is the one place that turns that into channel.close or connection.close.
"""

import asyncio
import functools
import logging
import time
from collections.abc import Callable, Iterator
from itertools import chain, islice
from operator import length_hint
from typing import TYPE_CHECKING, Final, Literal

from rabbitry.amqp.driver import Driver
from rabbitry.amqp.protocol import amqp_0_8
from rabbitry.amqp.protocol.connection import Connection as Core
from rabbitry.amqp.protocol.connection import Role
from rabbitry.amqp.protocol.constants import FRAME_MIN_SIZE, PROTOCOL_HEADER, Reply
from rabbitry.amqp.protocol.events import ACK, HEADER, METHOD, PUBLISH, VIOLATION, Event
from rabbitry.amqp.protocol.methods import (
    BY_TYPE,
    ChannelClose,
    ChannelCloseOk,
    ChannelOpen,
    ChannelOpenOk,
    ConnectionClose,
    ConnectionCloseOk,
    ConnectionOpen,
    ConnectionOpenOk,
    ConnectionStart,
    ConnectionStartOk,
    ConnectionTune,
    ConnectionTuneOk,
    ConnectionUpdateSecret,
    ConnectionUpdateSecretOk,
    Method,
)
from rabbitry.amqp.protocol.states import ChannelState, ConnectionState
from rabbitry.amqp.protocol.tables import Table
from rabbitry.broker.access import Kind
from rabbitry.broker.channel import Channel
from rabbitry.broker.errors import ChannelRefusal, ConnectionRefusal, Refusal, access_refused
from rabbitry.broker.exchanges import Exchange
from rabbitry.broker.handlers import HANDLERS
from rabbitry.broker.login import MECHANISMS, certificate_name, credentials, may_come_from
from rabbitry.broker.publishing import Publishing
from rabbitry.broker.queues import Queue
from rabbitry.broker.reading import ReadingGate, Reason
from rabbitry.exceptions import ProtocolViolation

if TYPE_CHECKING:
    from rabbitry.broker.broker import Broker
    from rabbitry.broker.vhost import VirtualHost

_log = logging.getLogger(__name__)
_HANDSHAKE_TIMEOUT: Final = 10.0
_SILENT_CLOSE: Final = 3.0
_MUCH: Final = 250
"""Events of one chunk from which on it counts as work of a turn of the event loop."""
_TURN: Final = 0.008
"""Seconds of work for one client after which others have their turn."""
_LOOK: Final = 16
"""Plain publishes and single acks between two readings of the clock."""
_MOST_UNSENT: Final = 32 << 20
"""Bytes of answers that a client has not read above which the broker stops reading from it."""
_REMEMBERED: Final = 10_000
_OVER: Final = (ConnectionState.CLOSING, ConnectionState.CLOSE_RECEIVED, ConnectionState.CLOSED)
"""States in which a connection takes nothing but the end of closing it."""
_PUBLISH_IDS: Final = (60, 40)


def _nothing() -> None:
    """Do nothing."""


class ClientConnection:
    """One client, from its protocol header to its last byte.

    on_login: called when the client has opened a virtual host, and when it is gone.
    """

    def __init__(self, broker: "Broker", on_login: Callable[[], None] | None = None) -> None:
        self.broker = broker
        self._on_login = on_login or _nothing
        self.core = Core(
            Role.BROKER,
            frame_max=FRAME_MIN_SIZE,  # until more is agreed on (section 4.2.3)
            channel_max=broker.config.channel_max,
            max_body_size=broker.config.max_message_size,
        )
        self.driver = Driver(self.core, self, self._on_connected)
        self.vhost: VirtualHost = broker.nowhere
        self.user = ""
        self.peer = ""
        self.client_properties: Table = {}
        self.wants_cancel = False
        self.channels: dict[int, Channel] = {}
        self.exclusive_queues: set[Queue] = set()
        self.to_confirm: set[Channel] = set()
        self._publishing = Publishing(self)
        self.gate = ReadingGate(self.driver)
        self._held: list[Event] | None = None
        """Events that wait, for one of the gate's reasons, until those before them are carried out."""
        self._is_known = False
        self._allowed: set[tuple[Kind, str]] = set()
        self._answers_of = -1
        self.connected_at = time.time()
        self.mechanism = ""
        self.heartbeat = 0
        self.wants_blocked = False
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(_HANDSHAKE_TIMEOUT, self._give_up)
        self.closed: asyncio.Future[None] = self._loop.create_future()

    # -- the driver's events ---------------------------------------------------------------------------

    def _on_connected(self) -> None:
        self.broker.connections.add(self)

    def on_events(self, events: list[Event]) -> None:
        """Carry out what one chunk brought: little at once, much when there is a turn for it."""
        if self._held is not None:
            self._held += events  # what the socket had read already; the next chunk waits in the socket
        elif len(events) > _MUCH and not self.broker.shares.may_go_on(len(events)):
            self._yield(events)
        elif self._loop.time() - self.driver.read_at > _TURN:
            self._yield(events)  # a later part of one chunk
        else:
            self._carry_out(events)

    def _carry_out(self, events: list[Event]) -> None:
        """Carry out events, then send confirms and deliver the messages that they published.

        A client that adds to a store with much to write is not read for a while. One that only settles or queries is.
        """
        journal = self.broker.journal
        before = journal.unwritten
        self._take(events)
        for channel in self.to_confirm:
            journal.confirm(channel, channel.published)
        self.to_confirm.clear()
        self.broker.dispatch()
        if journal.is_on:
            self.broker.alarms.count_disk()
        if self._held is None and journal.unwritten > before and journal.is_crowded:
            self.gate.pause(Reason.FLOW)
            journal.when_taken(functools.partial(self.gate.resume, Reason.FLOW))

    def _take(self, events: list[Event]) -> None:
        ends_at = time.monotonic() + _TURN
        before = self.broker.journal.unwritten
        rest = iter(events)
        while self._take_some(rest) and length_hint(rest):
            if time.monotonic() > ends_at:
                self._yield([*rest], adds=self.broker.journal.unwritten > before)
                return

    def _take_some(self, rest: Iterator[Event]) -> bool:
        """Carry out events until the clock is to be read again. Return False where the others are held or discarded.

        None but the last one can change what routing depends on.
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
                    if not event[3]:
                        channel.ack(event[2])
                    else:
                        channel.settle(event[2], True)
                        return self._has_taken(rest)
                elif event[0] == METHOD:
                    if self.broker.dirty:
                        self.broker.dispatch()  # what came before it is with its consumers when it is carried out
                    self._on_method(event[1], event[2])
                    return self._has_taken(rest)
                elif event[0] == HEADER:
                    self._start()
                elif event[0] == VIOLATION:
                    raise event[2]
            except (Refusal, ProtocolViolation) as error:
                self._refuse(event[1], error, self._ids(event))
                return isinstance(error, ChannelRefusal) and self._has_taken(rest)
        return True

    def _has_taken(self, rest: Iterator[Event]) -> bool:
        """Return whether the events that follow may be carried out now; where not, they are held."""
        if self._held is not None:
            self._held += rest
            return False
        if self.driver.unsent > _MOST_UNSENT:
            self._wait_for_room([*rest])
            return False
        return True

    def wait_for_commit(self, number: int, answer: Method | None) -> None:
        """Hold a client's further frames until what it just changed is durable, then answer.

        Its answers so stay in order; changes of what is durable are rare.
        """
        self._hold(Reason.COMMIT, [])
        self.broker.journal.after_commit(functools.partial(self._take_held, number, answer))

    def carry_out_when_loaded(self, number: int, method: Method, queue: Queue) -> None:
        """Hold a method and the client's later frames until the store has answered the reading of a queue."""
        self._hold(Reason.LOADING, [(METHOD, number, method)])
        self.broker.journal.when_loaded(queue, self._take_held)

    def carry_out_again(self, number: int, method: Method) -> None:
        """Hold a method and the client's later frames until other clients have had their turn."""
        self._yield([(METHOD, number, method)])

    def work(self, steps: Iterator[None], then: Callable[[], None] = _nothing) -> None:
        """Take the steps of a long operation in turns with other clients, then call back. Later frames are held."""
        if self.broker.shares.work(steps, functools.partial(self._worked, then), self.broker.journal.may_grow):
            then()
        elif self._held is None:
            self._hold(Reason.TURN, [])

    def change(self, number: int, steps: Iterator[None], answer: Callable[[], Method | None]) -> None:
        """Take the steps of a change as `work` does, and answer on channel `number` when all of it is durable."""
        journal = self.broker.journal
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
            self.broker.dispatch()  # delivers the messages that the steps requeued
            return
        then()
        if self._is_held():  # `then` has held the connection again
            self.on_events(events)
            events = []
        self._carry_out(events)

    def _is_held(self) -> bool:
        return self._held is not None

    def _yield(self, events: list[Event], *, adds: bool = False) -> None:
        """Let other clients have their turn (see `rabbitry.broker.shares`).

        adds: whether the client adds to the store, so that it waits until that may be given more.
        """
        self._hold(Reason.TURN, events)
        if not adds or self.broker.journal.may_grow(self._wait_for_turn):
            self._wait_for_turn()

    def _wait_for_turn(self) -> None:
        self.broker.shares.wait(self._take_held)

    def _wait_for_room(self, events: list[Event]) -> None:
        """Hold what a client asks for until it has taken what it was answered: else it could fill the memory."""
        self._hold(Reason.UNREAD, events)

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
        """Return the events that were held, and read the client again unless another reason remains."""
        events, self._held = self._held or [], None
        self.gate.resume_frames()
        return events

    def on_lost(self, error: Exception | None) -> None:
        """Forget the client; what it had not settled goes back."""
        self._timer.cancel()
        self._on_login()
        self._release()
        self.broker.connections.discard(self)
        self.broker.churn.connection_closed += 1
        self.vhost.totals.add_octets(self.driver.bytes_received, self.driver.bytes_sent)
        if self.user and self.core.state is not ConnectionState.CLOSED:
            _log.debug("connection of %s from %s lost: %s", self.user, self.peer, error or "closed without a close")
        if not self.closed.done():
            self.closed.set_result(None)
        self.broker.dispatch()
        # Breaking the reference cycles frees the connection at once, without the garbage collector.
        del self._publishing
        self._on_login = _nothing

    @property
    def name(self) -> str:
        """What operators know it by: both ends' addresses."""
        return f"{self.peer} -> {self.broker.host}:{self.broker.port}"

    def on_writable(self) -> None:
        """Deliver again."""
        for channel in self.channels.values():
            channel.can_deliver = True
            channel.unpark()
        self.broker.dispatch()
        if Reason.UNREAD in self.gate.reasons:
            self._take_held()

    def stop_delivering(self) -> None:
        """Deliver no more until the socket takes data again."""
        for channel in self.channels.values():
            channel.can_deliver = False

    # -- methods ---------------------------------------------------------------------------------------

    def send(self, channel: int, method: Method) -> None:
        """Send a method. Raises UsageError where the connection's or the channel's state does not allow it."""
        self.driver.write(self.core.send_method(channel, method))

    def _on_method(self, number: int, method: Method) -> None:
        if number == 0:
            self._on_connection_method(method)
        elif isinstance(method, ChannelOpen):
            self._check_channel_limit()
            self.channels[number] = Channel(self, number)
            self.broker.churn.channel_created += 1
            self.channels[number].can_deliver = self.driver.can_write
            self.tell(number, ChannelOpenOk())
        elif isinstance(method, ChannelClose):
            self._drop_channel(number, functools.partial(self._answer_close, number))
        elif number in self.channels:
            handler = HANDLERS.get(type(method))
            if handler is None:
                raise ConnectionRefusal(Reply.NOT_IMPLEMENTED, f"{type(method).__name__} is not available here")
            journal = self.broker.journal
            changes = journal.changes
            answer = handler(self.channels[number], method)
            if self._is_held():
                pass  # whoever holds the client's frames answers
            elif journal.changes != changes:
                self.wait_for_commit(number, answer)
            elif answer is not None:
                self.tell(number, answer)

    def _answer_close(self, number: int) -> None:
        # The close is handled before any later frame is read, so the states are still those in which it arrived. Where
        # both sides close at once, the channel may be closing: the client waits for close-ok all the same (section
        # 2.2.4).
        if self.core.state not in _OVER:
            self.send(number, ChannelCloseOk())

    def tell(self, channel: int, method: Method) -> None:
        """Send a method, unless the connection or the channel has been closed meanwhile."""
        if self.core.state in _OVER:
            return
        if channel and self.core.channel_state(channel) not in (ChannelState.OPENING, ChannelState.OPEN):
            return
        self.send(channel, method)

    def check(self, kind: Kind, what: str, name: str) -> None:
        """See that the user may configure, write to or read from an exchange or queue. Raises 403."""
        access = self.broker.access
        if self._answers_of != access.generation:
            self._allowed.clear()
            self._answers_of = access.generation
        question = (kind, name)
        if question in self._allowed:
            return
        if not access.may(kind, self.vhost.name, self.user, name or "amq.default"):
            where = f"{what} '{name or 'amq.default'}' in vhost '{self.vhost.name}'"
            raise access_refused(f"access to {where} refused for user '{self.user}'")
        if len(self._allowed) >= _REMEMBERED:
            self._allowed.clear()
        self._allowed.add(question)

    def check_topic(self, kind: Literal["write", "read"], exchange: Exchange, routing_key: str) -> None:
        """Check the user's permission for a routing key of a topic exchange; other exchanges need none. Raises 403."""
        access, vhost = self.broker.access, self.vhost.name
        if not access.topic_permissions or exchange.type != "topic":
            return
        if not access.may_use_topic(kind, vhost, self.user, exchange.name, routing_key):
            where = f"topic '{routing_key}' in exchange '{exchange.name}' in vhost '{vhost}'"
            raise access_refused(f"access to {where} refused for user '{self.user}'")

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
        self.send(0, ConnectionCloseOk())
        self.driver.finish()

    # -- handshake -------------------------------------------------------------------------------------

    def _start(self) -> None:
        peer = self.driver.get_extra_info("peername")
        self.peer = f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else "?"
        mechanisms = MECHANISMS if certificate_name(self.driver) is None else MECHANISMS + b" EXTERNAL"
        start = ConnectionStart(server_properties=self.broker.server_properties, mechanisms=mechanisms)
        if self.core.is_0_8:
            major, minor = amqp_0_8.VERSION
            # Its clients can't read the booleans in there; RabbitMQ sends an empty table.
            properties = {**start.server_properties, "capabilities": {}}
            start = start._replace(version_major=major, version_minor=minor, server_properties=properties)
        self.tell(0, start)

    def _login(self, method: ConnectionStartOk) -> None:
        self.client_properties = method.client_properties
        capabilities = method.client_properties.get("capabilities")
        known: Table = capabilities if isinstance(capabilities, dict) else {}
        self.wants_cancel = known.get("consumer_cancel_notify") is True
        self.wants_blocked = (
            known.get("connection.blocked") is True and not self.core.is_0_8
        )  # which has no such method
        given = credentials(method.mechanism, method.response)
        address = self.peer.rpartition(":")[0]
        access = self.broker.access
        certified = certificate_name(self.driver) if method.mechanism == "EXTERNAL" else None
        if certified is not None:
            given = (certified, "")
        is_right = certified in access.users if certified is not None else given and access.is_password(*given)
        if given is None or not (is_right and may_come_from(given[0], address)):
            _log.warning("refused a login from %s as %r", self.peer, given[0] if given else "?")
            text = (
                f"ACCESS_REFUSED - Login was refused using authentication mechanism {method.mechanism}. "
                "For details see the broker logfile."
            )
            self._is_known = given is not None and known.get("authentication_failure_close") is True
            raise ProtocolViolation(Reply.ACCESS_REFUSED, text)
        self.user = given[0]
        self.mechanism = method.mechanism
        config = self.broker.config
        self.tell(0, ConnectionTune(config.channel_max, config.frame_max, config.heartbeat))

    def _tuned(self, method: ConnectionTuneOk) -> None:
        config = self.broker.config
        for name, given, offered, least in (
            ("frame_max", method.frame_max, config.frame_max, FRAME_MIN_SIZE),
            ("channel_max", method.channel_max, config.channel_max, 1),
        ):
            if (offered and not 0 < given <= offered) or 0 < given < least:
                text = f"negotiated {name} = {given} is not in the allowed {least} to {offered}"
                raise ConnectionRefusal(Reply.NOT_ALLOWED, text)
        self.core.tuned(method.frame_max or config.frame_max, method.channel_max or config.channel_max)
        self.heartbeat = method.heartbeat
        self.driver.start_heartbeat(method.heartbeat)

    def _open(self, method: ConnectionOpen) -> None:
        vhost = self.broker.vhosts.get(method.virtual_host)
        if vhost is None:
            self._is_known = True
            raise ConnectionRefusal(Reply.NOT_ALLOWED, f"vhost {method.virtual_host} not found")
        if not self.broker.access.may_enter(vhost.name, self.user):
            self._is_known = True
            text = f"access to vhost '{vhost.name}' refused for user '{self.user}'"
            raise ConnectionRefusal(Reply.NOT_ALLOWED, text)
        self._is_known = True
        self._check_limits(vhost)
        self.vhost = vhost
        self.broker.churn.connection_created += 1
        self._timer.cancel()
        self._on_login()
        self.tell(0, ConnectionOpenOk())
        _log.debug("connection of %s from %s to virtual host %r", self.user, self.peer, vhost.name)

    def _check_limits(self, vhost: "VirtualHost") -> None:
        """Check the limits on connections of the virtual host and the user. Raises 530."""
        others = [known for known in self.broker.connections if known.vhost is not self.broker.nowhere]
        limit = vhost.limits.get("max-connections", -1)
        if 0 <= limit <= sum(known.vhost is vhost for known in others):
            where = f"access to vhost '{vhost.name}' refused for user '{self.user}'"
            raise ConnectionRefusal(Reply.NOT_ALLOWED, f"{where}: connection limit ({limit}) is reached")
        limit = self._limit_of_user("max-connections")
        if 0 <= limit <= sum(known.user == self.user for known in others):
            text = f"connection refused for user '{self.user}': user connection limit ({limit}) is reached"
            raise ConnectionRefusal(Reply.NOT_ALLOWED, text)

    def _limit_of_user(self, name: str) -> int:
        user = self.broker.access.users.get(self.user)
        return user.limits.get(name, -1) if user is not None else -1

    def _check_channel_limit(self) -> None:
        """Check the limit on channels of the user, over all its connections. Raises 530."""
        limit = self._limit_of_user("max-channels")
        if limit < 0:
            return
        if limit <= sum(len(known.channels) for known in self.broker.connections if known.user == self.user):
            text = f"number of channels opened for user '{self.user}' has reached the maximum allowed user limit of"
            raise ConnectionRefusal(Reply.NOT_ALLOWED, f"{text} ({limit})")

    def _give_up(self) -> None:
        _log.warning("no login from %s within %g s: closed", self.peer or "a client", _HANDSHAKE_TIMEOUT)
        self.driver.abort()

    # -- closing ---------------------------------------------------------------------------------------

    @staticmethod
    def _ids(event: Event) -> tuple[int, int]:
        if event[0] == METHOD:
            layout = BY_TYPE[type(event[2])]
            return layout.class_id, layout.method_id
        return _PUBLISH_IDS if event[0] == PUBLISH else (60, 80) if event[0] == ACK else (0, 0)

    def _refuse(self, number: int, error: Refusal | ProtocolViolation, ids: tuple[int, int]) -> None:
        """Turn what a handler raised into channel.close or connection.close."""
        if isinstance(error, ChannelRefusal):
            _log.info("channel %d of %s from %s closed: %s", number, self.user, self.peer, error.reply_text)
            self._drop_channel(number)
            self.tell(number, ChannelClose(error.reply_code, _short(error.reply_text), *ids))
            return
        if isinstance(error, ProtocolViolation):
            ids = (error.class_id, error.method_id)
        self.hang_up(error.reply_code, error.reply_text, *ids)

    def hang_up(self, reply_code: int, reply_text: str, class_id: int = 0, method_id: int = 0) -> None:
        """Close the connection with a reason, and the socket when the client has answered, or does not."""
        # Forced by an operator, such as a shutdown of the broker: nobody's fault, so no warning.
        level = logging.INFO if reply_code == Reply.CONNECTION_FORCED else logging.WARNING
        _log.log(level, "connection from %s closed: %d %s", self.peer or "a client", reply_code, reply_text)
        self._timer.cancel()
        if self.core.state is ConnectionState.IDLE:
            # Before any login the answer to a wrong protocol header is ours (section 4.2.2).
            self.driver.write(PROTOCOL_HEADER)
            self.driver.finish()
            return
        self._release()
        self._take_out()  # the channels are gone, and the client's close or close-ok is not to wait behind it
        if not self._is_known:
            # Who has not logged in gets no reason, and waits, so that it costs to try again (as with RabbitMQ).
            self.gate.pause(Reason.REFUSED)
            self._timer = self._loop.call_later(_SILENT_CLOSE, self.driver.finish)
            return
        if self.core.state in _OVER:
            self.driver.finish()
            return
        self.send(0, ConnectionClose(reply_code, _short(reply_text), class_id, method_id))
        if self.core.framing_lost:
            self.driver.finish()
        else:
            self.driver.expect_end()  # also of one that is blocked: its close-ok is waited for

    def _drop_channel(self, number: int, then: Callable[[], None] = _nothing) -> None:
        channel = self.channels.pop(number, None)
        if channel is None:
            then()
        else:
            if channel in self.to_confirm:
                self.to_confirm.discard(channel)
                # What came before the error is kept, so it is confirmed, where that can be said by now.
                self.broker.journal.confirm(channel, channel.published)
            self.work(channel.closing(), then)

    def _release(self, then: Callable[[], None] = _nothing) -> None:
        """Close the client's channels and delete its exclusive queues, then call back."""
        channels = [channel.closing() for channel in self.channels.values()]
        self.channels.clear()
        self.work(chain(*channels, self._delete_exclusive()), then)

    def _delete_exclusive(self) -> Iterator[None]:
        for queue in list(self.exclusive_queues):
            yield from self.vhost.deleting_queue(queue)


def _short(text: str) -> str:
    """Cut a reply text to what a short string holds, as RabbitMQ does."""
    raw = text.encode("utf-8", "surrogateescape")
    return (raw if len(raw) <= 255 else raw[:252] + b"...").decode("utf-8", "surrogateescape")
