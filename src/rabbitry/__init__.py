"""Rabbitry: Python work and measurements across machines over RabbitMQ, seen live.

Where to begin:

- `connect` returns a `Connection` to RabbitMQ or another AMQP 0-9-1 broker, for programs with asyncio; its `Channel`
  publishes, consumes and declares. `connect_blocking` is the same for programs without an event loop, from any thread.
- `App` makes plain functions the stages of a distributed application, with retries, dead letters, joins and calls.
- All errors are `RabbitryError`.
- The command `rabbitry` starts a broker, workers and the dashboard: `rabbitry --help`. `rabbitry.testing` has a broker
  and a harness for tests.

    async with rabbitry.connect("amqp://localhost") as connection:
        channel = await connection.channel(prefetch=10)
        await channel.declare_queue("tasks", durable=True)
        await channel.publish(b"work", routing_key="tasks")  # returns when the broker has confirmed it
        async with channel.consume("tasks") as deliveries:
            async for delivery in deliveries:
                print(delivery.body)
                delivery.ack()

The names are imported when first used, so that `import rabbitry` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rabbitry._version import __version__ as __version__
    from rabbitry.amqp.client import (
        BlockingChannel,
        BlockingConnection,
        BlockingConsumer,
        BlockingConsumers,
        BlockingDelivery,
        BlockingReceipt,
        BlockingTransaction,
        BrokerURL,
        Channel,
        Connection,
        Consumer,
        Consumers,
        Delivery,
        Properties,
        QueueInfo,
        Receipt,
        RecoveryEvent,
        Transaction,
        connect,
        connect_blocking,
    )
    from rabbitry.exceptions import (
        AlreadySettled,
        ChannelClosed,
        ConnectFailed,
        ConnectionClosed,
        ConsumerCancelled,
        DeliveryTimeout,
        LoginRefused,
        ProtocolViolation,
        PublishError,
        PublishRefused,
        PublishReturned,
        PublishTimeout,
        RabbitryError,
        RequestTimeout,
        UsageError,
        UsedAfterFork,
        VirtualHostRefused,
    )
    from rabbitry.flow import App, Batch, Context, Depends, Key, Message, Outgoing, Tick
    from rabbitry.flow.exceptions import (
        AppError,
        CallCancelled,
        CallFailed,
        CallTimeout,
        DependencyFailed,
        Reject,
        Retry,
        StoreError,
        TopologyMismatch,
    )

__all__ = [
    "AlreadySettled",
    "App",
    "AppError",
    "Batch",
    "BlockingChannel",
    "BlockingConnection",
    "BlockingConsumer",
    "BlockingConsumers",
    "BlockingDelivery",
    "BlockingReceipt",
    "BlockingTransaction",
    "BrokerURL",
    "CallCancelled",
    "CallFailed",
    "CallTimeout",
    "Channel",
    "ChannelClosed",
    "ConnectFailed",
    "Connection",
    "ConnectionClosed",
    "Consumer",
    "ConsumerCancelled",
    "Consumers",
    "Context",
    "Delivery",
    "DeliveryTimeout",
    "DependencyFailed",
    "Depends",
    "Key",
    "LoginRefused",
    "Message",
    "Outgoing",
    "Properties",
    "ProtocolViolation",
    "PublishError",
    "PublishRefused",
    "PublishReturned",
    "PublishTimeout",
    "QueueInfo",
    "RabbitryError",
    "Receipt",
    "RecoveryEvent",
    "Reject",
    "RequestTimeout",
    "Retry",
    "StoreError",
    "Tick",
    "TopologyMismatch",
    "Transaction",
    "UsageError",
    "UsedAfterFork",
    "VirtualHostRefused",
    "connect",
    "connect_blocking",
]

_ELSEWHERE: Final = {
    "__version__": "rabbitry._version",
    **dict.fromkeys(
        (
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
            "Delivery",
            "Properties",
            "QueueInfo",
            "Receipt",
            "RecoveryEvent",
            "Transaction",
            "connect",
            "connect_blocking",
        ),
        "rabbitry.amqp.client",
    ),
    **dict.fromkeys(
        (
            "AppError",
            "CallCancelled",
            "CallFailed",
            "CallTimeout",
            "DependencyFailed",
            "Reject",
            "Retry",
            "StoreError",
            "TopologyMismatch",
        ),
        "rabbitry.flow.exceptions",
    ),
    **dict.fromkeys(("App", "Batch", "Context", "Depends", "Key", "Message", "Outgoing", "Tick"), "rabbitry.flow"),
}


if not TYPE_CHECKING:  # type checkers would accept any name: the imports above tell them which there are

    def __getattr__(name: str) -> object:
        if name not in __all__ and name != "__version__":
            raise AttributeError(f"module 'rabbitry' has no attribute {name!r}")
        value: object = getattr(importlib.import_module(_ELSEWHERE.get(name, "rabbitry.exceptions")), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
