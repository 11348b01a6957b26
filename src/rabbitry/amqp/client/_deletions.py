"""Queues and exchanges that the broker has deleted: they are forgotten, so that recovery does not redeclare them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Protocol

from rabbitry.amqp.client._topology import Topology


class Consuming(Protocol):
    """The part of a consumer that the life of its queue depends on."""

    queue: str
    restore: bool
    has_started: bool


class Deletions:
    """Forgets the queues and exchanges of one connection that no longer exist on the broker."""

    def __init__(
        self, topology: Topology, loop: asyncio.AbstractEventLoop, consumers: Callable[[], Iterable[Consuming]]
    ) -> None:
        """consumers: returns the consumers of all channels of the connection."""
        self._topology = topology
        self._loop = loop
        self._consumers = consumers

    def _consumers_of(self, queue: str) -> list[Consuming]:
        """Return the consumers of a queue, by the name that the program uses."""
        known = self._topology.known
        return [consumer for consumer in self._consumers() if known(consumer.queue) == queue]

    def consumer_gone(self, consumer: Consuming) -> None:
        """Forget an auto-delete queue with its last consumer; for one with x-expires, the time without use starts."""
        queue = self._topology.known(consumer.queue)
        self._topology.queue_used(queue, self._loop.time())
        if consumer.has_started and not self._consumers_of(queue):
            self._topology.last_consumer_gone(queue)

    def queue_gone(self, queue: str) -> None:
        """Forget a queue that no longer exists on the broker, unless a consumer here redeclares it."""
        name = self._topology.known(queue)
        if not any(consumer.restore for consumer in self._consumers_of(name)):
            self._topology.queue_deleted(name)

    def not_found(self, reply_text: str) -> None:
        """Forget the queue or exchange named in RabbitMQ's text of a 404."""
        for kind, forget in ("queue", self.queue_gone), ("exchange", self._topology.exchange_deleted):
            before, after = f"NOT_FOUND - no {kind} '", "' in vhost '"
            if reply_text.startswith(before) and after in reply_text:
                forget(reply_text[len(before) : reply_text.rindex(after)])

    def forget_expired(self) -> None:
        """Forget queues whose x-expires has passed."""
        known = self._topology.known
        consumed = {known(consumer.queue) for consumer in self._consumers()}
        self._topology.forget_expired(self._loop.time(), consumed)
