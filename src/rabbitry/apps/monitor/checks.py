"""The checks of `rabbitry doctor` for host monitoring: the exchanges, the page's queue, and whether samples come."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final

from rabbitry.apps import Checks, Finding
from rabbitry.apps.monitor.names import CONSUMER_QUEUE, SYSTEM_INFO, UTILIZATION
from rabbitry.exceptions import NotFound, PreconditionFailed, RabbitryError, ResourceLocked

if TYPE_CHECKING:
    from rabbitry.amqp.client import Connection
    from rabbitry.apps.monitor.names import SampleExchange


async def _connected(connection: Connection, seconds: float) -> AsyncIterator[Finding]:
    exists = False
    for exchange in (UTILIZATION, SYSTEM_INFO):
        finding = await _exchange(connection, exchange)
        exists = exists or finding.verdict != "note"
        yield finding
    yield await _page_queue(connection)
    if exists:
        yield await _samples(connection, seconds)


async def _exchange(connection: Connection, exchange: SampleExchange) -> Finding:
    name = f"exchange {exchange.name}"
    try:
        async with await connection.channel() as channel:
            await channel.declare_exchange(exchange.name, exchange.type, passive=True)
    except NotFound:
        return Finding(name, "note", "not there: nobody has published to it or listened", "rabbitry monitor publish")
    except RabbitryError as error:
        return Finding(name, "bad", str(error), "the user needs permissions on it")
    try:
        async with await connection.channel() as channel:
            await channel.declare_exchange(exchange.name, exchange.type, durable=exchange.durable)
    except PreconditionFailed as error:
        if "'type'" in error.reply_text:
            todo = "delete it and let Rabbitry declare it: its messages go to other queues than they should"
            return Finding(name, "bad", f"it is of another type than {exchange.type}: {error.reply_text}", todo)
        todo = (
            "Rabbitry uses it as it is; a program that insists on its own flags is refused, so delete it or change that"
        )
        return Finding(name, "note", f"declared with other flags: {error.reply_text}", todo)
    except RabbitryError as error:
        return Finding(name, "bad", str(error), "the user needs permissions on it")
    return Finding(name, "ok", f"{exchange.type}, {'durable' if exchange.durable else 'not durable'}")


async def _page_queue(connection: Connection) -> Finding:
    try:
        async with await connection.channel() as channel:
            await channel.declare_queue(CONSUMER_QUEUE, passive=True)
    except ResourceLocked:
        return Finding("listener", "ok", f"a page holds the queue {CONSUMER_QUEUE}")
    except NotFound:
        return Finding("listener", "note", f"no page holds the queue {CONSUMER_QUEUE}", "rabbitry web, or rabbitry up")
    except RabbitryError as error:
        return Finding("listener", "bad", str(error), "the user needs permissions on it")
    return Finding("listener", "note", f"the queue {CONSUMER_QUEUE} is there and nobody's own", "another program's")


async def _samples(connection: Connection, seconds: float) -> Finding:
    """Listen on a queue of our own for a while."""
    senders: dict[str, int] = {}
    try:
        async with await connection.channel() as channel:
            await channel.declare_exchange(SYSTEM_INFO.name, SYSTEM_INFO.type, passive=True)
            queue = (await channel.declare_queue(exclusive=True)).name
            await channel.bind_queue(queue, SYSTEM_INFO.name)
            async with channel.consume(queue, no_ack=True) as deliveries:
                try:
                    async with asyncio.timeout(seconds):
                        while max(senders.values(), default=0) < 2:  # a second one shows that they go on coming
                            delivery = await anext(deliveries)
                            senders[delivery.routing_key] = senders.get(delivery.routing_key, 0) + 1
                except TimeoutError:
                    pass  # what came until then is the answer
    except RabbitryError as error:
        return Finding("samples", "bad", str(error), "the user needs permissions to declare and bind a queue")
    if not senders:
        todo = "is an agent running, on this broker and virtual host? rabbitry monitor publish says what it does"
        return Finding("samples", "bad", f"none came to {SYSTEM_INFO.name} in {seconds:g} s", todo)
    return Finding("samples", "ok", f"they come, from {', '.join(repr(key) for key in senders)}")


checks: Final = Checks(connected=_connected)
