"""Settings with everything that a broker can have, and a message that shows whether its store is whole."""

import ssl
from pathlib import Path
from typing import Any

import rabbitry
from rabbitry.amqp.protocol.properties import Properties
from rabbitry.broker import Broker, BrokerConfig


def settings(folder: Path, **more: Any) -> BrokerConfig:
    """Return the settings of a broker with a store, TLS and the management API, on free ports."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    usual: dict[str, Any] = {"port": 0, "tls": tls, "tls_port": 0, "management_port": 0, "data": folder}
    return BrokerConfig(**usual | more)


async def keep_a_message(where: Path | Broker) -> None:
    """Publish a message to the durable queue `kept` of a running broker, or of one on a folder."""
    if isinstance(where, Path):
        async with Broker(BrokerConfig(port=0, data=where)) as broker:
            await keep_a_message(broker)
        return
    async with rabbitry.connect(where.url) as connection, await connection.channel() as channel:
        await channel.declare_queue("kept", durable=True)
        await channel.publish(b"1", routing_key="kept", properties=Properties(delivery_mode=2))


async def is_kept(folder: Path) -> bool:
    """Whether a broker starts on the folder, which the last one must have released, and has the message."""
    async with Broker(BrokerConfig(port=0, data=folder)) as broker:
        return len(broker.vhosts["/"].queues["kept"]) == 1
