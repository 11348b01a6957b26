"""The exchange types: each routes a message's routing key and headers to destinations."""

from typing import Final

from warren.broker.exchanges.direct import DefaultExchange, DirectExchange
from warren.broker.exchanges.exchange import Binding, Destination, Exchange
from warren.broker.exchanges.fanout import FanoutExchange
from warren.broker.exchanges.headers import HeadersExchange
from warren.broker.exchanges.topic import TopicExchange

TYPES: Final[dict[str, type[Exchange]]] = {
    cls.type: cls for cls in (DirectExchange, FanoutExchange, TopicExchange, HeadersExchange)
}

__all__ = ["TYPES", "Binding", "DefaultExchange", "Destination", "Exchange"]
