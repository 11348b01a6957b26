"""The exchange types: each routes messages to destinations by routing key and properties."""

from __future__ import annotations

from typing import Final

from rabbitry.broker._exchanges.delayed import ROUTING_TYPES, DelayedExchange
from rabbitry.broker._exchanges.direct import DefaultExchange
from rabbitry.broker._exchanges.exchange import Binding, Destination, Exchange

TYPES: Final[dict[str, type[Exchange]]] = {**ROUTING_TYPES, DelayedExchange.type: DelayedExchange}

__all__ = ["TYPES", "Binding", "DefaultExchange", "Destination", "Exchange"]
