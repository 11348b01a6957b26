"""A broker on `localhost` is on both address families."""

import asyncio
import socket

import rabbitry
from rabbitry.broker import Broker, BrokerConfig


def _loopbacks() -> list[str]:
    """Return the addresses of `localhost`: a machine may have no IPv6."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return ["127.0.0.1"]
    return ["127.0.0.1", "::1"]


async def test_a_broker_on_localhost_answers_on_both_families() -> None:
    async with Broker(BrokerConfig(host="localhost", port=0, management_port=0)) as broker:
        for host in (*_loopbacks(), "localhost"):
            name = f"[{host}]" if ":" in host else host
            async with rabbitry.connect(f"amqp://guest:guest@{name}:{broker.port}/") as connection:
                await connection.channel()
        for host in _loopbacks():
            reader, writer = await asyncio.open_connection(host, broker.management_port)
            writer.write(b"GET /api/overview HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert (await reader.read()).startswith(b"HTTP/1.1 401")
            writer.close()
