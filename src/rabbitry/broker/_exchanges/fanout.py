"""Exchange type fanout: every binding matches."""

from __future__ import annotations

from collections.abc import Iterable

from rabbitry.amqp.protocol.properties import Properties
from rabbitry.broker._exchanges.exchange import Binding, Destination, Exchange


class FanoutExchange(Exchange):
    """Routes to all bound destinations."""

    type = "fanout"
    ignores_copies = True
    description = "AMQP fanout exchange, as per the AMQP specification"

    def match(self, routing_key: str, properties: Properties) -> Iterable[Destination]:
        """Return all destinations."""
        return [binding.destination for binding in self.bindings.values()]

    def _add(self, binding: Binding) -> None:
        """Do nothing: the list of bindings is enough."""

    def _remove(self, binding: Binding) -> None:
        """Do nothing: the list of bindings is enough."""
