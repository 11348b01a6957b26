"""What was declared over a connection, so that recovery can declare it again on a new link.

What the broker has deleted by now is not declared again: an auto-delete queue goes with its last consumer, an
auto-delete exchange with the last binding from it, a queue with x-expires when nobody has used it for so long, and what
another client deleted as soon as the broker says so (basic.cancel, 404). As in RabbitMQ's Java client, only consumers
and bindings of this connection count.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol, TypeVar

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

_Key = tuple[str, str, str, bytes]
_EXPIRES: Final = "x-expires"
_T = TypeVar("_T")


class Declarer(Protocol):
    """A channel to declare over."""

    async def request_now(self, method: Method, kind: type[_T], /) -> _T:
        """Send a method and wait for its answer of type `kind`, also while the connection recovers."""


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
    used_at: dict[str, float] = field(default_factory=dict)
    """When a queue with x-expires was used last, in seconds of the event loop's clock."""

    def current(self, queue: str) -> str:
        """Return the name that a queue has on this link."""
        return self.names.get(queue, queue)

    def known(self, queue: str) -> str:
        """Return the name that the program knows a queue by; the opposite of `current`."""
        return next((name for name, current in self.names.items() if current == queue), queue)

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
        gone = [key for key in self.exchange_bindings if name in key[:2]]
        for key in gone:
            del self.exchange_bindings[key]
        self._unbound({source for _, source, *_ in gone} - {name})

    def queue_declared(self, method: QueueDeclare, name: str, now: float) -> None:
        """Note a declaration under the name that the program knows; `method` has none if the broker named it."""
        # One that the broker named is declared without a name again, whatever it was looked at by since.
        is_named_by_broker = name in self.queues and not self.queues[name].queue
        if not method.passive and not is_named_by_broker:
            self.queues[name] = method
        self.queue_used(name, now)

    def queue_used(self, name: str, now: float) -> None:
        """Note that a queue was declared, consumed or read, each of which puts off its expiry (x-expires)."""
        if name in self.queues and _EXPIRES in self.queues[name].arguments:
            self.used_at[name] = now

    def queue_deleted(self, name: str) -> None:
        """Forget a queue with its bindings."""
        self.queues.pop(name, None)
        self.names.pop(name, None)
        self.used_at.pop(name, None)
        gone = [key for key in self.queue_bindings if key[0] == name]
        for key in gone:
            del self.queue_bindings[key]
        self._unbound({source for _, source, *_ in gone})

    def last_consumer_gone(self, name: str) -> None:
        """Forget a queue that its last consumer takes with it."""
        if name in self.queues and self.queues[name].auto_delete:
            self.queue_deleted(name)

    def forget_expired(self, now: float, consumed: set[str]) -> None:
        """Forget queues that the broker let expire, all but those that have consumers here."""
        for name, used in list(self.used_at.items()):
            expires = self.queues[name].arguments[_EXPIRES]
            if name not in consumed and isinstance(expires, int) and now - used > expires / 1000:
                self.queue_deleted(name)

    def _unbound(self, sources: set[str]) -> None:
        """Forget auto-delete exchanges among `sources` which no binding is left from."""
        bound = {source for _, source, *_ in [*self.queue_bindings, *self.exchange_bindings]}
        for name in sources - bound:
            if name in self.exchanges and self.exchanges[name].auto_delete:
                self.exchange_deleted(name)

    def queue_bound(self, method: QueueBind, queue: str) -> None:
        """Note a binding of the queue that the program calls `queue`."""
        self.queue_bindings[_key(queue, method.exchange, method)] = method._replace(queue=queue)

    def queue_unbound(self, method: QueueBind, queue: str) -> None:
        """Forget a binding; `method` is the one that made it."""
        if self.queue_bindings.pop(_key(queue, method.exchange, method), None) is not None:
            self._unbound({method.exchange})

    def exchange_bound(self, method: ExchangeBind) -> None:
        """Note a binding between exchanges."""
        self.exchange_bindings[_key(method.destination, method.source, method)] = method

    def exchange_unbound(self, method: ExchangeBind) -> None:
        """Forget a binding between exchanges."""
        if self.exchange_bindings.pop(_key(method.destination, method.source, method), None) is not None:
            self._unbound({method.source})

    # -- restoring -------------------------------------------------------------------------------------

    def steps(self) -> list[Callable[[Declarer], Awaitable[None]]]:
        """Return the steps that restore it, in order, each for an open channel. A step may be repeated."""
        return [
            *(partial(_request, method=method, answer=ExchangeDeclareOk) for method in self.exchanges.values()),
            *(partial(self._restore_queue, name=name, method=method) for name, method in self.queues.items()),
            *(partial(_request, method=method, answer=ExchangeBindOk) for method in self.exchange_bindings.values()),
            *(partial(self._restore_binding, method=method) for method in self.queue_bindings.values()),
        ]

    async def _restore_queue(self, channel: Declarer, name: str, method: QueueDeclare) -> None:
        answer = await channel.request_now(method, QueueDeclareOk)
        if not method.queue:
            self.names[name] = answer.queue

    async def _restore_binding(self, channel: Declarer, method: QueueBind) -> None:
        await channel.request_now(method._replace(queue=self.current(method.queue)), QueueBindOk)


async def _request(channel: Declarer, method: Method, answer: type) -> None:
    await channel.request_now(method, answer)


def _key(destination: str, source: str, method: QueueBind | ExchangeBind) -> _Key:
    return destination, source, method.routing_key, encode_table(method.arguments)
