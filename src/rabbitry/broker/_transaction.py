"""What a channel published and settled since its last commit (section 1.9, RabbitMQ's docs/semantics)."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from typing import Final, Protocol

from rabbitry.broker._queues import Queue
from rabbitry.broker.message import Entry


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
Settled = tuple[int, Held, Outcome]
"""A delivery that a transaction settles, with its tag and its outcome."""
_STEP: Final = 200
"""Deliveries noted in one step."""


class Transaction:
    """What waits for a commit. Publishes were checked when they came, and settled tags are no longer open."""

    def __init__(self) -> None:
        self.publishes: list[Callable[[], None]] = []
        self.settled: list[Settled] = []

    def noting(self, settled: dict[int, Held], outcome: Outcome) -> Iterator[None]:
        """Note deliveries as settled, in steps."""
        for number, (tag, held) in enumerate(settled.items(), 1):
            self.settled.append((tag, held, outcome))
            if not number % _STEP:
                yield

    def take(self) -> tuple[list[Callable[[], None]], list[Settled]]:
        """Return the publishes and settlements, and begin the next transaction."""
        taken = self.publishes, self.settled
        self.publishes, self.settled = [], []
        return taken
