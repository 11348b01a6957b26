"""What a channel published and settled since its last commit (section 1.9, RabbitMQ's docs/semantics)."""

import enum
from collections.abc import Callable
from typing import Protocol

from rabbitry.broker.message import Entry
from rabbitry.broker.queues import Queue


class Outcome(enum.Enum):
    """The outcome of a delivery."""

    ACKED = enum.auto()
    REQUEUED = enum.auto()
    RETURNED = enum.auto()
    """Put back as nobody can settle it any more: the channel is gone."""
    REJECTED = enum.auto()


class Holder(Protocol):
    """The consumer that has a delivery."""

    @property
    def tag(self) -> str:
        """Its tag."""

    unsettled: int
    """The number of its deliveries that are not settled."""


Held = tuple[Queue, Holder | None, Entry]
"""A delivery that is not settled: where it came from, and the consumer that has it (None for basic.get)."""


class Transaction:
    """What waits for a commit. Publishes were checked when they came, and settled tags are no longer open."""

    def __init__(self) -> None:
        self.publishes: list[Callable[[], None]] = []
        self.settled: list[tuple[int, Held, Outcome]] = []

    def take(self) -> tuple[list[Callable[[], None]], list[tuple[int, Held, Outcome]]]:
        """Return the publishes and settlements, and begin the next transaction."""
        taken = self.publishes, self.settled
        self.publishes, self.settled = [], []
        return taken
