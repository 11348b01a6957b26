"""The errors of Rabbitry, one tree.

RabbitryError
├── UsageError                    the caller did what makes no sense
│   └── AlreadySettled            a delivery was acked, nacked or rejected before, or its channel is gone
├── ProtocolViolation             the peer broke the protocol
├── ConnectFailed                 no connection came about: nobody answered, or not with AMQP
│   ├── LoginRefused              the broker refused user, password or mechanism
│   └── VirtualHostRefused        the virtual host is missing or not for this user
├── Closed                        carries reply code, text, class and method
│   ├── ConnectionClosed          … a class for each reply code, see CONNECTION_ERRORS
│   │   └── UsedAfterFork         a connection of the parent process
│   └── ChannelClosed             … a class for each reply code, see CHANNEL_ERRORS
├── ConsumerCancelled             the broker cancelled a consumer
├── DeliveryTimeout               a delivery was not settled in the broker's time
│   ├── DeliveryTimeoutClosed     … told as a ChannelClosed (406)
│   └── DeliveryTimeoutCancelled  … told as a ConsumerCancelled
├── RequestTimeout                an answer did not come in time
├── PublishError
│   ├── PublishRefused            the broker said nack
│   ├── PublishReturned           no queue took a mandatory message
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
        # Copies and other processes: Exception's own way would call the class with the text alone.
        return _restore, (type(self), self.args, vars(self))


def _restore(cls: type[RabbitryError], args: tuple[object, ...], attributes: dict[str, object]) -> RabbitryError:
    error = cls.__new__(cls, *args)
    vars(error).update(attributes)
    return error


class UsageError(RabbitryError):
    """The caller did what makes no sense here; nothing was sent."""


class AlreadySettled(UsageError):
    """A delivery can't be settled: it was before, or the channel that brought it is gone."""


class ProtocolViolation(RabbitryError):
    """The peer broke the protocol.

    `reply_code` and `reply_text` are what a Close tells it (AMQP 0-9-1, section 1.2), `class_id` and
    `method_id` name the method at fault, or are 0.
    """

    def __init__(self, reply_code: int, reply_text: str, class_id: int = 0, method_id: int = 0) -> None:
        super().__init__(f"{reply_code} {reply_text}")
        self.reply_code = reply_code
        self.reply_text = reply_text
        self.class_id = class_id
        self.method_id = method_id


class ConnectFailed(RabbitryError):
    """No connection came about; the text names the host and the cause."""


class LoginRefused(ConnectFailed):
    """The broker refused user, password or mechanism. Trying again won't help."""


class VirtualHostRefused(ConnectFailed):
    """The virtual host does not exist, or is not for this user. Trying again won't help."""


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
        """Return a copy with the same cause, to be raised: each raise of one exception adds frames to its traceback."""
        error = type(self)(self.reply_code, self.reply_text, self.class_id, self.method_id)
        error.__cause__ = self.__cause__
        return error


class ConnectionClosed(Closed):
    """The connection is closed, and all its channels with it."""

    what = "connection closed"


class ChannelClosed(Closed):
    """The channel is closed; its connection and the other channels are not touched."""

    what = "channel closed"


class UsedAfterFork(ConnectionClosed):
    """A connection of the parent process, in a child that fork made. The child opens one of its own."""

    @classmethod
    def here(cls, parent: int) -> Self:
        """Make the error for this process, whose parent has the connection."""
        return cls(
            0,
            f"this connection belongs to process {parent}; a child that fork made can't use it: "
            "open a connection after the fork",
        )


class ConsumerCancelled(RabbitryError):
    """The broker cancelled a consumer, as it does when its queue is deleted or its node goes down."""

    def __init__(self, consumer_tag: str, queue: str) -> None:
        super().__init__(f"the broker cancelled consumer {consumer_tag!r} of queue {queue!r}")
        self.consumer_tag = consumer_tag
        self.queue = queue


class DeliveryTimeout(RabbitryError):
    """A delivery was not settled within the broker's time (RabbitMQ's consumer_timeout, 30 minutes by default).

    It comes again. Ack earlier, work in smaller pieces, or raise the time: `consumer_timeout` in rabbitmq.conf,
    or the queue argument x-consumer-timeout (RabbitMQ's docs/consumers, delivery acknowledgement timeout).
    """

    advice: ClassVar[str] = (
        "a delivery was not settled in the broker's time (30 minutes by default) and comes again: ack earlier, "
        "lower the prefetch, or raise consumer_timeout on the broker"
    )


class DeliveryTimeoutCancelled(ConsumerCancelled, DeliveryTimeout):
    """A delivery timeout, told by a cancel, as RabbitMQ does from 4.3 on."""

    def __str__(self) -> str:
        return f"{super().__str__()}: {self.advice}"


class RequestTimeout(RabbitryError, TimeoutError):
    """An answer of the broker did not come in time."""


class PublishError(RabbitryError):
    """A message was not confirmed."""


class PublishRefused(PublishError):
    """The broker said nack: it could not take responsibility for the message (a full queue, a failure)."""


class PublishReturned(PublishError):
    """No queue took a mandatory message, so the broker returned it.

    `reply_code` is 312 (NO_ROUTE) as a rule.
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
    """Not confirmed in time. The outcome is unknown: the message may be on the broker, or come there yet."""


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
    """320: an operator, or the broker on its way down, closed the connection."""


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
    """503: a method that makes no sense in this order."""


@_register(CONNECTION_ERRORS, 504)
class ChannelNumberError(ConnectionClosed):
    """504: a channel that was not, or was already, open."""


@_register(CONNECTION_ERRORS, 505)
class UnexpectedFrame(ConnectionClosed):
    """505: a frame that was not expected there, mostly within a content."""


@_register(CONNECTION_ERRORS, 506)
class ResourceError(ConnectionClosed):
    """506: the broker lacks the resources."""


@_register(CONNECTION_ERRORS, 530)
class NotAllowed(ConnectionClosed):
    """530: the broker's rules forbid it (virtual host, limits, channel numbers)."""


@_register(CONNECTION_ERRORS, 540)
class NotImplementedByBroker(ConnectionClosed):
    """540: the broker does not implement what was asked."""


@_register(CONNECTION_ERRORS, 541)
class InternalError(ConnectionClosed):
    """541: something failed within the broker."""


@_register(CHANNEL_ERRORS, 311)
class ContentTooLarge(ChannelClosed):
    """311: the message is larger than the broker takes."""


@_register(CHANNEL_ERRORS, 313)
class NoConsumers(ChannelClosed):
    """313: an immediate message found no consumer."""


@_register(CHANNEL_ERRORS, 403)
class AccessRefused(ChannelClosed):
    """403: this user may not, or the name is reserved, or another consumer is exclusive."""


@_register(CHANNEL_ERRORS, 404)
class NotFound(ChannelClosed):
    """404: no such exchange or queue."""


@_register(CHANNEL_ERRORS, 405)
class ResourceLocked(ChannelClosed):
    """405: an exclusive queue of another connection."""


@_register(CHANNEL_ERRORS, 406)
class PreconditionFailed(ChannelClosed):
    """406: exists with other properties, is in use, an unknown delivery tag, or a late acknowledgement."""


class DeliveryTimeoutClosed(PreconditionFailed, DeliveryTimeout):
    """A delivery timeout, told by closing the channel with 406, as RabbitMQ does up to 4.2."""

    def __str__(self) -> str:
        return f"{super().__str__()}: {self.advice}"


def connection_closed(reply_code: int, reply_text: str, class_id: int, method_id: int) -> ConnectionClosed:
    """Make the error for a connection.close that the broker sent."""
    cls = CONNECTION_ERRORS.get(reply_code, ConnectionClosed)
    return cls(reply_code, reply_text, class_id, method_id)


def channel_closed(reply_code: int, reply_text: str, class_id: int, method_id: int) -> ChannelClosed:
    """Make the error for a channel.close that the broker sent."""
    cls = CHANNEL_ERRORS.get(reply_code, ChannelClosed)
    if cls is PreconditionFailed and "delivery acknowledgement" in reply_text and "timed out" in reply_text:
        cls = DeliveryTimeoutClosed
    return cls(reply_code, reply_text, class_id, method_id)
