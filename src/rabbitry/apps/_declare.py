"""Declaring what programs that exist already may have declared with other flags."""

from __future__ import annotations

import logging

from rabbitry.amqp.client import Connection
from rabbitry.exceptions import PreconditionFailed, ResourceLocked

log = logging.getLogger("rabbitry.apps")


async def ensure_exchange(connection: Connection, name: str, type_: str, *, durable: bool, strict: bool) -> None:
    """Make sure that an exchange is there; one that exists with another type or flags is used as it is.

    That is said as a warning. It happens on a channel of its own, since the broker closes the channel of a
    declaration that it refuses (AMQP 0-9-1, exchange.declare, rule "equivalent").

    Raises:
        PreconditionFailed: it exists otherwise, and `strict` is set.
        AccessRefused: this user may not declare it.
    """
    channel = await connection.channel()
    try:
        await channel.declare_exchange(name, type_, durable=durable)
    except PreconditionFailed as error:
        if strict:
            raise
        log.warning("exchange '%s' exists otherwise and is used as it is (%s)", name, error.reply_text)
        await channel.open()
        await channel.declare_exchange(name, passive=True)
    await channel.close()


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
