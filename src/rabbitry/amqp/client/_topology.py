"""Everything declared over a connection, so that recovery can redeclare it on a new link.

Anything that the broker has deleted by then is not redeclared: an auto-delete queue ends with its last consumer, an
auto-delete exchange with the last binding from it, a queue with x-expires after that time without use, and an object
deleted by another client once the broker reports it (basic.cancel, 404). As in RabbitMQ's Java client, only consumers
and bindings of this connection count.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from rabbitry.amqp.protocol.methods import (
    ExchangeDeclare,
    ExchangeDeclareOk,
    Method,
    QueueBind,
    QueueBindOk,
    QueueDeclare,
    QueueDeclareOk,
)
from rabbitry.amqp.protocol.tables import encode_table
from rabbitry.exceptions import RabbitryError, RequestTimeout

_Key = tuple[str, str, str, bytes]
_EXPIRES: Final = "x-expires"
_T = TypeVar("_T")
_call: contextvars.ContextVar[object] = contextvars.ContextVar("the call of `declare` that this code runs in")


if TYPE_CHECKING:
    from rabbitry.amqp.protocol.methods import ExchangeBind

    class Declarer(Protocol):
        """A channel to declare over."""

        async def request_now(self, method: Method, kind: type[_T], /) -> _T:
            """Send a method and wait for its answer of type `kind`, even while the connection recovers."""


class Topology:
    """Exchanges, queues and bindings in the order of their declaration, and the current names of queues.

    A server-named queue gets another name with each link; `current` translates the name that the program knows.
    """

    def __init__(self) -> None:
        self.exchanges: dict[str, ExchangeDeclare] = {}
        self.queues: dict[str, QueueDeclare] = {}
        self.exchange_bindings: dict[_Key, ExchangeBind] = {}
        self.queue_bindings: dict[_Key, QueueBind] = {}
        self.names: dict[str, str] = {}
        self.used_at: dict[str, float] = {}
        """When each queue with x-expires was last used, in seconds of the event loop's clock."""

    def current(self, queue: str) -> str:
        """Return the name that a queue has on the current link."""
        return self.names.get(queue, queue)

    def known(self, queue: str) -> str:
        """Return the program's name of a queue; the opposite of `current`."""
        return next((name for name, current in self.names.items() if current == queue), queue)

    # -- recording ----------------------------------------------------------------------------------------

    def exchange_declared(self, method: ExchangeDeclare) -> None:
        """Record a declaration; a passive one declares nothing."""
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
        """Record a declaration under the program's name; `method` has no name if the broker chose it."""
        # A server-named queue is redeclared without a name, even if it was declared passively by name since.
        is_named_by_broker = name in self.queues and not self.queues[name].queue
        if not method.passive and not is_named_by_broker:
            self.queues[name] = method
        self.queue_used(name, now)

    def queue_used(self, name: str, now: float) -> None:
        """Record the use of a queue (declare, consume or get), each of which postpones its expiry (x-expires)."""
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
        """Forget a queue that was deleted with its last consumer."""
        if name in self.queues and self.queues[name].auto_delete:
            self.queue_deleted(name)

    def forget_expired(self, now: float, consumed: set[str]) -> None:
        """Forget queues whose x-expires has passed, except those in `consumed`."""
        for name, used in list(self.used_at.items()):
            expires = self.queues[name].arguments[_EXPIRES]
            if name not in consumed and isinstance(expires, int) and now - used > expires / 1000:
                self.queue_deleted(name)

    def _unbound(self, sources: set[str]) -> None:
        """Forget the auto-delete exchanges among `sources` that no binding is left from."""
        bound = {source for _, source, *_ in [*self.queue_bindings, *self.exchange_bindings]}
        for name in sources - bound:
            if name in self.exchanges and self.exchanges[name].auto_delete:
                self.exchange_deleted(name)

    def queue_bound(self, method: QueueBind, queue: str) -> None:
        """Record a binding of a queue, by the program's name."""
        self.queue_bindings[_key(queue, method.exchange, method)] = method._replace(queue=queue)

    def queue_unbound(self, method: QueueBind, queue: str) -> None:
        """Forget a binding; `method` is the one that created it."""
        if self.queue_bindings.pop(_key(queue, method.exchange, method), None) is not None:
            self._unbound({method.exchange})

    def exchange_bound(self, method: ExchangeBind) -> None:
        """Record a binding between exchanges."""
        self.exchange_bindings[_key(method.destination, method.source, method)] = method

    def exchange_unbound(self, method: ExchangeBind) -> None:
        """Forget a binding between exchanges."""
        if self.exchange_bindings.pop(_key(method.destination, method.source, method), None) is not None:
            self._unbound({method.source})

    # -- restoring -------------------------------------------------------------------------------------

    def steps(self) -> list[Callable[[Declarer], Awaitable[None]]]:
        """Return the steps that redeclare everything, in order, each for an open channel. A step may be repeated."""
        return [
            *(partial(_request, method=method, answer=ExchangeDeclareOk) for method in self.exchanges.values()),
            *(partial(self._restore_queue, name=name, method=method) for name, method in self.queues.items()),
            *(partial(_restore_exchange_binding, method=method) for method in self.exchange_bindings.values()),
            *(partial(self._restore_binding, method=method) for method in self.queue_bindings.values()),
        ]

    async def _restore_queue(self, channel: Declarer, name: str, method: QueueDeclare) -> None:
        answer = await channel.request_now(method, QueueDeclareOk)
        if not method.queue:
            self.names[name] = answer.queue

    async def _restore_binding(self, channel: Declarer, method: QueueBind) -> None:
        await channel.request_now(method._replace(queue=self.current(method.queue)), QueueBindOk)


async def _restore_exchange_binding(channel: Declarer, method: ExchangeBind) -> None:
    from rabbitry.amqp.protocol.methods import ExchangeBindOk  # loaded with the method

    await channel.request_now(method, ExchangeBindOk)


async def _request(channel: Declarer, method: Method, answer: type) -> None:
    await channel.request_now(method, answer)


def _key(destination: str, source: str, method: QueueBind | ExchangeBind) -> _Key:
    return destination, source, method.routing_key, encode_table(method.arguments)


if TYPE_CHECKING:

    class Consuming(Protocol):
        """The part of a consumer that the life of its queue depends on."""

        queue: str
        restore: bool
        has_started: bool


class Deletions:
    """Forgets the queues and exchanges of one connection that no longer exist on the broker."""

    def __init__(
        self, topology: Topology, loop: asyncio.AbstractEventLoop, consumers: Callable[[], Iterable[Consuming]]
    ) -> None:
        """consumers: returns the consumers of all channels of the connection."""
        self._topology = topology
        self._loop = loop
        self._consumers = consumers

    def _consumers_of(self, queue: str) -> list[Consuming]:
        """Return the consumers of a queue, by the name that the program uses."""
        known = self._topology.known
        return [consumer for consumer in self._consumers() if known(consumer.queue) == queue]

    def consumer_gone(self, consumer: Consuming) -> None:
        """Forget an auto-delete queue with its last consumer; for one with x-expires, the time without use starts."""
        queue = self._topology.known(consumer.queue)
        self._topology.queue_used(queue, self._loop.time())
        if consumer.has_started and not self._consumers_of(queue):
            self._topology.last_consumer_gone(queue)

    def queue_gone(self, queue: str) -> None:
        """Forget a queue that no longer exists on the broker, unless a consumer here redeclares it."""
        name = self._topology.known(queue)
        if not any(consumer.restore for consumer in self._consumers_of(name)):
            self._topology.queue_deleted(name)

    def not_found(self, reply_text: str) -> None:
        """Forget the queue or exchange named in RabbitMQ's text of a 404."""
        for kind, forget in ("queue", self.queue_gone), ("exchange", self._topology.exchange_deleted):
            before, after = f"NOT_FOUND - no {kind} '", "' in vhost '"
            if reply_text.startswith(before) and after in reply_text:
                forget(reply_text[len(before) : reply_text.rindex(after)])

    def forget_expired(self) -> None:
        """Forget queues whose x-expires has passed."""
        known = self._topology.known
        consumed = {known(consumer.queue) for consumer in self._consumers()}
        self._topology.forget_expired(self._loop.time(), consumed)


class DeclareHook:
    """The `declare` function of one connection, and its calls in progress.

    Code within such a call uses the link at once, and its declarations are not recorded for recovery.
    """

    def __init__(self) -> None:
        self.function: Callable[[], Awaitable[None]] | None = None
        self._calls: set[object] = set()

    async def run(self) -> None:
        """Run the program's declarations over the current link.

        Raises ConnectionClosed, RequestTimeout, and any error of the program's function.
        """
        if self.function is None:
            return
        call = object()
        self._calls.add(call)
        token = _call.set(call)
        try:
            await self.function()
        except RabbitryError:
            raise
        except TimeoutError as error:  # the function's own; the limit of a recovery cancels instead
            raise RequestTimeout(f"declare= did not end in time: {error!r}") from error
        finally:
            _call.reset(token)
            self._calls.discard(call)

    @property
    def is_running(self) -> bool:
        """Whether the current code runs within a call of the function."""
        return _call.get(None) in self._calls
