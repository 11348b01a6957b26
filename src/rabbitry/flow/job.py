"""A delivery on its way through a worker, and what became of it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from rabbitry.flow import hot
from rabbitry.flow.message import Message, metadata

if TYPE_CHECKING:
    from rabbitry.amqp.client import Delivery
    from rabbitry.flow.intake import Intake
    from rabbitry.flow.stage import Stage

Kind: TypeAlias = Literal["done", "rejected", "retry", "failed", "given-back", "abandoned"]


class Product(NamedTuple):
    """A value that a handler returned, encoded; key None goes nowhere."""

    key: str | None
    body: bytes
    content_type: str
    type_name: str


class Result(NamedTuple):
    """The outcome of handling a message. Plain data, since worker processes send it.

    reason: the `x-rabbitry-reason` of the dead letter that this may become. after: seconds, for `retry`. context: the
    trace context that was current when the handler returned, encoded; None where that is the message's.
    """

    kind: Kind
    products: tuple[Product, ...] = ()
    reason: str = ""
    error: str = ""
    trace: str = ""
    after: float | None = None
    context: bytes | None = None


GIVEN_BACK = Result("given-back")
"""It was not begun: the worker stops, or the delivery will come again."""
ABANDONED = Result("abandoned")
"""It was begun, and did not end before the worker had to."""


class Job:
    """A delivery in hand. Made on the I/O thread, read by handlers' threads, settled on the I/O thread."""

    __slots__ = ("attempt", "delivery", "generation", "intake", "received", "seconds", "stage", "trail")

    def __init__(self, intake: Intake, delivery: Delivery) -> None:
        self.intake = intake
        self.stage: Stage = intake.stage
        self.delivery = delivery
        self.generation = intake.generation
        self.trail = hot.read(delivery)
        self.attempt = self.trail.attempt
        self.received = time.monotonic()
        self.seconds = 0.0
        """What the handler took."""

    @property
    def is_suspect(self) -> bool:
        """Whether it came to a worker before and was not settled there."""
        return self.intake.queue != self.stage.queue

    @property
    def is_stale(self) -> bool:
        """Whether the link that brought it is gone, so that it can't be settled and will come again."""
        return self.generation != self.intake.generation

    def message(self) -> Message:
        """Read the metadata."""
        return metadata(self.delivery, self.stage.name, self.stage.queue)
