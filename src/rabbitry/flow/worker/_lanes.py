"""The lane of a key, where its messages wait in a worker, and the tokens of its rate; see `_keyed`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rabbitry.flow.wiring.rates import read_minted

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable

    from rabbitry.amqp.client import Delivery
    from rabbitry.flow._rate import Rate
    from rabbitry.flow.worker._waiting import Waiting


def due(rate: Rate, until: float, now: float) -> tuple[int, float]:
    """Return how many messages of a key may begin, and the seconds until the next one may.

    Args:
        rate: The rate of the key.
        until: The Unix time up to which its tokens were used; 0 for a key that is new.
        now: The Unix time.
    """
    begun = used_up_to(rate, until, now)
    # The millionth is for rounding: a token that is due now must not be one that is due in no time.
    return max(0, int((now - begun) * rate.per_second + 1e-6)), max(0.0, begun + 1 / rate.per_second - now)


def used_up_to(rate: Rate, until: float, now: float) -> float:
    """Return the moment from which on tokens are left: no more than those of `Rate.burst` are saved up."""
    return max(until, now - rate.burst / rate.per_second)


class Lane:
    """The messages of one key that wait in this worker. key: hashed. slots, tokens: where they wait for these."""

    def __init__(self, key: str, slots: Waiting | None, tokens: Waiting | None) -> None:
        self.key = key
        self.slots = slots
        self.tokens = tokens
        self.serving = 0
        """Tasks that wait for a slot, or hold one."""
        self.running = 0
        """Slots that are held by a message."""
        self.is_metered = False
        """Whether a task waits for the lease of the rate, or holds it."""
        self.places: set[int] = set()
        """The numbers of the slots that the tasks wait for, or hold."""
        self.idle: dict[asyncio.Task[None], Waiting] = {}
        """Tasks that wait for a lease over a channel, with the messages that they want it for."""

    @property
    def is_served(self) -> bool:
        """Whether a task has a lease, or waits for a channel, so that a message may begin soon."""
        return len(self.idle) < self.serving + self.is_metered

    @property
    def waiting(self) -> list[Waiting]:
        """Where messages wait, first to last."""
        return [each for each in (self.slots, self.tokens) if each is not None]


def latest_state(held: Iterable[Delivery]) -> float:
    """Return the latest time of the states of a rate."""
    return max(read_minted(delivery.body).until for delivery in held)
