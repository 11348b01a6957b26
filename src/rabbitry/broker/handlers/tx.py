"""Class tx: select, commit, rollback (section 1.9)."""

import itertools
from collections.abc import Callable, Iterator
from typing import Final

from rabbitry.amqp.protocol.methods import TxCommit, TxCommitOk, TxRollback, TxRollbackOk, TxSelect, TxSelectOk
from rabbitry.broker.channel import Channel
from rabbitry.broker.errors import precondition_failed
from rabbitry.broker.handlers.client import Client
from rabbitry.broker.transaction import Held, Outcome, Transaction

_OVER: Final = object()


def select(client: Client, channel: Channel, method: TxSelect) -> TxSelectOk:
    """Put the channel into transactions."""
    if channel.confirms is not None:
        raise precondition_failed("cannot switch from confirm to tx mode")
    if channel.transaction is None:
        channel.transaction = Transaction()
    return TxSelectOk()


def commit(client: Client, channel: Channel, method: TxCommit) -> None:
    """Carry out the publishes and acks of the transaction. Commit-ok is sent once the store has them.

    They are in one batch for the store, except where they are so many that others have their turns in between: as on
    RabbitMQ, a crash may leave a part of them (docs/semantics).
    """

    def committed() -> None:
        channel.unpark()
        client.wait_for_commit(channel.number, TxCommitOk())

    client.work(_committing(channel, *_transaction(channel).take()), committed)


def _committing(
    channel: Channel, publishes: list[Callable[[], None]], settled: list[tuple[int, Held, Outcome]]
) -> Iterator[None]:
    """Carry out the publishes and settlements of a transaction in steps."""
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


def rollback(client: Client, channel: Channel, method: TxRollback) -> TxRollbackOk:
    """Forget what waited since the last commit."""
    channel.roll_back(_transaction(channel))
    return TxRollbackOk()


def _transaction(channel: Channel) -> Transaction:
    if channel.transaction is None:
        raise precondition_failed("channel is not transactional")
    return channel.transaction
