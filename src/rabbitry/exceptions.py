"""The errors of Rabbitry, one tree.

RabbitryError
├── UsageError                    invalid use of the API
│   └── AlreadySettled            a delivery was acked, nacked or rejected before, or its channel is closed
├── ProtocolViolation             the peer broke the protocol
├── ConnectFailed                 no connection could be made: no answer, or an answer that is not AMQP
│   ├── LoginRefused              the broker refused user, password or mechanism
│   └── VirtualHostRefused        the virtual host does not exist, or this user has no access to it
├── Closed                        carries reply code, text, class and method
│   ├── ConnectionClosed          … a class for each reply code, see CONNECTION_ERRORS
│   │   └── UsedAfterFork         a connection of the parent process, used in a forked child
│   └── ChannelClosed             … a class for each reply code, see CHANNEL_ERRORS
├── ConsumerCancelled             the broker cancelled a consumer
├── DeliveryTimeout               a delivery was not settled within the broker's consumer_timeout
│   ├── DeliveryTimeoutClosed     … and the broker closed the channel (406)
│   └── DeliveryTimeoutCancelled  … and the broker cancelled the consumer
├── RequestTimeout                the broker did not answer in time
├── PublishError
│   ├── PublishRefused            the broker nacked the message
│   ├── PublishReturned           a mandatory message was not routed to any queue
│   └── PublishTimeout            not confirmed in time: the outcome is unknown
└── Undecodable                   input is not text, JSON or TOML, or not of the expected type

Every other error lives with its owner, under the same base: those of apps, handlers and workers in
`rabbitry.flow.exceptions`, those of the embedded broker (ManagementFailed, StoreFailed) in `rabbitry.broker`, those of
plug-ins, records and pages in `rabbitry.apps.exceptions`, those of the assignment correction in
`rabbitry.apps.grading.exceptions`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Self, TypeVar


class RabbitryError(Exception):
    """Every error that Rabbitry raises on purpose."""

    def __reduce__(self) -> tuple[Callable[..., RabbitryError], tuple[object, ...]]:
        # For copies and pickles: Exception's own __reduce__ calls the class with the text alone, and most classes here
        # take more arguments.
        return _restore, (type(self), self.args, vars(self))


def _restore(cls: type[RabbitryError], args: tuple[object, ...], attributes: dict[str, object]) -> RabbitryError:
    error = cls.__new__(cls, *args)
    vars(error).update(attributes)
    return error


class UsageError(RabbitryError):
    """Invalid use of the API; nothing was sent."""


class AlreadySettled(UsageError):
    """A delivery can't be settled: it is settled already, or the channel that it came on is closed."""


class ProtocolViolation(RabbitryError):
    """The peer broke the protocol.

    `reply_code` and `reply_text` go into the Close that is sent to the peer (AMQP 0-9-1, section 1.2); `class_id` and
    `method_id` name the method at fault, or are 0.
    """

    def __init__(self, reply_code: int, reply_text: str, class_id: int = 0, method_id: int = 0) -> None:
        super().__init__(f"{reply_code} {reply_text}")
        self.reply_code = reply_code
        self.reply_text = reply_text
        self.class_id = class_id
        self.method_id = method_id


class ConnectFailed(RabbitryError):
    """No connection could be made; the text names the host and the cause."""


class LoginRefused(ConnectFailed):
    """The broker refused the user, the password or the authentication mechanism. Retrying won't help."""


class VirtualHostRefused(ConnectFailed):
    """The virtual host does not exist, or this user has no access to it. Retrying won't help."""


class Closed(RabbitryError):
    """A connection or channel is closed.

    `reply_code` is 0 if no Close was received (a lost connection, or our own orderly close);
    `class_id` and `method_id` name the method that the broker found at fault, or are 0.
    """

    what: ClassVar[str] = "closed"

    def __init__(self, reply_code: int, reply_text: str, class_id: int = 0, method_id: int = 0) -> None:
        super().__init__(f"{self.what}: {reply_code} {reply_text}" if reply_code else reply_text)
        self.reply_code = reply_code
        self.reply_text = reply_text
        self.class_id = class_id
        self.method_id = method_id

    def fresh(self) -> Self:
        """Return a copy to raise, with the same cause: raising one exception repeatedly makes its traceback grow."""
        error = type(self)(self.reply_code, self.reply_text, self.class_id, self.method_id)
        error.__cause__ = self.__cause__
        return error


class ConnectionClosed(Closed):
    """The connection is closed, and all its channels with it."""

    what = "connection closed"


class ChannelClosed(Closed):
    """The channel is closed; its connection and the other channels stay open."""

    what = "channel closed"


class UsedAfterFork(ConnectionClosed):
    """A connection of the parent process was used in a forked child, which has to open its own."""

    @classmethod
    def here(cls, parent: int) -> Self:
        """Return the error for use in this process of a connection that belongs to process `parent`."""
        return cls(
            0,
            f"this connection belongs to process {parent} and can't be used in a forked child: "
            "open a connection after the fork",
        )


class ConsumerCancelled(RabbitryError):
    """The broker cancelled a consumer, for example because the queue was deleted or its node went down."""

    def __init__(self, consumer_tag: str, queue: str) -> None:
        super().__init__(f"the broker cancelled consumer {consumer_tag!r} of queue {queue!r}")
        self.consumer_tag = consumer_tag
        self.queue = queue


class DeliveryTimeout(RabbitryError):
    """A delivery was not settled within the broker's consumer_timeout (RabbitMQ: 30 minutes by default).

    The broker requeues it. Ack earlier, work in smaller pieces, or raise the timeout: `consumer_timeout` in
    rabbitmq.conf, or the queue argument x-consumer-timeout (RabbitMQ's docs/consumers, delivery acknowledgement
    timeout).
    """

    advice: ClassVar[str] = (
        "a delivery was not settled within the broker's consumer_timeout (30 minutes by default) and is redelivered: "
        "ack earlier, lower the prefetch, or raise consumer_timeout on the broker"
    )


class DeliveryTimeoutCancelled(ConsumerCancelled, DeliveryTimeout):
    """A delivery timeout for which the broker cancelled the consumer (RabbitMQ 4.3 and later)."""

    def __str__(self) -> str:
        return f"{super().__str__()}: {self.advice}"


class RequestTimeout(RabbitryError, TimeoutError):
    """The broker did not answer a request in time."""


class PublishError(RabbitryError):
    """A message was not confirmed."""


class PublishRefused(PublishError):
    """The broker nacked the message: it could not take responsibility for it (a full queue, an internal failure)."""


class PublishReturned(PublishError):
    """The broker returned a mandatory message because it was not routed to any queue.

    `reply_code` is normally 312 (NO_ROUTE).
    """

    def __init__(self, reply_code: int, reply_text: str, exchange: str, routing_key: str) -> None:
        super().__init__(
            f"returned: {reply_code} {reply_text} (exchange {exchange!r}, routing key {routing_key!r}): "
            "no queue is bound there"
        )
        self.reply_code = reply_code
        self.reply_text = reply_text
        self.exchange = exchange
        self.routing_key = routing_key


class PublishTimeout(PublishError, TimeoutError):
    """Not confirmed in time. The outcome is unknown: the message may be on the broker, or may still reach it."""


class Undecodable(RabbitryError):
    """Input is not text, JSON or TOML, or not of the expected type. The text names the field."""


_C = TypeVar("_C", bound=type[Closed])


def _register(registry: dict[int, _C], code: int) -> Callable[[_C], _C]:
    def register(cls: _C) -> _C:
        if code in registry:
            raise TypeError(f"reply code {code} has two classes: {registry[code].__name__}, {cls.__name__}")
        registry[code] = cls
        return cls

    return register


CONNECTION_ERRORS: dict[int, type[ConnectionClosed]] = {}
"""Reply code → class, for codes that close a connection."""
CHANNEL_ERRORS: dict[int, type[ChannelClosed]] = {}
"""Reply code → class, for codes that close a channel."""


@_register(CONNECTION_ERRORS, 320)
class ConnectionForced(ConnectionClosed):
    """320: an operator closed the connection, or the broker is shutting down."""


@_register(CONNECTION_ERRORS, 402)
class InvalidPath(ConnectionClosed):
    """402: unknown virtual host."""


@_register(CONNECTION_ERRORS, 403)
class ConnectionAccessRefused(ConnectionClosed):
    """403: the login was refused."""


@_register(CONNECTION_ERRORS, 501)
class FrameError(ConnectionClosed):
    """501: the broker could not decode a frame."""


@_register(CONNECTION_ERRORS, 502)
class BadSyntax(ConnectionClosed):
    """502: a field of a frame had an illegal value."""


@_register(CONNECTION_ERRORS, 503)
class CommandInvalid(ConnectionClosed):
    """503: a method that is not allowed in the current state."""


@_register(CONNECTION_ERRORS, 504)
class ChannelNumberError(ConnectionClosed):
    """504: the channel was not open, or was open already."""


@_register(CONNECTION_ERRORS, 505)
class UnexpectedFrame(ConnectionClosed):
    """505: an unexpected frame, usually between the frames of a content."""


@_register(CONNECTION_ERRORS, 506)
class ResourceError(ConnectionClosed):
    """506: the broker lacks the resources."""


@_register(CONNECTION_ERRORS, 530)
class NotAllowed(ConnectionClosed):
    """530: the broker's rules forbid it (virtual host, limits, channel numbers)."""


@_register(CONNECTION_ERRORS, 540)
class NotImplementedByBroker(ConnectionClosed):
    """540: the broker does not implement the method."""


@_register(CONNECTION_ERRORS, 541)
class InternalError(ConnectionClosed):
    """541: something failed within the broker."""


@_register(CHANNEL_ERRORS, 311)
class ContentTooLarge(ChannelClosed):
    """311: the message is larger than the broker accepts."""


@_register(CHANNEL_ERRORS, 313)
class NoConsumers(ChannelClosed):
    """313: an immediate message found no consumer."""


@_register(CHANNEL_ERRORS, 403)
class AccessRefused(ChannelClosed):
    """403: the user lacks the permission, the name is reserved, or another consumer is exclusive."""


@_register(CHANNEL_ERRORS, 404)
class NotFound(ChannelClosed):
    """404: no such exchange or queue."""


@_register(CHANNEL_ERRORS, 405)
class ResourceLocked(ChannelClosed):
    """405: the queue is exclusive to another connection."""


@_register(CHANNEL_ERRORS, 406)
class PreconditionFailed(ChannelClosed):
    """406: declared with other properties, still in use, an unknown delivery tag, or a late acknowledgement."""


class DeliveryTimeoutClosed(PreconditionFailed, DeliveryTimeout):
    """A delivery timeout for which the broker closed the channel with 406 (RabbitMQ up to 4.2)."""

    def __str__(self) -> str:
        return f"{super().__str__()}: {self.advice}"


def connection_closed(reply_code: int, reply_text: str, class_id: int, method_id: int) -> ConnectionClosed:
    """Return the error for a connection.close that the broker sent."""
    cls = CONNECTION_ERRORS.get(reply_code, ConnectionClosed)
    return cls(reply_code, reply_text, class_id, method_id)


def channel_closed(reply_code: int, reply_text: str, class_id: int, method_id: int) -> ChannelClosed:
    """Return the error for a channel.close that the broker sent."""
    cls = CHANNEL_ERRORS.get(reply_code, ChannelClosed)
    if cls is PreconditionFailed and "delivery acknowledgement" in reply_text and "timed out" in reply_text:
        cls = DeliveryTimeoutClosed
    return cls(reply_code, reply_text, class_id, method_id)
