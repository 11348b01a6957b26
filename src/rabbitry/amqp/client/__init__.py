"""The asyncio client: connection, channel, publishing, consuming."""

from rabbitry.amqp.client._consumers import Consumers
from rabbitry.amqp.client._declaring import QueueInfo
from rabbitry.amqp.client._recovery import RecoveryEvent
from rabbitry.amqp.client._transaction import Transaction
from rabbitry.amqp.client.blocking import (
    BlockingChannel,
    BlockingConnection,
    BlockingConsumer,
    BlockingConsumers,
    BlockingDelivery,
    BlockingTransaction,
    connect_blocking,
)
from rabbitry.amqp.client.channel import Channel
from rabbitry.amqp.client.connection import Connection, Credentials, Declare, connect
from rabbitry.amqp.client.consuming import Consumer, Delivery
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
