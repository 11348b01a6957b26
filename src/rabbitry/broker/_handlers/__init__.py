"""Handlers of the methods: one file for each AMQP class."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from rabbitry.amqp.protocol import methods as m
from rabbitry.broker._channel import Channel
from rabbitry.broker._handlers import basic, channel, confirm, exchange, queue, tx
from rabbitry.broker._handlers.client import Client

# Each function takes its own method's type; the key guarantees it.
HANDLERS: Final[dict[type, Callable[[Client, Channel, Any], m.Method | None]]] = {
    m.AccessRequest: channel.access,
    m.ChannelFlow: channel.flow,
    m.ExchangeDeclare: exchange.declare,
    m.ExchangeDelete: exchange.delete,
    m.ExchangeBind: exchange.bind,
    m.ExchangeUnbind: exchange.unbind,
    m.QueueDeclare: queue.declare,
    m.QueueBind: queue.bind,
    m.QueueUnbind: queue.unbind,
    m.QueuePurge: queue.purge,
    m.QueueDelete: queue.delete,
    m.BasicQos: basic.qos,
    m.BasicConsume: basic.consume,
    m.BasicCancel: basic.cancel,
    m.BasicGet: basic.get,
    m.BasicNack: basic.nack,
    m.BasicReject: basic.reject,
    m.BasicRecover: basic.recover,
    m.BasicRecoverAsync: basic.recover_async,
    m.ConfirmSelect: confirm.select,
    m.TxSelect: tx.select,
    m.TxCommit: tx.commit,
    m.TxRollback: tx.rollback,
}
"""Method → its handler, which returns the answer to send (None for none)."""
