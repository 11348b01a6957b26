"""The asyncio client: connection, channel, publishing, consuming."""

from warren.amqp.client.blocking import BlockingConnection, connect_blocking
from warren.amqp.client.channel import Channel
from warren.amqp.client.connection import Connection, connect
from warren.amqp.client.consuming import Consumer, Delivery
from warren.amqp.client.declaring import QueueInfo
from warren.amqp.client.url import DEFAULT_URL, BrokerURL, parse_url
from warren.amqp.protocol.properties import Properties

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
