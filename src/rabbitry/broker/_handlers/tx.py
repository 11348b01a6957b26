"""Class tx: select, commit, rollback (section 1.9)."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from operator import itemgetter
from typing import Final

from rabbitry.amqp.protocol.methods import TxCommit, TxCommitOk, TxRollback, TxRollbackOk, TxSelect, TxSelectOk
from rabbitry.broker._channel import Channel
from rabbitry.broker._errors import precondition_failed
from rabbitry.broker._handlers.client import Client
from rabbitry.broker._ordering import in_order
from rabbitry.broker._transaction import Holder, Settled, Transaction
from rabbitry.exceptions import ProtocolViolation

_OVER: Final = object()
_STEP: Final = 200
"""Settlements grouped in one step."""


def select(client: Client, channel: Channel, method: TxSelect) -> TxSelectOk:
    """Put the channel into transactional mode."""
    if channel.confirms is not None:
        raise precondition_failed("cannot switch from confirm to tx mode")
    if channel.transaction is None:
        channel.transaction = Transaction()
    return TxSelectOk()


def commit(client: Client, channel: Channel, method: TxCommit) -> None:
    """Commit the publishes and settlements of the transaction. Commit-ok is sent once the store has them.

    They are one batch for the store, unless they are so many that other clients have turns in between: as on RabbitMQ,
    a crash may then leave a part of them (docs/semantics). A commit that failed in part is refused after that: 406 if
    a queue of a publish was deleted before, in a release that refuses such a commit; 541 if a stream took no message.
    """
    transaction = _transaction(channel)
    if transaction.failure is not None:
        raise transaction.failure

    def committed() -> None:
        if transaction.failure is not None:
            client.carry_out_again(channel.number, method)  # only a handler can refuse
            return
        channel.unpark()
        for consumer in list(channel.consumers.values()):
            if consumer.queue.rules.kind == "stream":
                consumer.queue.dispatch()  # RabbitMQ's channel reads streams itself, and so delivers before it answers
        client.wait_for_commit(channel.number, TxCommitOk())

    client.work(_committing(channel, transaction), committed)


def _committing(channel: Channel, transaction: Transaction) -> Iterator[None]:
    """Run the publishes and settlements of a transaction in steps, up to an error that ends the connection."""
    publishes, settled = transaction.take()
    journal = channel.vhost.journal
    is_moving = bool(publishes)
    publishes.reverse()
    while publishes:
        try:
            publishes.pop()()
        except ProtocolViolation as error:
            # A later step has no handler around it: raised there, the error would leave the client without an answer.
            transaction.failure, transaction.settled = error, settled  # closing the channel returns those deliveries
            return
        yield
    settled.reverse()
    while settled:
        outcome = settled[-1][2]
        group: list[Settled] = []
        consumers: set[Holder | None] = set()
        while settled and settled[-1][2] is outcome:
            group.append(settled.pop())
            consumers.add(group[-1][1][1])
            if not len(group) % _STEP:
                yield
        latest_first = _popped_settlements(group)
        if len(consumers) > 1:
            # Each consumer's settlements in the order of their tags (RabbitMQ 3.10).
            latest_first = yield from in_order(group, itemgetter(0), is_reversed=True)
        steps = channel.settling(((tag, held) for tag, held, _ in latest_first), outcome)
        is_over = False
        while not is_over:
            journal.is_moving = is_moving
            try:
                is_over = next(steps, _OVER) is _OVER
            finally:
                journal.is_moving = False
            yield


def _popped_settlements(group: list[Settled]) -> Iterator[Settled]:
    """Remove the last items first, so that they are freed one by one."""
    while group:
        yield group.pop()


def rollback(client: Client, channel: Channel, method: TxRollback) -> None:
    """Drop the publishes and settlements since the last commit."""
    steps = channel.rolling_back(_transaction(channel))
    channel.operate(steps, functools.partial(client.tell, channel.number, TxRollbackOk()))


def _transaction(channel: Channel) -> Transaction:
    if channel.transaction is None:
        raise precondition_failed("channel is not transactional")
    return channel.transaction
