"""Transactions: what a channel publishes and settles in a block takes effect together, or not at all (class tx)."""

import contextlib
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rabbitry.amqp.protocol.methods import TxCommit, TxCommitOk, TxRollback, TxRollbackOk, TxSelect, TxSelectOk
from rabbitry.exceptions import ChannelClosed, Closed, ConnectionClosed, RequestTimeout, UsageError

if TYPE_CHECKING:
    from rabbitry.amqp.client.channel import Channel


class Transaction:
    """The block of one transaction. Made by `Channel.transaction`; see there."""

    def __init__(self, channel: "Channel") -> None:
        self._channel = channel
        self._epoch: object = None
        """The channel's settlements, which are new with each link: a transaction does not outlive its link."""

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
                with contextlib.suppress(Closed, RequestTimeout):  # the error is what counts; its end is a rollback too
                    await channel.request(TxRollback(), TxRollbackOk)
            elif (reason := channel.close_reason) is not None:
                raise reason.fresh()
            elif channel.epoch is not self._epoch:
                # The channel is transactional on the new link too, so what came after the loss is undone here.
                with contextlib.suppress(ChannelClosed):
                    await channel.request(TxRollback(), TxRollbackOk)
                raise ConnectionClosed(0, "the connection was lost within the transaction: nothing of it took effect")
            else:
                # Never twice: over a lost connection the outcome of the first is unknown.
                await channel.request_now(TxCommit(), TxCommitOk)
        finally:
            channel.in_transaction = False
