"""The embedded broker: RabbitMQ's behaviour in one Python process."""

from warren.broker.broker import Broker
from warren.broker.store.batch import StoreFailed

__all__ = ["Broker", "StoreFailed"]
