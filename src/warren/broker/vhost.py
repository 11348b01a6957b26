"""A virtual host: exchanges, queues and bindings, and how a message finds its queues."""

import secrets
from base64 import urlsafe_b64encode
from typing import TYPE_CHECKING, Final

from warren.amqp.protocol.constants import Reply
from warren.amqp.protocol.methods import NO_ARGUMENTS
from warren.amqp.protocol.tables import Table
from warren.broker.errors import (
    ConnectionRefusal,
    access_refused,
    not_found,
    not_implemented,
    precondition_failed,
    resource_locked,
)
from warren.broker.exchanges import TYPES, Binding, DefaultExchange, Destination, Exchange
from warren.broker.exchanges.headers import check_arguments
from warren.broker.queues import Queue

if TYPE_CHECKING:
    from warren.broker.connection import ClientConnection

_PREDECLARED: Final = {
    "amq.direct": "direct",
    "amq.fanout": "fanout",
    "amq.topic": "topic",
    "amq.headers": "headers",
    "amq.match": "headers",
}
_UNAVAILABLE: Final = (
    "x-message-ttl",
    "x-expires",
    "x-max-length",
    "x-max-length-bytes",
    "x-overflow",
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-max-priority",
    "x-single-active-consumer",
)


class VirtualHost:
    """A virtual host. `generation` counts changes that routing depends on, for caches of routes."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.queues: dict[str, Queue] = {}
        self.exchanges: dict[str, Exchange] = {"": DefaultExchange(self.queues)}
        self.generation = 0
        self._bound_to: dict[int, dict[tuple[int, tuple[int, str, bytes]], Binding]] = {}
        for exchange, kind in _PREDECLARED.items():
            self.exchanges[exchange] = TYPES[kind](exchange, arguments=NO_ARGUMENTS)
        self.exchanges["amq.rabbitmq.trace"] = TYPES["topic"](
            "amq.rabbitmq.trace", internal=True, arguments=NO_ARGUMENTS
        )

    # -- exchanges -------------------------------------------------------------------------------------

    def exchange(self, name: str) -> Exchange:
        """Give an exchange. Raises 404."""
        exchange = self.exchanges.get(name)
        if exchange is None:
            raise not_found("exchange", name, self.name)
        return exchange

    def declare_exchange(
        self, name: str, kind: str, *, durable: bool, auto_delete: bool, internal: bool, arguments: Table
    ) -> None:
        """Declare an exchange, or find it as it is said to be. Raises 403, 406, or 503 for an unknown type."""
        if kind not in TYPES:
            raise ConnectionRefusal(Reply.COMMAND_INVALID, f"unknown exchange type '{kind}'")
        known = self.exchanges.get(name)
        if known is None:
            if name.startswith("amq."):
                raise access_refused(f"exchange name '{name}' contains reserved prefix 'amq.*'")
            self.exchanges[name] = TYPES[kind](
                name, durable=durable, auto_delete=auto_delete, internal=internal, arguments=arguments
            )
            self.generation += 1
            return
        for argument, received, current in (
            ("type", kind, known.type),
            ("durable", durable, known.durable),
            ("auto_delete", auto_delete, known.auto_delete),
            ("internal", internal, known.internal),
        ):
            if received != current:
                raise self._inequivalent(argument, "exchange", name, _flag(received), _flag(current))
        self._compare(("alternate-exchange",), "exchange", name, arguments, known.arguments)

    def delete_exchange(self, name: str, if_unused: bool) -> None:
        """Delete an exchange and its bindings; one that is not there is no error. Raises 403, 406."""
        self.refuse_default(name)
        if name.startswith("amq."):
            raise access_refused(f"deletion of system exchange '{name}' in vhost '{self.name}' not allowed")
        exchange = self.exchanges.get(name)
        if exchange is None:
            return
        if if_unused and exchange.bindings:
            raise precondition_failed(f"exchange '{name}' in vhost '{self.name}' in use")
        self._remove_exchange(exchange)

    def _remove_exchange(self, exchange: Exchange) -> None:
        del self.exchanges[exchange.name]
        for binding in list(exchange.bindings.values()):
            self._drop(binding)
        self._unbind_all(exchange)
        self.generation += 1

    def refuse_default(self, *names: str) -> None:
        """Refuse what is not for the default exchange (403)."""
        if "" in names:
            raise access_refused("operation not permitted on the default exchange")

    # -- queues ----------------------------------------------------------------------------------------

    def queue(self, name: str, user: "ClientConnection") -> Queue:
        """Give a queue that `user` may use. Raises 404, or 405 for another connection's."""
        queue = self.queues.get(name)
        if queue is None:
            raise not_found("queue", name, self.name)
        if queue.owner is not None and queue.owner is not user:
            raise resource_locked(name, self.name)
        return queue

    def declare_queue(
        self,
        name: str,
        user: "ClientConnection",
        *,
        durable: bool,
        exclusive: bool,
        auto_delete: bool,
        arguments: Table,
    ) -> Queue:
        """Declare a queue, or find it as it is said to be; without a name it gets one. Raises 403, 405, 406, 540."""
        if not name:
            name = "amq.gen-" + urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("=")
        elif name.startswith("amq.") and name not in self.queues:
            raise access_refused(f"queue name '{name}' contains reserved prefix 'amq.*'")
        if name not in self.queues:
            for argument in _UNAVAILABLE:
                if argument in arguments:
                    raise not_implemented(f"queue argument {argument} is not available in Warren's embedded broker")
            queue = Queue(
                name,
                durable=durable,
                auto_delete=auto_delete,
                owner=user if exclusive else None,
                arguments=arguments,
            )
            self.queues[name] = queue
            self.generation += 1
            return queue
        queue = self.queue(name, user)
        if exclusive != (queue.owner is not None):
            raise resource_locked(name, self.name)
        for flag, received, current in (
            ("durable", durable, queue.durable),
            ("auto_delete", auto_delete, queue.auto_delete),
        ):
            if received != current:
                raise self._inequivalent(flag, "queue", name, _flag(received), _flag(current))
        self._compare((*_UNAVAILABLE, "x-queue-type"), "queue", name, arguments, queue.arguments)
        return queue

    def delete_queue(self, queue: Queue) -> int:
        """Delete a queue; its consumers are told. Gives how many messages went with it."""
        if self.queues.get(queue.name) is not queue:
            return 0
        del self.queues[queue.name]
        self._unbind_all(queue)
        self.generation += 1
        consumers = list(queue.consumers.values())
        queue.consumers.clear()
        for consumer in consumers:
            consumer.channel.on_queue_deleted(consumer)
        if queue.owner is not None:
            queue.owner.exclusive_queues.discard(queue)
        return queue.purge()

    # -- bindings --------------------------------------------------------------------------------------

    def bind(self, source: str, destination: Destination, routing_key: str, arguments: Table) -> None:
        """Bind a destination to exchange `source`. Raises 403, 404, 406."""
        self.refuse_default(source)
        exchange = self.exchange(source)
        if exchange.routes_by_headers:
            check_arguments(arguments)
        binding = Binding(exchange, destination, routing_key, arguments)
        if exchange.bind(binding):
            self._bound_to.setdefault(id(destination), {})[id(exchange), binding.identity] = binding
            self.generation += 1

    def unbind(self, source: str, destination: Destination, routing_key: str, arguments: Table) -> None:
        """Undo `bind`; a binding that is not there is no error. Raises 403, 404."""
        self.refuse_default(source)
        exchange = self.exchange(source)
        self._drop(Binding(exchange, destination, routing_key, arguments))

    def _drop(self, binding: Binding) -> None:
        exchange = binding.source
        if not exchange.unbind(binding):
            return
        bound = self._bound_to[id(binding.destination)]
        del bound[id(exchange), binding.identity]
        if not bound:
            del self._bound_to[id(binding.destination)]
        self.generation += 1
        if exchange.auto_delete and not exchange.bindings and exchange.name in self.exchanges:
            self._remove_exchange(exchange)

    def _unbind_all(self, destination: Destination) -> None:
        for binding in list(self._bound_to.get(id(destination), {}).values()):
            self._drop(binding)

    # -- routing ---------------------------------------------------------------------------------------

    def route(self, exchange: Exchange, routing_keys: list[str], headers: Table) -> tuple[list[Queue], bool]:
        """Find a message's queues, each once, and say whether its headers had a part in it.

        Exchanges are followed breadth first, each once. One with an alternate exchange passes on there what
        it can route nowhere (RabbitMQ's docs/ae).
        """
        queues: dict[int, Queue] = {}
        seen = {id(exchange)}
        waiting = [exchange]
        by_headers = False
        while waiting:
            current = waiting.pop()
            by_headers = by_headers or current.routes_by_headers
            found = [target for key in routing_keys for target in current.match(key, headers)]
            if not found:
                name = current.arguments.get("alternate-exchange")
                found = [self.exchanges[name]] if isinstance(name, str) and name in self.exchanges else []
            for target in found:
                if isinstance(target, Queue):
                    queues[id(target)] = target
                elif id(target) not in seen:
                    seen.add(id(target))
                    waiting.append(target)
        return list(queues.values()), by_headers

    # -- comparing what is declared twice --------------------------------------------------------------

    def _inequivalent(self, argument: str, what: str, name: str, received: str, current: str) -> Exception:
        return precondition_failed(
            f"inequivalent arg '{argument}' for {what} '{name}' in vhost '{self.name}': "
            f"received {received} but current is {current}"
        )

    def _compare(self, names: tuple[str, ...], what: str, name: str, received: Table, current: Table) -> None:
        for argument in names:
            if received.get(argument) != current.get(argument):
                raise self._inequivalent(
                    argument, what, name, _described(received.get(argument)), _described(current.get(argument))
                )


def _flag(value: bool | str) -> str:
    return f"'{value}'" if isinstance(value, str) else f"'{str(value).lower()}'"


def _described(value: object) -> str:
    """Name a table value as RabbitMQ does."""
    match value:
        case None:
            return "none"
        case bool():
            return f"the value '{str(value).lower()}' of type 'bool'"
        case int():
            return f"the value '{value}' of type 'signedint'"
        case str():
            return f"the value '{value}' of type 'longstr'"
    return f"the value '{value}' of type '{type(value).__name__}'"
