"""Class tx: what a channel published and settled since its last commit (section 1.9, RabbitMQ's docs/semantics)."""

import itertools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rabbitry.broker.channel import Channel, Held, Outcome

_OVER: Final = object()


class Transaction:
    """What waits for a commit. Publishes were checked when they came, and settled tags are no longer open."""

    def __init__(self) -> None:
        self.publishes: list[Callable[[], None]] = []
        self.settled: list[tuple[int, Held, Outcome]] = []

    def commit(self, channel: "Channel", then: Callable[[], None]) -> None:
        """Carry out the transaction in steps, begin the next one, and call back.

        It is in one batch for the store, except where it is so much that others have their turns in between: as on
        RabbitMQ, a crash may leave a part of that (docs/semantics).
        """

        def committed() -> None:
            channel.unpark()
            then()

        publishes, settled = self.publishes, self.settled
        self.publishes, self.settled = [], []
        channel.connection.work(self._committing(channel, publishes, settled), committed)

    def _committing(
        self, channel: "Channel", publishes: list[Callable[[], None]], settled: "list[tuple[int, Held, Outcome]]"
    ) -> Iterator[None]:
        journal = channel.vhost.journal
        is_moving = bool(publishes)
        publishes.reverse()
        while publishes:
            publishes.pop()()
            yield
        for outcome, group in itertools.groupby(settled, key=lambda one: one[2]):
            held = {tag: held for tag, held, _ in group}
            if len({consumer for _, consumer, _ in held.values()}) > 1:
                held = dict(sorted(held.items()))  # each consumer's in the order of their tags (RabbitMQ 3.10)
            steps = channel.settling(held, outcome)
            is_over = False
            while not is_over:
                journal.is_moving = is_moving
                try:
                    is_over = next(steps, _OVER) is _OVER
                finally:
                    journal.is_moving = False
                yield

    def roll_back(self, channel: "Channel") -> None:
        """Forget the publishes; what was settled is open again, under its old tags."""
        self.publishes.clear()
        open_again = {tag: held for tag, held, _ in self.settled}
        self.settled.clear()
        channel.unsettled = dict(sorted({**channel.unsettled, **open_again}.items()))
