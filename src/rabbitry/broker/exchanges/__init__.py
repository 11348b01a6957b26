"""The exchange types: each routes a message's routing key and headers to destinations."""

from __future__ import annotations

from typing import Final

from rabbitry.broker.exchanges.direct import DefaultExchange, DirectExchange
from rabbitry.broker.exchanges.exchange import Binding, Destination, Exchange
from rabbitry.broker.exchanges.fanout import FanoutExchange
from rabbitry.broker.exchanges.headers import HeadersExchange
from rabbitry.broker.exchanges.topic import TopicExchange

TYPES: Final[dict[str, type[Exchange]]] = {
    cls.type: cls for cls in (DirectExchange, FanoutExchange, TopicExchange, HeadersExchange)
}

__all__ = ["TYPES", "Binding", "DefaultExchange", "Destination", "Exchange"]
