"""Transactions of a channel: the publishes and settlements of a block take effect all together or not at all."""

import contextlib
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rabbitry.amqp.protocol.methods import TxCommit, TxCommitOk, TxRollback, TxRollbackOk, TxSelect, TxSelectOk
from rabbitry.exceptions import ChannelClosed, Closed, ConnectionClosed, RequestTimeout, UsageError

if TYPE_CHECKING:
    from rabbitry.amqp.client.channel import Channel


class Transaction:
    """One transaction, an async context manager. Made by `Channel.transaction`, which says what it does and raises."""

    def __init__(self, channel: "Channel") -> None:
        self._channel = channel
        self._epoch: object = None
        """The channel's epoch when the transaction began: a transaction does not outlive its connection."""

    async def __aenter__(self) -> Self:
        channel = self._channel
        if channel.has_confirms:
            raise UsageError("a channel with confirms has no transactions: use connection.channel(confirms=False)")
        if channel.in_transaction:
            raise UsageError("this channel is in a transaction already: leave its block first")
        channel.in_transaction = channel.is_transactional = True
        try:
            await channel.request(TxSelect(), TxSelectOk)
        except BaseException:
            channel.in_transaction = False
            raise
        self._epoch = channel.epoch
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        channel = self._channel
        try:
            if error is not None:
                with contextlib.suppress(Closed, RequestTimeout):  # closing rolls back too; `error` is what is raised
                    await channel.request(TxRollback(), TxRollbackOk)
            elif (reason := channel.close_reason) is not None:
                raise reason.fresh()
            elif channel.epoch is not self._epoch:
                # `tx.select` was sent again on the new connection: publishes since the recovery are rolled back here.
                with contextlib.suppress(ChannelClosed):
                    await channel.request(TxRollback(), TxRollbackOk)
                raise ConnectionClosed(0, "the connection was lost within the transaction: none of it took effect")
            else:
                # `request` would send the commit again after a recovery, though the first may have taken effect.
                await channel.request_now(TxCommit(), TxCommitOk)
        finally:
            channel.in_transaction = False
