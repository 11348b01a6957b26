"""Class confirm: select (RabbitMQ's docs/confirms)."""

from __future__ import annotations

from rabbitry.amqp.protocol.methods import ConfirmSelect, ConfirmSelectOk
from rabbitry.broker._channel import Channel
from rabbitry.broker._errors import precondition_failed
from rabbitry.broker._handlers.client import Client


def select(client: Client, channel: Channel, method: ConfirmSelect) -> ConfirmSelectOk | None:
    """Enter confirm mode."""
    if channel.transaction is not None:
        raise precondition_failed("cannot switch from tx to confirm mode")
    channel.start_confirming()
    return None if method.nowait else ConfirmSelectOk()
