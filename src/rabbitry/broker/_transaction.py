"""The publishes and settlements of a channel since its last commit (section 1.9, RabbitMQ's docs/semantics)."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping
from typing import Final, Protocol

from rabbitry.broker._errors import Refusal
from rabbitry.broker._queues import Queue
from rabbitry.broker.message import Entry
from rabbitry.exceptions import ProtocolViolation


class Outcome(enum.Enum):
    """The outcome of a delivery."""

    ACKED = enum.auto()
    REQUEUED = enum.auto()
    RETURNED = enum.auto()
    """Requeued because nobody can settle it any more: the channel is closed."""
    REJECTED = enum.auto()


class Holder(Protocol):
    """The consumer of a delivery."""

    @property
    def tag(self) -> str:
        """Its tag."""

    @property
    def number(self) -> int:
        """Its place in the order of all subscriptions."""

    unsettled: int
    """Number of its unsettled deliveries."""


Held = tuple[Queue, Holder | None, Entry]
"""An unsettled delivery: its queue and its consumer (None for basic.get)."""
Settled = tuple[int, Held, Outcome]
"""A delivery that a transaction settles, with its tag and outcome."""
_STEP: Final = 200
"""Deliveries recorded in one step."""


class Transaction:
    """Publishes and settlements that wait for a commit. Publishes are checked on arrival; settled tags are closed."""

    def __init__(self) -> None:
        self.publishes: list[Callable[[], None]] = []
        self.settled: list[Settled] = []
        self.failure: Refusal | ProtocolViolation | None = None
        """The error of a publish that could not be carried out, with which the commit is refused."""

    def noting(self, settled: dict[int, Held], outcome: Outcome) -> Iterator[None]:
        """Record deliveries as settled, in steps."""
        for number, (tag, held) in enumerate(settled.items(), 1):
            self.settled.append((tag, held, outcome))
            if not number % _STEP:
                yield

    def take(self) -> tuple[list[Callable[[], None]], list[Settled]]:
        """Return the publishes and settlements, and start the next transaction."""
        taken = self.publishes, self.settled
        self.publishes, self.settled = [], []
        return taken


def check_returns(unsettled: Mapping[int, Held], tag: int) -> None:
    """Raise Refusal if a queue can't take back one of the deliveries up to a tag (0: all).

    The caller takes none of them before: those of other queues return to these when the channel ends.
    """
    queues = dict.fromkeys(queue for known, (queue, _, _) in unsettled.items() if not tag or known <= tag)
    for queue in queues:
        queue.check_return()


def popped(held: dict[int, Held]) -> Iterator[tuple[int, Held]]:
    """Remove deliveries from a dictionary, latest first, so that they are freed one by one."""
    while held:
        yield held.popitem()
