"""Class channel: flow (section 1.3). The connection handles open and close, and creates and drops channels."""

from __future__ import annotations

from rabbitry.amqp.protocol.methods import AccessRequest, AccessRequestOk, ChannelFlow, ChannelFlowOk
from rabbitry.broker._channel import Channel
from rabbitry.broker._errors import not_implemented
from rabbitry.broker._handlers.client import Client


def access(client: Client, channel: Channel, method: AccessRequest) -> AccessRequestOk:
    """Answer access.request, which AMQP 0-9 clients still send; tickets have no meaning."""
    return AccessRequestOk(1)


def flow(client: Client, channel: Channel, method: ChannelFlow) -> ChannelFlowOk:
    """Answer active=true, and refuse to stop, as RabbitMQ does: deliveries are limited by prefetch."""
    if not method.active:
        raise not_implemented("active=false")
    return ChannelFlowOk(True)
