"""The hot path of publishing: from a client's bytes to the queues.

Each connection caches routes by the bytes of a publish's arguments; the cache is emptied when it is full, and at any
change that routing depends on. Errors are never cached, nor routes that a message's properties decided (by an exchange
type that reads them, or CC or BCC). A message stays undecoded unless it has a user-id, a reply-to, or headers that
`_skimming` does not know.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from typing import Final, Protocol

from rabbitry.amqp.driver import Driver
from rabbitry.amqp.protocol import hot
from rabbitry.amqp.protocol.connection import Connection as Core
from rabbitry.amqp.protocol.constants import Reply
from rabbitry.amqp.protocol.encoding import encode_method
from rabbitry.amqp.protocol.events import PUBLISH, Event
from rabbitry.amqp.protocol.methods import BasicReturn
from rabbitry.amqp.protocol.properties import (
    FLAG_EXPIRATION,
    FLAG_HEADERS,
    FLAG_PRIORITY,
    FLAG_REPLY_TO,
    FLAG_USER_ID,
    Properties,
    decode_header,
    encode_header,
)
from rabbitry.amqp.protocol.tables import FieldValue, Table, is_finite, type_name
from rabbitry.broker._alarms import Alarms, Blockable
from rabbitry.broker._channel import Channel
from rabbitry.broker._confirms import Confirms
from rabbitry.broker._erlang import check_timer, erlang_string
from rabbitry.broker._errors import (
    PUBLISH_IDS,
    ChannelRefusal,
    ConnectionRefusal,
    Refusal,
    access_refused,
    precondition_failed,
)
from rabbitry.broker._exchanges import Exchange
from rabbitry.broker._exchanges.routing import in_one_step
from rabbitry.broker._permissions import Permissions
from rabbitry.broker._queues import Queue, ReplyTo
from rabbitry.broker._queues.dead_letter import has_foreign_deaths
from rabbitry.broker._queues.reply_to import REPLY_TO
from rabbitry.broker._queues.waiting import WaitingRoom
from rabbitry.broker._skimming import skimmed
from rabbitry.broker._vhost import VirtualHost
from rabbitry.broker.access import Access
from rabbitry.broker.message import Message, any_delivery_mode, check_delivery_mode, delivery_mode
from rabbitry.exceptions import ProtocolViolation

_MOST_EXCHANGES: Final = 100
_CACHED_ROUTES: Final = 4096
_LONG_HEADER: Final = 2_000
"""Size of a content header in bytes above which decoding it may take a millisecond."""
_SPECIAL: Final = FLAG_HEADERS | FLAG_EXPIRATION | FLAG_PRIORITY | FLAG_USER_ID | FLAG_REPLY_TO
_NOTHING: Final = Properties()

_Route = tuple[list[Queue | ReplyTo], bytes, bool, Exchange]
"""A publish's queues, its encoded exchange and routing key, whether it is mandatory, and its exchange."""


class Publisher(Blockable, Protocol):
    """The part of a publishing client's connection that its publishes use."""

    @property
    def driver(self) -> Driver:
        """The driver that writes to the client."""

    @property
    def core(self) -> Core:
        """The protocol core, which has the agreed frame size."""

    def hold_publish(self, event: Event) -> None:
        """Hold a publish, and the client's later frames, until the alarm ends that blocks the connection."""

    def work(self, steps: Iterator[None], then: Callable[[], None]) -> None:
        """Run the steps of a long operation, alternating with other clients, then call `then`. Hold later frames."""

    def refuse(self, number: int, error: Refusal | ProtocolViolation, ids: tuple[int, int]) -> None:
        """Close the channel or connection with an error."""


class Publishing:
    """The publishes of one connection.

    Args:
        connection: The connection, which is blocked by alarms and receives returned messages.
        vhost: The virtual host that the client publishes to.
        access: The users and permissions; a change of them empties the cache of routes.
        permissions: Checks which exchanges the client's user may publish to.
        replies: The consumers of direct replies, by name.
        alarms: Blocks a connection that publishes while one is on.
        max_message_size: The largest body, in bytes.
        to_confirm: Collects the confirms of channels that have published, to be sent at the end of the chunk.
    """

    def __init__(
        self,
        connection: Publisher,
        vhost: VirtualHost,
        *,
        access: Access,
        permissions: Permissions,
        replies: Mapping[str, ReplyTo],
        alarms: Alarms,
        max_message_size: int,
        to_confirm: set[Confirms],
    ) -> None:
        self._connection = connection
        self._vhost = vhost
        self._dispatcher = vhost.dispatcher
        self._journal = vhost.journal
        self._access = access
        self._permissions = permissions
        self._replies = replies
        self._alarms = alarms
        self._alarms_on = alarms.on
        self._max_message_size = max_message_size
        self._to_confirm = to_confirm
        self._delivery_mode = delivery_mode if vhost.release.checks_delivery_mode else any_delivery_mode
        self.exchanges: dict[str, None] = {}
        """The exchanges that were published to, the latest first-time one last; noted where a route is found anew."""
        self._routes: dict[bytes, _Route] = {}
        self._routes_of = -1
        # Plain functions: a bound method would refer to this object, which only the garbage collector could free then.
        self._deliver = Publishing._take

    def follow_changes(self) -> None:
        """Empty the cache if routing may have changed. Called before publishes, in each loop iteration."""
        generation = self._vhost.generation + self._access.generation  # both only increase
        if self._routes_of != generation:
            self._routes.clear()
            self._routes_of = generation
            is_watched = self._vhost.on_publish is not None or self._vhost.firehose is not None
            self._deliver = Publishing._tell_and_take if is_watched else Publishing._take

    def publish(self, channel: Channel, arguments: bytes, header: bytes, body: bytes) -> bool:
        """Process a publish: put it into its queues, return it if it is mandatory and has none, and confirm it.

        In a transaction it waits for the commit. Return True if it was newly routed, was not routed to exactly one
        queue, or has a long header: that may take long, so the clock is to be checked. Raises Refusal, or
        ProtocolViolation for a malformed message.
        """
        if self._alarms_on:
            self._alarms.block(self._connection)
            if body:  # RabbitMQ stops reading behind the header, and so takes a publish without a body alone
                self._connection.hold_publish((PUBLISH, channel.number, arguments, header, body))
                return True
        flags = header[12] << 8 | header[13]
        route = self._routes.get(arguments)
        if route is None or not body or channel.transaction is not None:
            return self._publish_special(channel, route, arguments, header, body)
        if flags & _SPECIAL:
            message = skimmed(route[1], header, body, flags)
            if message is None:
                return self._publish_special(channel, route, arguments, header, body)
            return self._deliver(self, channel, route, message, arguments)
        return self._deliver(
            self, channel, route, Message(route[1], header, body, self._delivery_mode(header, flags) == 2), arguments
        )

    def _publish_special(
        self, channel: Channel, route: _Route | None, arguments: bytes, header: bytes, body: bytes
    ) -> bool:
        """Process a publish with no cached route, special properties, or no body, or in a transaction."""
        flags = header[12] << 8 | header[13]
        properties = _NOTHING
        if flags & _SPECIAL:
            if route is None:  # RabbitMQ checks the exchange first
                self._exchange_of(hot.parse_publish(arguments)[0])
            properties = _read(header)
            self._check(channel, properties)
        is_new = route is None or _has_copies(properties.headers)
        if route is None or is_new:
            steps = self._routing(arguments, header, properties)
            if len(header) > _LONG_HEADER and _has_copies(properties.headers):
                self._publish_in_steps(channel, steps, arguments, header, body, properties)
                return True
            route = in_one_step(steps)
        is_new = is_new or len(header) > _LONG_HEADER
        return self._publish_routed(channel, route, arguments, header, body, properties) or is_new

    def _publish_in_steps(
        self,
        channel: Channel,
        steps: Generator[None, None, _Route],
        arguments: bytes,
        header: bytes,
        body: bytes,
        properties: Properties,
    ) -> None:
        """Publish a message that may have thousands of routing keys, in steps. The client's later frames wait."""
        found: list[_Route] = []

        def routing() -> Iterator[None]:
            found.append((yield from steps))

        def then() -> None:
            if not channel.is_open:
                return
            queues, destination, mandatory, exchange = found[0]
            kept = [queue for queue in queues if not (isinstance(queue, Queue) and queue.is_deleted)]
            route = kept, destination, mandatory, exchange
            try:
                self._publish_routed(channel, route, arguments, header, body, properties)
            except (Refusal, ProtocolViolation) as error:
                self._connection.refuse(channel.number, error, PUBLISH_IDS)

        self._connection.work(routing(), then)

    def _publish_routed(
        self, channel: Channel, route: _Route, arguments: bytes, header: bytes, body: bytes, properties: Properties
    ) -> bool:
        """Deliver a message to its queues, or add it to an open transaction. Return whether that may take long."""
        if not body and any(header[4:12]):
            size = int.from_bytes(header[4:12], "big")
            limit = self._max_message_size
            raise precondition_failed(f"message size {size} is larger than configured max size {limit}")
        if properties is _NOTHING:
            flags = header[12] << 8 | header[13]
            message = Message(route[1], header, body, self._delivery_mode(header, flags) == 2)
        else:
            message = _decoded(channel, route[1], header, body, properties)
        if channel.transaction is None:
            self._return_reply(channel, route, message, arguments)
            return self._deliver(self, channel, route, message, arguments)
        message.is_owed = True
        later = functools.partial(self._deliver_later, channel, route, message, arguments, properties)
        channel.transaction.publishes.append(later)
        return False

    def _deliver_later(
        self, channel: Channel, route: _Route, message: Message, arguments: bytes, properties: Properties
    ) -> None:
        """Deliver a transaction's publish at its commit.

        It goes to the queues that it was routed to when it arrived, if queues of these names still exist; only bindings
        of the default exchange, which are the queues themselves, are looked up now (as on RabbitMQ 3.10). In some
        releases it goes to these very queues, and the transaction fails if one of them is deleted.
        """
        if self._vhost.release.keeps_transaction_queues and route[0]:
            kept = [queue for queue in route[0] if not (isinstance(queue, Queue) and queue.is_deleted)]
            if len(kept) < len(route[0]) and channel.transaction is not None:
                channel.transaction.failure = precondition_failed("partial tx completion")
            if not kept:
                return
            route = (kept, *route[1:])
        elif self._vhost.release.keeps_transaction_queues:
            pass
        elif arguments[2]:  # the length of the exchange's name
            route = ([*self._known(route[0])], *route[1:])
        else:
            try:
                route = self._route(arguments, message.header, properties)
            except ChannelRefusal:
                return  # the user's permissions have changed
        self._return_reply(channel, route, message, arguments)
        self._deliver(self, channel, route, message, arguments)

    def _known(self, queues: Iterable[Queue | ReplyTo]) -> Iterator[Queue | ReplyTo]:
        """Yield the queues that have the names of `queues` now; messages may wait as long as their exchange exists."""
        known = self._vhost.queues
        for queue in queues:
            if isinstance(queue, WaitingRoom):
                if not queue.is_deleted:
                    yield queue
            elif queue.name in known:
                yield known[queue.name]

    def _tell_and_take(self, channel: Channel, route: _Route, message: Message, arguments: bytes) -> bool:
        if self._vhost.on_publish is not None:
            self._vhost.on_publish(self._vhost.name, message, route[0])
        if self._vhost.firehose is not None:
            self._vhost.firehose.published(channel, message, [queue.name for queue in route[0]])
        self._take(channel, route, message, arguments)
        return True

    def _take(self, channel: Channel, route: _Route, message: Message, arguments: bytes) -> bool:
        """Put a message into its queues, and count it. Return whether it took longer than one message for one queue."""
        queues, _, mandatory, exchange = route
        taken = True
        exchange.published_in += 1
        if queues:
            touched = self._dispatcher.touched
            for queue in queues:
                if not queue.push(message):
                    taken = False
                touched[queue] = None
        elif mandatory:
            channel.returned += 1
            self._return(channel, arguments, message)
        else:
            channel.dropped += 1
        confirms = channel.confirms
        if confirms is None:
            channel.published_unconfirmed += 1
        else:
            confirms.published += 1
            if message.id:
                confirms.waits_for = self._journal.gathering
            self._to_confirm.add(confirms)
            if not taken:
                confirms.reject()
        if len(queues) == 1:
            return False
        # RabbitMQ counts the missing queue of the default exchange too.
        exchange.more_out += (len(queues) or not exchange.name) - 1
        return True

    def _check(self, channel: Channel, properties: Properties) -> None:
        """Refuse invalid properties that the broker itself has to interpret (406)."""
        if properties.delivery_mode is not None and self._vhost.release.checks_delivery_mode:
            check_delivery_mode(properties.delivery_mode)
        self._permissions.check_user_id(properties.user_id)
        if properties.expiration is not None:
            read_expiration(properties.expiration)
        if properties.reply_to == REPLY_TO and channel.reply_to is None:
            raise precondition_failed("fast reply consumer does not exist")

    def _route(self, arguments: bytes, header: bytes, properties: Properties) -> _Route:
        """Route a message without the cache. properties: `_NOTHING` if the header was not decoded."""
        return in_one_step(self._routing(arguments, header, properties))

    def _routing(self, arguments: bytes, header: bytes, properties: Properties) -> Generator[None, None, _Route]:
        """Route a message as `_route` does, in steps; whatever is refused is refused in the first one."""
        name, routing_key, mandatory, immediate = hot.parse_publish(arguments)
        if immediate:
            raise ConnectionRefusal(Reply.NOT_IMPLEMENTED, "immediate=true")
        exchange = self._exchange_of(name)
        if name not in self.exchanges:
            if len(self.exchanges) >= _MOST_EXCHANGES:
                del self.exchanges[next(iter(self.exchanges))]
            self.exchanges[name] = None
        if not name and routing_key.startswith(f"{REPLY_TO}."):
            reply_to = self._replies.get(routing_key)
            return ([] if reply_to is None else [reply_to]), arguments[2:-1], mandatory, exchange
        self._permissions.check_topic("write", exchange, routing_key)
        keys = routing_keys(routing_key, properties.headers or {})
        queues, by_properties = yield from self._vhost.routing(exchange, keys, properties)
        if by_properties and properties is _NOTHING:
            queues, _ = yield from self._vhost.routing(exchange, keys, _read(header))
        route: _Route = ([*queues], arguments[2:-1], mandatory, exchange)
        if len(keys) == 1 and not by_properties:
            if len(self._routes) >= _CACHED_ROUTES:
                self._routes.clear()
            self._routes[arguments] = route
        return route

    def _exchange_of(self, name: str) -> Exchange:
        """Return the exchange of a publish. Raises Refusal if it does not exist or the client may not publish to it."""
        self._permissions.check("write", "exchange", name)
        exchange = self._vhost.exchange(name)
        if exchange.internal:
            raise access_refused(f"cannot publish to internal exchange '{name}' in vhost '{self._vhost.name}'")
        return exchange

    def _return_reply(self, channel: Channel, route: _Route, message: Message, arguments: bytes) -> None:
        """Return a mandatory direct reply, which is delivered too: its consumer is no queue (docs/direct-reply-to)."""
        queues, _, mandatory, _ = route
        if mandatory and queues and isinstance(queues[0], ReplyTo):
            channel.returned += 1
            self._return(channel, arguments, message)

    def _return(self, channel: Channel, arguments: bytes, message: Message) -> None:
        name, routing_key, _, _ = hot.parse_publish(arguments)
        method = BasicReturn(Reply.NO_ROUTE, "NO_ROUTE", name, routing_key)
        connection = self._connection
        # Return it even to a client whose close came in the same chunk, so don't ask the core.
        frames = hot.encode_method_frame(channel.number, encode_method(method))
        connection.driver.write(
            frames + hot.encode_content(channel.number, message.header, message.body, connection.core.frame_limit)
        )


def _read(header: bytes) -> Properties:
    """Decode a content header. Raises ProtocolViolation (541, as RabbitMQ does) for a malformed one.

    A float that is NaN or infinite counts as malformed: Erlang has no such number.
    """
    try:
        properties = decode_header(header)
    except ProtocolViolation as error:
        raise ProtocolViolation(Reply.INTERNAL_ERROR, "INTERNAL_ERROR") from error
    if not is_finite(properties.headers):
        raise ProtocolViolation(Reply.INTERNAL_ERROR, "INTERNAL_ERROR")
    return properties


def _decoded(channel: Channel, destination: bytes, header: bytes, body: bytes, properties: Properties) -> Message:
    """Return a message with decoded properties that the broker needs besides the route."""
    changed = properties
    hidden = _copies(properties.headers or {}, "BCC")
    if properties.headers and "BCC" in properties.headers:
        changed = changed._replace(headers={name: value for name, value in properties.headers.items() if name != "BCC"})
    if properties.reply_to == REPLY_TO and channel.reply_to is not None:
        changed = changed._replace(reply_to=channel.reply_to.name)
    expiration = None if properties.expiration is None else read_expiration(properties.expiration)
    if expiration is not None and channel.vhost.release.rewrites_expiration:
        changed = changed._replace(expiration=str(expiration))
    if changed != properties:
        header = encode_header(changed, len(body))
    message = Message(destination, header, body, properties.delivery_mode == 2)
    message.expiration = expiration
    message.priority = properties.priority or 0
    message.hidden_keys = tuple(hidden)
    message.has_foreign_deaths = has_foreign_deaths(properties.headers, channel.vhost.release)
    return message


def read_expiration(text: str) -> int:
    """Return a message's time-to-live in milliseconds. Raises 406 with RabbitMQ's text for an invalid one."""
    digits = text[1:] if text[:1] in ("-", "+") else text
    number = digits[: len(digits) - len(digits.lstrip("0123456789"))]
    if not number:
        raise precondition_failed(f"invalid expiration '{text}': no_integer")
    rest = digits[len(number) :]
    if rest:
        printed = erlang_string(rest.encode("utf-8", "surrogateescape"))
        raise precondition_failed(f"invalid expiration '{text}': {{leftover_string,{printed}}}")
    value = -int(number) if text.startswith("-") else int(number)
    wrong = check_timer(value)
    if wrong is not None:
        raise precondition_failed(f"invalid expiration '{text}': {wrong}")
    return value


def routing_keys(routing_key: str, headers: Table) -> list[str]:
    """Return all routing keys of a message: its own, and those of its CC and BCC headers."""
    return [routing_key, *_copies(headers, "CC"), *_copies(headers, "BCC")]


def _has_copies(headers: Table | None) -> bool:
    """Return whether headers name further destinations, which no cached route covers."""
    return headers is not None and ("CC" in headers or "BCC" in headers)


def _copies(headers: Table, name: str) -> list[str]:
    """Return the routing keys of a CC or BCC header (RabbitMQ's docs/sender-selected)."""
    value: FieldValue = headers.get(name)
    if name not in headers:
        return []
    if not isinstance(value, list):
        wrong = f'{{unacceptable_type_in_header,"{name}",{type_name(value)}}}'
        raise precondition_failed(f"invalid message: {wrong}")
    return [key for key in value if isinstance(key, str)]
