"""The asyncio client: connection, channel, publishing, consuming."""

from rabbitry.amqp.client.blocking import BlockingConnection, connect_blocking
from rabbitry.amqp.client.channel import Channel
from rabbitry.amqp.client.connection import Connection, connect
from rabbitry.amqp.client.consuming import Consumer, Delivery
from rabbitry.amqp.client.declaring import QueueInfo
from rabbitry.amqp.client.url import DEFAULT_URL, BrokerURL, parse_url
from rabbitry.amqp.protocol.properties import Properties

__all__ = [
    "DEFAULT_URL",
    "BlockingConnection",
    "BrokerURL",
    "Channel",
    "Connection",
    "Consumer",
    "Delivery",
    "Properties",
    "QueueInfo",
    "connect",
    "connect_blocking",
    "parse_url",
]
