"""Class confirm: select (RabbitMQ's docs/confirms)."""

from warren.amqp.protocol.methods import ConfirmSelect, ConfirmSelectOk
from warren.broker.channel import Channel


def select(channel: Channel, method: ConfirmSelect) -> ConfirmSelectOk | None:
    """Confirm what is published from now on."""
    channel.confirming = True
    return None if method.nowait else ConfirmSelectOk()
