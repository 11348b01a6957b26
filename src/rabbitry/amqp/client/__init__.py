"""The asyncio client, and its blocking twin.

Modules: `connection` (and `connect`), `channel`, `consuming`, `url` (where to connect), and `blocking`, the same for
programs without an event loop. The names that programs use can all be imported from here.
"""

from __future__ import annotations

from rabbitry.amqp.client.blocking import (
    BlockingChannel,
    BlockingConnection,
    BlockingConsumer,
    BlockingConsumers,
    BlockingDelivery,
    BlockingTransaction,
    connect_blocking,
)
from rabbitry.amqp.client.channel import Channel, QueueInfo, Transaction
from rabbitry.amqp.client.connection import Connection, Credentials, Declare, RecoveryEvent, connect
from rabbitry.amqp.client.consuming import Consumer, Consumers, Delivery
from rabbitry.amqp.client.url import DEFAULT_URL, BrokerURL, parse_url
from rabbitry.amqp.protocol.properties import Properties

__all__ = [
    "DEFAULT_URL",
    "BlockingChannel",
    "BlockingConnection",
    "BlockingConsumer",
    "BlockingConsumers",
    "BlockingDelivery",
    "BlockingTransaction",
    "BrokerURL",
    "Channel",
    "Connection",
    "Consumer",
    "Consumers",
    "Credentials",
    "Declare",
    "Delivery",
    "Properties",
    "QueueInfo",
    "RecoveryEvent",
    "Transaction",
    "connect",
    "connect_blocking",
    "parse_url",
]
