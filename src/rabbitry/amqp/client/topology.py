"""What was declared over a connection, so that recovery can declare it again on a new link."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from rabbitry.amqp.protocol.methods import (
    ExchangeBind,
    ExchangeBindOk,
    ExchangeDeclare,
    ExchangeDeclareOk,
    Method,
    QueueBind,
    QueueBindOk,
    QueueDeclare,
    QueueDeclareOk,
)
from rabbitry.amqp.protocol.tables import encode_table

if TYPE_CHECKING:
    from rabbitry.amqp.client.channel import Channel

_Key = tuple[str, str, str, bytes]


@dataclass(slots=True)
class Topology:
    """Exchanges, queues and bindings in the order of their declaration, and the names that queues have by now.

    A queue that the broker named gets another name with each link; `current` translates the one that the
    program knows.
    """

    exchanges: dict[str, ExchangeDeclare] = field(default_factory=dict)
    queues: dict[str, QueueDeclare] = field(default_factory=dict)
    exchange_bindings: dict[_Key, ExchangeBind] = field(default_factory=dict)
    queue_bindings: dict[_Key, QueueBind] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    def current(self, queue: str) -> str:
        """Give the name that a queue has on this link."""
        return self.names.get(queue, queue)

    # -- noting ----------------------------------------------------------------------------------------

    def exchange_declared(self, method: ExchangeDeclare) -> None:
        """Note a declaration; a passive one declares nothing."""
        if not method.passive:
            self.exchanges[method.exchange] = method

    def exchange_deleted(self, name: str) -> None:
        """Forget an exchange with its bindings."""
        self.exchanges.pop(name, None)
        for key in [key for key in self.queue_bindings if key[1] == name]:
            del self.queue_bindings[key]
        for key in [key for key in self.exchange_bindings if name in key[:2]]:
            del self.exchange_bindings[key]

    def queue_declared(self, method: QueueDeclare, name: str) -> None:
        """Note a declaration under the name that the program knows; `method` has none where the broker named it."""
        if not method.passive:
            self.queues[name] = method

    def queue_deleted(self, name: str) -> None:
        """Forget a queue with its bindings."""
        self.queues.pop(name, None)
        self.names.pop(name, None)
        for key in [key for key in self.queue_bindings if key[0] == name]:
            del self.queue_bindings[key]

    def queue_bound(self, method: QueueBind, queue: str) -> None:
        """Note a binding of the queue that the program calls `queue`."""
        self.queue_bindings[_key(queue, method.exchange, method)] = method._replace(queue=queue)

    def queue_unbound(self, method: QueueBind, queue: str) -> None:
        """Forget a binding; `method` is the one that made it."""
        self.queue_bindings.pop(_key(queue, method.exchange, method), None)

    def exchange_bound(self, method: ExchangeBind) -> None:
        """Note a binding between exchanges."""
        self.exchange_bindings[_key(method.destination, method.source, method)] = method

    def exchange_unbound(self, method: ExchangeBind) -> None:
        """Forget a binding between exchanges."""
        self.exchange_bindings.pop(_key(method.destination, method.source, method), None)

    # -- restoring -------------------------------------------------------------------------------------

    def steps(self) -> "list[Callable[[Channel], Awaitable[None]]]":
        """Give what to do, in order, each over a channel that is open. A step may be done again."""
        return [
            *(partial(_request, method=method, answer=ExchangeDeclareOk) for method in self.exchanges.values()),
            *(partial(self._restore_queue, name=name, method=method) for name, method in self.queues.items()),
            *(partial(_request, method=method, answer=ExchangeBindOk) for method in self.exchange_bindings.values()),
            *(partial(self._restore_binding, method=method) for method in self.queue_bindings.values()),
        ]

    async def _restore_queue(self, channel: "Channel", name: str, method: QueueDeclare) -> None:
        answer = await channel.request_now(method, QueueDeclareOk)
        if not method.queue:
            self.names[name] = answer.queue

    async def _restore_binding(self, channel: "Channel", method: QueueBind) -> None:
        await channel.request_now(method._replace(queue=self.current(method.queue)), QueueBindOk)


async def _request(channel: "Channel", method: Method, answer: type) -> None:
    await channel.request_now(method, answer)


def _key(destination: str, source: str, method: QueueBind | ExchangeBind) -> _Key:
    return destination, source, method.routing_key, encode_table(method.arguments)
