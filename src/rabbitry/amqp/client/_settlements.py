"""Deliveries and their settlement, one by one or by the block of `delivery.process()`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, TypeAlias

from rabbitry.amqp.client._owner import check_loop
from rabbitry.amqp.protocol import hot
from rabbitry.amqp.protocol.methods import BasicNack, BasicReject, Method
from rabbitry.amqp.protocol.properties import Properties, decode_header
from rabbitry.amqp.protocol.tables import decode_text
from rabbitry.exceptions import AlreadySettled, Closed, UsageError

Requeue: TypeAlias = bool | type[Exception] | tuple[type[Exception], ...]
"""Whether a message is requeued when its block raises; exception classes requeue it for these exceptions alone."""


class Settlements:
    """The unsettled deliveries of one channel of one link.

    Acks of one event loop iteration are sent together, as one frame if no delivery before them is open.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        channel: int,
        write: Callable[[bytes], None],
        send: Callable[[Method], None],
    ) -> None:
        self.open: dict[int, object] = {}
        """The owner of each unsettled delivery by tag: its consumer, or None for a message from basic.get."""
        self.lost: Closed | None = None
        self._loop = loop
        self._channel = channel
        self._write = write
        self._send = send
        self._acks: list[int] = []

    def ack(self, tag: int, *, multiple: bool) -> None:
        """Acknowledge a delivery, or with `multiple` all up to it."""
        self.check(tag)
        is_first = not self._acks
        if is_first:
            check_loop(self._loop)  # only for the first of an iteration, which schedules the flush of all
        self._close(tag, multiple=multiple)
        if is_first:
            self._loop.call_soon(self.flush)
        self._acks.append(tag)

    def nack(self, tag: int, *, multiple: bool, requeue: bool) -> None:
        """Nack a delivery, or with `multiple` all up to it."""
        self.check(tag)
        check_loop(self._loop)
        self.flush()  # before it is closed, so that no ack with `multiple` covers it
        self._close(tag, multiple=multiple)
        self._send(BasicNack(tag, multiple, requeue))

    def reject(self, tag: int, *, requeue: bool) -> None:
        """Reject one delivery."""
        self.check(tag)
        check_loop(self._loop)
        self.flush()
        self._close(tag, multiple=False)
        self._send(BasicReject(tag, requeue))

    def check(self, tag: int) -> None:
        """Raise AlreadySettled if the delivery can't be settled."""
        if self.lost is not None:
            raise AlreadySettled(f"delivery {tag} belongs to a closed channel ({self.lost}) and will be redelivered")
        if tag not in self.open:
            raise AlreadySettled(f"delivery {tag} is settled already, or was delivered with no_ack")

    def _close(self, tag: int, *, multiple: bool) -> None:
        if multiple:
            for known in [known for known in self.open if known <= tag]:
                del self.open[known]
        else:
            del self.open[tag]

    def flush(self) -> None:
        """Send the gathered acks."""
        acks = self._acks
        if not acks or self.lost is not None:
            return
        # Tags are added in rising order, so the first open one is the smallest. Everything below it was acked now or
        # settled before, so one ack with `multiple` covers it. Later tags are larger.
        first = next(iter(self.open), None)
        below = [tag for tag in acks if first is None or tag < first]
        if below:
            self._write(hot.encode_ack(self._channel, max(below), multiple=True))
        if len(below) < len(acks):
            self._write(b"".join([hot.encode_ack(self._channel, tag, multiple=False) for tag in acks if tag > first]))  # type: ignore[operator] # some are open, so first is a number
        acks.clear()

    def give_back(self, consumer: object) -> None:
        """Requeue all unsettled deliveries of one consumer."""
        for tag in [tag for tag, owner in self.open.items() if owner is consumer]:
            self.nack(tag, multiple=False, requeue=True)


if TYPE_CHECKING:

    class _Settled(Protocol):
        """The part of `Delivery` and `BlockingDelivery` that a block needs."""

        @property
        def redelivered(self) -> bool: ...

        @property
        def is_open(self) -> bool: ...

        def ack(self) -> None: ...

        def reject(self, *, requeue: bool = True) -> None: ...


class Settling:
    """The block of one delivery. Made by `Delivery.process` and `BlockingDelivery.process`."""

    def __init__(self, delivery: _Settled, requeue: Requeue, *, requeue_once: bool) -> None:
        if not isinstance(requeue, bool):
            try:
                isinstance(None, requeue)
            except TypeError:
                raise UsageError(
                    f"requeue={requeue!r}: pass True, False, an exception class or a tuple of them"
                ) from None
        self._delivery = delivery
        self._requeue = requeue
        self._once = requeue_once

    def settle(self, error: BaseException | None) -> None:
        """Acknowledge the delivery, or reject it if the block raised `error`.

        A delivery that the block has settled, or whose channel is closed, is left alone.
        """
        delivery = self._delivery
        if not delivery.is_open:
            return
        if error is None:
            delivery.ack()
        elif not isinstance(error, Exception):
            delivery.reject(requeue=True)  # cancelled or interrupted: nothing is wrong with the message
        else:
            requeue = self._requeue if isinstance(self._requeue, bool) else isinstance(error, self._requeue)
            delivery.reject(requeue=requeue and not (self._once and delivery.redelivered))


class Processing(Settling):
    """The block of one delivery, for `async with`."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.settle(error)


class Delivery:
    """A message from a consumer or from `get`, to be settled once with `ack`, `nack` or `reject`."""

    __slots__ = {  # with the texts that `help` shows
        "_arguments": "",
        "_destination_at": "",
        "_header": "",
        "_properties": "",
        "_settlements": "",
        "body": "The message's body, in bytes.",
        "consumer_tag": "The tag of the consumer that it was delivered to; empty for one from `get`.",
        "delivery_tag": "Its number on the channel.",
        "redelivered": "Whether the broker delivered it before, and it was not acknowledged then.",
    }

    def __init__(
        self,
        settlements: Settlements,
        arguments: bytes,
        destination_at: int,
        delivery_tag: int,
        redelivered: bool,  # noqa: FBT001 - keywords would take 0.2 µs of the 1.3 µs that a delivery takes
        consumer_tag: str,
        header: bytes,
        body: bytes,
    ) -> None:
        self.body: bytes = body
        self.delivery_tag: int = delivery_tag
        self.redelivered: bool = redelivered
        self.consumer_tag: str = consumer_tag
        self._settlements = settlements
        self._arguments = arguments
        self._destination_at = destination_at
        self._header = header
        self._properties: Properties | None = None

    def __repr__(self) -> str:
        return f"<Delivery {self.delivery_tag} from {self.exchange!r} key {self.routing_key!r}, {len(self.body)} bytes>"

    @property
    def properties(self) -> Properties:
        """The message's properties, decoded on first use. Raises ProtocolViolation if they are malformed."""
        if self._properties is None:
            self._properties = decode_header(self._header)
        return self._properties

    @property
    def header(self) -> bytes:
        """The undecoded payload of the content header."""
        return self._header

    @property
    def exchange(self) -> str:
        """The exchange that the message was published to."""
        at = self._destination_at
        return decode_text(self._arguments[at + 1 : at + 1 + self._arguments[at]])

    @property
    def routing_key(self) -> str:
        """The routing key that the message was published with."""
        at = self._destination_at + 1 + self._arguments[self._destination_at]
        return decode_text(self._arguments[at + 1 : at + 1 + self._arguments[at]])

    def ack(self, *, multiple: bool = False) -> None:
        """Acknowledge this delivery; with `multiple`, also all before it on its channel.

        Sent at the end of this event loop iteration. Raises AlreadySettled if it is settled, or if its channel or
        connection is closed (the broker then redelivers it).
        """
        self._settlements.ack(self.delivery_tag, multiple=multiple)

    @property
    def is_lost(self) -> bool:
        """Whether its channel is closed, so that the broker redelivers it."""
        return self._settlements.lost is not None

    @property
    def is_open(self) -> bool:
        """Whether this delivery can be settled: it needs an acknowledgement, has none yet, and its channel is open."""
        return self._settlements.lost is None and self.delivery_tag in self._settlements.open

    def nack(self, *, requeue: bool = True, multiple: bool = False) -> None:
        """Return this delivery to the broker, which requeues it and delivers it again. Raises as `ack` does.

        Args:
            requeue: False has the broker drop or dead-letter it.
            multiple: Whether all unsettled deliveries before it on its channel are returned too.
        """
        self._settlements.nack(self.delivery_tag, multiple=multiple, requeue=requeue)

    def reject(self, *, requeue: bool = True) -> None:
        """Return this one delivery to the broker, which requeues it and delivers it again. Raises as `ack` does.

        Args:
            requeue: False has the broker drop or dead-letter it.
        """
        self._settlements.reject(self.delivery_tag, requeue=requeue)

    def process(self, *, requeue: Requeue = False, requeue_once: bool = False) -> Processing:
        """Acknowledge this delivery at the end of an `async with` block, or reject it if the block raises.

        The exception is passed on. A delivery that the block has settled itself, or whose channel is closed, is left
        alone. Cancelling the block (CancelledError, KeyboardInterrupt) always requeues the message.

        Args:
            requeue: whether a rejected message returns to its queue; exception classes requeue it only for these
                exceptions. A message that is not requeued is dropped, or dead-lettered if its queue is configured so.
            requeue_once: reject a redelivered message without requeuing it.
        """
        return Processing(self, requeue, requeue_once=requeue_once)


def check_open(delivery: Delivery) -> None:
    """Raise AlreadySettled if the delivery can't be settled any more."""
    delivery._settlements.check(delivery.delivery_tag)
