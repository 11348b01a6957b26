"""The block of `delivery.process()`: the message is settled where the block is left."""

from types import TracebackType
from typing import Protocol, Self, TypeAlias

Requeue: TypeAlias = bool | type[Exception] | tuple[type[Exception], ...]
"""Whether a message whose block has failed goes back to its queue; exception classes: where it failed with one."""


class _Settled(Protocol):
    """What a block needs of its delivery."""

    @property
    def redelivered(self) -> bool: ...

    @property
    def is_open(self) -> bool: ...

    def ack(self) -> None: ...

    def reject(self, *, requeue: bool = True) -> None: ...


class Processing:
    """The block of one delivery. Made by `Delivery.process` and `BlockingDelivery.process`."""

    def __init__(self, delivery: _Settled, requeue: Requeue, requeue_once: bool) -> None:
        self._delivery = delivery
        self._requeue = requeue
        self._once = requeue_once

    def settle(self, error: BaseException | None) -> None:
        """Ack, or reject by the rule; leave what the block itself has settled, or can't be settled any more."""
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


class AsyncProcessing(Processing):
    """The block of one delivery, for `async with`."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.settle(error)


class BlockingProcessing(Processing):
    """The block of one delivery, for `with`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.settle(error)
