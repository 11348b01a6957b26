"""Class tx: what a channel published and settled since its last commit (section 1.9, RabbitMQ's docs/semantics)."""

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rabbitry.broker.channel import Channel, Held, Outcome


class Transaction:
    """What waits for a commit. Publishes were checked when they came, and settled tags are no longer open."""

    def __init__(self) -> None:
        self.publishes: list[Callable[[], None]] = []
        self.settled: list[tuple[int, Held, Outcome]] = []

    def commit(self, channel: "Channel") -> None:
        """Do all of it, in one batch for the store, and begin the next transaction."""
        publishes, settled = self.publishes, self.settled
        self.publishes, self.settled = [], []
        for publish in publishes:
            publish()
        journal = channel.vhost.journal
        journal.is_moving = bool(publishes)
        try:
            for outcome, group in itertools.groupby(settled, key=lambda one: one[2]):
                channel.release_all([(tag, held) for tag, held, _ in group], outcome)
        finally:
            journal.is_moving = False
        channel.unpark()

    def roll_back(self, channel: "Channel") -> None:
        """Forget the publishes; what was settled is open again, under its old tags."""
        self.publishes.clear()
        open_again = {tag: held for tag, held, _ in self.settled}
        self.settled.clear()
        channel.unsettled = dict(sorted({**channel.unsettled, **open_again}.items()))
