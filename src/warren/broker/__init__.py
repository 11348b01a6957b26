"""The embedded AMQP 0-9-1 broker."""

from warren.broker.broker import Broker

__all__ = ["Broker"]
