"""The exchange types: each routes messages to destinations by routing key and properties."""

from __future__ import annotations

from typing import Final

from rabbitry.broker._exchanges.delayed import ROUTING_TYPES, DelayedExchange
from rabbitry.broker._exchanges.direct import DefaultExchange
from rabbitry.broker._exchanges.exchange import Binding, Destination, Exchange
from rabbitry.broker._exchanges.local_random import LocalRandomExchange
from rabbitry.broker.compat import Release

TYPES: Final[dict[str, type[Exchange]]] = {
    **ROUTING_TYPES,
    DelayedExchange.type: DelayedExchange,
    LocalRandomExchange.type: LocalRandomExchange,
}


def types_of(release: Release) -> dict[str, type[Exchange]]:
    """Return the exchange types of a release of RabbitMQ, by name."""
    return {name: kind for name, kind in TYPES.items() if kind.exists_in(release)}


__all__ = ["TYPES", "Binding", "DefaultExchange", "Destination", "Exchange", "types_of"]
