"""A client's session, whose broker is replaced by mutated recordings."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import rabbitry
from rabbitry.amqp.client import Channel
from rabbitry.exceptions import RabbitryError

_DEADLINE = 60.0


async def session(url: str, timeout: float = 1.0) -> list[RabbitryError]:
    """Use each part of the client once over one connection. Return the documented errors; raise any other.

    timeout: seconds that the broker has for each answer.
    """
    failures: list[RabbitryError] = []

    async def attempt(step: Awaitable[object]) -> None:
        try:
            await step
        except RabbitryError as error:
            failures.append(error)

    async with asyncio.timeout(_DEADLINE):
        try:
            connection = await rabbitry.connect(
                url, recover=False, timeout=timeout, request_timeout=timeout, publish_timeout=timeout
            )
        except RabbitryError as error:
            return [error]
        async with connection:
            try:
                channel = await connection.channel()
            except RabbitryError as error:
                return [error]
            for step in _steps(channel, timeout):
                await attempt(step())
            await attempt(channel.close(timeout=timeout))
    return failures


def _steps(channel: Channel, timeout: float) -> list[Callable[[], Awaitable[object]]]:
    headers = rabbitry.Properties(headers={"a": [1, {"b": None}]}, message_id="m")
    return [
        lambda: channel.declare_queue("fuzz", arguments={"x-max-length": 1000}),
        lambda: channel.declare_exchange("fuzz", "topic"),
        lambda: channel.bind_queue("fuzz", "fuzz", "#"),
        lambda: channel.publish(b"one", exchange="fuzz", routing_key="k", properties=headers),
        lambda: channel.publish(b"two" * 2000, routing_key="fuzz"),
        lambda: _returned(channel),
        lambda: channel.get("fuzz"),
        lambda: _consume(channel, timeout),
        lambda: channel.purge_queue("fuzz"),
        lambda: channel.delete_exchange("fuzz"),
        lambda: channel.delete_queue("fuzz"),
    ]


async def _returned(channel: Channel) -> None:
    with contextlib.suppress(rabbitry.PublishReturned):
        await channel.publish(b"back", routing_key="nowhere", properties=rabbitry.Properties(message_id="m"))


async def _consume(channel: Channel, timeout: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with channel.consume("fuzz", consumer_tag="c") as deliveries, asyncio.timeout(timeout):
            async for delivery in deliveries:
                delivery.ack()
                return
