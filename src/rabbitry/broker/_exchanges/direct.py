"""Exchange type direct, where binding key and routing key are equal, and the default exchange, bound to all queues."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rabbitry.amqp.protocol.layouts import NO_ARGUMENTS
from rabbitry.amqp.protocol.properties import Properties
from rabbitry.broker._exchanges.exchange import Binding, Destination, Exchange
from rabbitry.broker._queues import Queue


class DirectExchange(Exchange):
    """Routes by equal keys."""

    type = "direct"
    description = "AMQP direct exchange, as per the AMQP specification"

    def _set_up(self) -> None:
        self._by_key: dict[str, dict[tuple[int, str, bytes], Destination]] = {}

    def match(self, routing_key: str, properties: Properties) -> Iterable[Destination]:
        """Return the destinations bound with exactly this key."""
        return self._by_key.get(routing_key, {}).values()

    def _add(self, binding: Binding) -> None:
        self._by_key.setdefault(binding.routing_key, {})[binding.identity] = binding.destination

    def _remove(self, binding: Binding) -> None:
        bound = self._by_key[binding.routing_key]
        del bound[binding.identity]
        if not bound:
            del self._by_key[binding.routing_key]


class DefaultExchange(DirectExchange):
    """The nameless exchange, which routes to the queue named by the routing key (section 3.1.3.1)."""

    def __init__(self, queues: Mapping[str, Queue]) -> None:
        super().__init__("", arguments=NO_ARGUMENTS)
        self._queues = queues

    def match(self, routing_key: str, properties: Properties) -> Iterable[Destination]:
        """Return the queue of that name."""
        queue = self._queues.get(routing_key)
        return () if queue is None else (queue,)
