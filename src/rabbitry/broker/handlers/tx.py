"""Class tx: select, commit, rollback (section 1.9)."""

import functools

from rabbitry.amqp.protocol.methods import TxCommit, TxCommitOk, TxRollback, TxRollbackOk, TxSelect, TxSelectOk
from rabbitry.broker.channel import Channel
from rabbitry.broker.errors import precondition_failed
from rabbitry.broker.transaction import Transaction


def select(channel: Channel, method: TxSelect) -> TxSelectOk:
    """Put the channel into transactions."""
    if channel.confirming:
        raise precondition_failed("cannot switch from confirm to tx mode")
    if channel.transaction is None:
        channel.transaction = Transaction()
    return TxSelectOk()


def commit(channel: Channel, method: TxCommit) -> None:
    """Carry out the publishes and acks of the transaction. Commit-ok is sent once the store has them."""
    _transaction(channel).commit(
        channel, functools.partial(channel.connection.wait_for_commit, channel.number, TxCommitOk())
    )


def rollback(channel: Channel, method: TxRollback) -> TxRollbackOk:
    """Forget what waited since the last commit."""
    _transaction(channel).roll_back(channel)
    return TxRollbackOk()


def _transaction(channel: Channel) -> Transaction:
    if channel.transaction is None:
        raise precondition_failed("channel is not transactional")
    return channel.transaction
