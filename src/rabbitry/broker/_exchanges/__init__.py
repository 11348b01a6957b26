"""The exchange types: each routes messages to destinations by routing key and properties."""

from __future__ import annotations

from typing import Final

from rabbitry.broker._exchanges.consistent_hash import ConsistentHashExchange
from rabbitry.broker._exchanges.direct import DefaultExchange, DirectExchange
from rabbitry.broker._exchanges.exchange import Binding, Destination, Exchange
from rabbitry.broker._exchanges.fanout import FanoutExchange
from rabbitry.broker._exchanges.headers import HeadersExchange
from rabbitry.broker._exchanges.topic import TopicExchange

TYPES: Final[dict[str, type[Exchange]]] = {
    cls.type: cls for cls in (DirectExchange, FanoutExchange, TopicExchange, HeadersExchange, ConsistentHashExchange)
}

__all__ = ["TYPES", "Binding", "DefaultExchange", "Destination", "Exchange"]
