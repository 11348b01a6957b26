"""Exchange type fanout: every binding matches."""

from __future__ import annotations

from collections.abc import Iterable

from rabbitry.amqp.protocol.tables import Table
from rabbitry.broker._exchanges.exchange import Binding, Destination, Exchange


class FanoutExchange(Exchange):
    """Routes to everything that is bound."""

    type = "fanout"

    def match(self, routing_key: str, headers: Table) -> Iterable[Destination]:
        """Return all destinations."""
        return [binding.destination for binding in self.bindings.values()]

    def _add(self, binding: Binding) -> None:
        """Do nothing: only the list of bindings is kept."""

    def _remove(self, binding: Binding) -> None:
        """Do nothing: only the list of bindings is kept."""
