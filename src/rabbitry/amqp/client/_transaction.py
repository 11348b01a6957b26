"""Transactions of a channel: publishes and settlements that take effect together or not at all."""

from __future__ import annotations

import contextlib
from types import TracebackType
from typing import Self

from rabbitry.amqp.client._channel_link import ChannelLink
from rabbitry.amqp.client._publishing import Publishing
from rabbitry.amqp.protocol.methods import TxCommit, TxCommitOk, TxRollback, TxRollbackOk, TxSelect, TxSelectOk
from rabbitry.exceptions import ChannelClosed, Closed, ConnectionClosed, RequestTimeout, UsageError


class Transaction:
    """One transaction, an async context manager. Created by `Channel.transaction`, which documents it."""

    def __init__(self, line: ChannelLink, publishing: Publishing) -> None:
        self._line = line
        self._publishing = publishing
        self._epoch: object = None
        """The settlements at the start of the transaction. Each link has its own: a transaction ends with its link."""

    async def __aenter__(self) -> Self:
        publishing = self._publishing
        if publishing.window.confirms:
            raise UsageError("a channel with confirms has no transactions: use connection.channel(confirms=False)")
        if publishing.in_transaction:
            raise UsageError("this channel is in a transaction already: leave its block first")
        publishing.in_transaction = publishing.is_transactional = True
        try:
            await self._line.request(TxSelect(), TxSelectOk)
        except BaseException:
            publishing.in_transaction = False
            raise
        self._epoch = self._line.settlements
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        line = self._line
        try:
            if error is not None:
                with contextlib.suppress(Closed, RequestTimeout):  # closing rolls back too; `error` is the one to raise
                    await line.request(TxRollback(), TxRollbackOk)
            elif line.closed is not None:
                raise line.closed.fresh()
            elif line.settlements is not self._epoch:
                # `tx.select` was sent again on the new connection: publishes since the recovery are rolled back here.
                with contextlib.suppress(ChannelClosed):
                    await line.request(TxRollback(), TxRollbackOk)
                raise ConnectionClosed(0, "the connection was lost within the transaction: none of it took effect")
            else:
                # `request` would send the commit again after a recovery, though the first may have taken effect.
                await line.request_now(TxCommit(), TxCommitOk)
        finally:
            self._publishing.in_transaction = False
