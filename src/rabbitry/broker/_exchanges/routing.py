"""Routing: from an exchange, over the exchanges bound to it, to queues."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import TypeVar

from rabbitry.amqp.protocol.properties import Properties
from rabbitry.broker._exchanges.exchange import Exchange
from rabbitry.broker._queues import Queue

T = TypeVar("T")
Routed = tuple[list[Queue], bool]
"""A message's queues, each once, and whether its properties influenced the route."""


def routing(
    exchanges: Mapping[str, Exchange], exchange: Exchange, routing_keys: Sequence[str], properties: Properties
) -> Generator[None, None, Routed]:
    """Route a message with a step for each of its routing keys: CC may have thousands of them.

    Each exchange is visited once. An exchange with an alternate exchange passes on messages that it can't route
    (RabbitMQ's docs/ae).

    Args:
        exchanges: The exchanges of the virtual host, by name, for alternate ones.
        exchange: The exchange that the message was published to.
        routing_keys: Its routing key, and those of CC and BCC.
        properties: Its properties.
    """
    unique = list(dict.fromkeys(routing_keys))
    queues: dict[int, Queue] = {}
    seen = {id(exchange)}
    waiting = [exchange]
    by_properties = False
    while waiting:
        current = waiting.pop()
        by_properties = by_properties or current.routes_by_properties
        is_routed = False
        for key in unique[:1] if current.ignores_copies else unique:
            for target in current.match(key, properties):
                is_routed = True
                if isinstance(target, Queue):
                    queues[id(target)] = target
                elif id(target) not in seen:
                    seen.add(id(target))
                    waiting.append(target)
            yield
        name = current.alternate if not is_routed else None
        other = exchanges.get(name) if name is not None else None
        if other is not None and id(other) not in seen:
            seen.add(id(other))
            waiting.append(other)
    return list(queues.values()), by_properties


def in_one_step(steps: Generator[None, None, T]) -> T:
    """Return the result of steps that are taken at once."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result
