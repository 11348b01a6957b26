"""Exchange type x-local-random: each message goes to one of the bound queues, chosen at random.

RabbitMQ chooses among the queues of the node that got the message (docs/local-random-exchange); here there is one node.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

from rabbitry.amqp.protocol.properties import Properties
from rabbitry.amqp.protocol.tables import Table
from rabbitry.broker._errors import precondition_failed
from rabbitry.broker._exchanges.exchange import Binding, Destination, Exchange
from rabbitry.broker._queues.arguments import Kind
from rabbitry.broker.compat import Release


class LocalRandomExchange(Exchange):
    """Routes each message to one destination, chosen at random; one that is bound twice is chosen twice as often."""

    type = "x-local-random"
    description = "Picks one random local binding (queue) to route via (to)."
    ignores_copies = True
    routes_by_properties = True  # by chance, which must not be cached either

    def _set_up(self) -> None:
        self._destinations: list[Destination] = []

    @staticmethod
    def exists_in(release: Release) -> bool:
        """Return whether a release of RabbitMQ has this type."""
        return release.has_local_random

    @staticmethod
    def check_binding(routing_key: str, arguments: Table) -> None:
        """Refuse a binding with a key (406)."""
        if routing_key:
            raise precondition_failed(f"Non empty binding '{routing_key}' key not permitted")

    @staticmethod
    def check_destination(kind: Kind | None) -> None:
        """Refuse everything but classic queues (406)."""
        if kind is None:
            raise precondition_failed("Destination not found")
        if kind != "classic":
            raise precondition_failed(f"Queue type rabbit_{kind}_queue not valid for this exchange type")

    def match(self, routing_key: str, properties: Properties) -> Iterable[Destination]:
        """Return one of the destinations, or none if there is none."""
        return (random.choice(self._destinations),) if self._destinations else ()  # noqa: S311 - needs no secrecy

    def _add(self, binding: Binding) -> None:
        self._destinations.append(binding.destination)

    def _remove(self, binding: Binding) -> None:
        self._destinations.remove(binding.destination)
