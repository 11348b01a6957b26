"""The context managers of `delivery.process()`, which settle a message at the end of a block."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self, TypeAlias

Requeue: TypeAlias = bool | type[Exception] | tuple[type[Exception], ...]
"""Whether a message is requeued when its block raises; exception classes requeue it for these exceptions alone."""


class _Settled(Protocol):
    """The part of `Delivery` and `BlockingDelivery` that a block needs."""

    @property
    def redelivered(self) -> bool: ...

    @property
    def is_open(self) -> bool: ...

    def ack(self) -> None: ...

    def reject(self, *, requeue: bool = True) -> None: ...


class _Settling:
    """The block of one delivery. Made by `Delivery.process` and `BlockingDelivery.process`."""

    def __init__(self, delivery: _Settled, requeue: Requeue, *, requeue_once: bool) -> None:
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


class Processing(_Settling):
    """The block of one delivery, for `async with`."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.settle(error)


class BlockingProcessing(_Settling):
    """The block of one delivery, for `with`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.settle(error)
