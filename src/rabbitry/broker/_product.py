"""The broker's product information for clients."""

from __future__ import annotations

import platform
from typing import Final

from rabbitry._version import __version__
from rabbitry.amqp.protocol.tables import Table

PLATFORM: Final = f"Rabbitry {__version__} on Python {platform.python_version()}"


def node_name() -> str:
    """Return the broker's name where RabbitMQ has a node's name."""
    return f"rabbitry@{platform.node()}"


def server_properties(cluster_name: str, version: str) -> Table:
    """Return the properties for connection.start.

    Clients decide by product and version, so these are those of the RabbitMQ that this broker behaves like.

    Args:
        cluster_name: The broker's name for clients.
        version: The version of that RabbitMQ.
    """
    return {
        "capabilities": {
            "publisher_confirms": True,
            "exchange_exchange_bindings": True,
            "basic.nack": True,
            "consumer_cancel_notify": True,
            "connection.blocked": True,
            "consumer_priorities": True,
            "authentication_failure_close": True,
            "per_consumer_qos": True,
            "direct_reply_to": True,
        },
        "cluster_name": cluster_name,
        "copyright": "Apache-2.0",
        "information": f"Rabbitry {__version__}, an embedded broker; not RabbitMQ",
        "platform": PLATFORM,
        "product": "RabbitMQ",
        "version": version,
    }
