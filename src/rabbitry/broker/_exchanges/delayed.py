"""Exchange type x-delayed-message: a message with a header `x-delay` is routed after that many milliseconds.

RabbitMQ has it as its plugin rabbitmq_delayed_message_exchange. The argument `x-delayed-type` names the type that
routes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from rabbitry.amqp.protocol.properties import Properties
from rabbitry.amqp.protocol.tables import Table
from rabbitry.broker._errors import precondition_failed
from rabbitry.broker._exchanges.consistent_hash import ConsistentHashExchange
from rabbitry.broker._exchanges.direct import DirectExchange
from rabbitry.broker._exchanges.exchange import Binding, Destination, Exchange
from rabbitry.broker._exchanges.fanout import FanoutExchange
from rabbitry.broker._exchanges.headers import HeadersExchange
from rabbitry.broker._exchanges.topic import TopicExchange
from rabbitry.broker._queues.waiting import delay_of

ROUTING_TYPES: Final[dict[str, type[Exchange]]] = {
    cls.type: cls for cls in (DirectExchange, FanoutExchange, TopicExchange, HeadersExchange, ConsistentHashExchange)
}
"""The types that route by themselves."""


class DelayedExchange(Exchange):
    """Routes as its `x-delayed-type` does, messages with a delay later."""

    type = "x-delayed-message"
    description = "Delayed Message Exchange."
    has_delays = True
    routes_by_properties = True

    def _set_up(self) -> None:
        kind = ROUTING_TYPES[str(self.arguments["x-delayed-type"])]
        self._router = kind(self.name, arguments=self.arguments, release=self.release)
        self.ignores_copies = self._router.ignores_copies

    @property
    def routing_type(self) -> str:
        """The `x-delayed-type`."""
        return self._router.type

    @staticmethod
    def check_arguments(arguments: Table) -> None:
        """Refuse an `x-delayed-type` that is missing or unknown, and what that type refuses (406)."""
        kind = arguments.get("x-delayed-type")
        if not isinstance(kind, str):
            raise precondition_failed("Invalid argument, 'x-delayed-type' must be an existing exchange type")
        if kind not in ROUTING_TYPES:
            raise precondition_failed(f"unknown exchange type '{kind}'")
        ROUTING_TYPES[kind].check_arguments(arguments)

    def bind(self, binding: Binding) -> bool:
        """Add a binding. Raises 406 for one that the routing type cannot use."""
        self._router.check_binding(binding.routing_key, binding.arguments)
        return super().bind(binding)

    def match(self, routing_key: str, properties: Properties) -> Iterable[Destination]:
        """Return the destinations; for a message with a delay, the queue in which it waits."""
        if self.waiting is not None and delay_of(properties.headers):
            return (self.waiting,)
        return self._router.match(routing_key, properties)

    def _add(self, binding: Binding) -> None:
        self._router.bind(binding)

    def _remove(self, binding: Binding) -> None:
        self._router.unbind(binding)
