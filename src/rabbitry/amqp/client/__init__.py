"""The asyncio client and its blocking twin.

Modules: `connection` (and `connect`), `channel`, `consuming`, `url` (broker URLs), and `blocking`, the same API for
programs without an event loop. All public names can be imported from here.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from rabbitry.amqp.client._settlements import Delivery
from rabbitry.amqp.client.channel import Channel, QueueInfo, Receipt
from rabbitry.amqp.client.connection import Connection, Credentials, Declare, RecoveryEvent, connect
from rabbitry.amqp.client.url import DEFAULT_URL, BrokerURL, parse_url
from rabbitry.amqp.protocol.properties import Properties

if TYPE_CHECKING:
    from rabbitry.amqp.client._transaction import Transaction
    from rabbitry.amqp.client.blocking import (
        BlockingChannel,
        BlockingConnection,
        BlockingConsumer,
        BlockingConsumers,
        BlockingDelivery,
        BlockingReceipt,
        BlockingTransaction,
        connect_blocking,
    )
    from rabbitry.amqp.client.consuming import Consumer, Consumers

__all__ = [
    "DEFAULT_URL",
    "BlockingChannel",
    "BlockingConnection",
    "BlockingConsumer",
    "BlockingConsumers",
    "BlockingDelivery",
    "BlockingReceipt",
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
    "Receipt",
    "RecoveryEvent",
    "Transaction",
    "connect",
    "connect_blocking",
    "parse_url",
]


if not TYPE_CHECKING:  # otherwise type checkers would accept any name, not only those imported above

    def __getattr__(name: str) -> object:
        # Not every program consumes, few have transactions, and those with an event loop don't need the blocking
        # client, which takes a tenth of the import time.
        if name not in __all__:
            raise AttributeError(f"module 'rabbitry.amqp.client' has no attribute {name!r}")
        owner = {"Consumer": "consuming", "Consumers": "consuming", "Transaction": "_transaction"}.get(name, "blocking")
        value: object = getattr(importlib.import_module(f"rabbitry.amqp.client.{owner}"), name)
        globals()[name] = value
        return value
