"""Declaring a queue that another program may hold."""

from __future__ import annotations

import logging

from rabbitry.amqp.client import Connection
from rabbitry.exceptions import ResourceLocked

log = logging.getLogger("rabbitry.apps")


async def exclusive_queue(connection: Connection, name: str) -> str:
    """Declare an exclusive queue and return its name: one of the broker's where `name` can't be had (405).

    That is said as a warning.

    Raises:
        AccessRefused: this user may not declare it.
    """
    channel = await connection.channel()
    try:
        queue = await channel.declare_queue(name, exclusive=True)
    except ResourceLocked:
        log.warning(
            "queue '%s' can't be had for this connection alone, since another one holds it or declared it "
            "otherwise; a queue named by the broker serves instead",
            name,
        )
        await channel.open()
        queue = await channel.declare_queue("", exclusive=True)
    await channel.close()
    return queue.name
