"""A virtual host: exchanges, queues, bindings, and routing."""

from __future__ import annotations

import asyncio
import functools
import secrets
from base64 import urlsafe_b64encode
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from rabbitry.amqp.protocol.constants import Reply
from rabbitry.amqp.protocol.layouts import NO_ARGUMENTS
from rabbitry.amqp.protocol.properties import Properties, decode_header
from rabbitry.amqp.protocol.tables import Table
from rabbitry.broker._comparing import compare_arguments, flag_text, inequivalent
from rabbitry.broker._counts import Churn, Totals
from rabbitry.broker._dispatcher import Dispatcher
from rabbitry.broker._errors import (
    ConnectionRefusal,
    Refusal,
    access_refused,
    invalid_type,
    not_found,
    precondition_failed,
    resource_locked,
)
from rabbitry.broker._exchanges import TYPES, Binding, DefaultExchange, Destination, Exchange, types_of
from rabbitry.broker._exchanges.routing import Routed, in_one_step, routing
from rabbitry.broker._firehose import TRACE, Firehose
from rabbitry.broker._policies import Policies
from rabbitry.broker._queues import Backlog, Owner, Queue, ReplyTo, queue_class
from rabbitry.broker._queues.arguments import check_locator, compared, read_rules
from rabbitry.broker._queues.dead_letter import REJECTED, copies, dead_letter, is_cycle
from rabbitry.broker._queues.turns import QueueConsumer
from rabbitry.broker._queues.waiting import WaitingRoom, after_delay
from rabbitry.broker._records import (
    BINDING,
    EXCHANGE,
    QUEUE,
    VHOST,
    arguments_of,
    binding_record,
    exchange_record,
    is_durable,
    queue_record,
    read_exchange,
    text_of,
)
from rabbitry.broker._shares import OneByOne, Shares
from rabbitry.broker._store.journal import Journal
from rabbitry.broker._store.schema import record_key
from rabbitry.broker.compat import Release
from rabbitry.broker.message import Message, origin_of

VHOST_LIMITS: Final = ("max-connections", "max-queues")
_FEW_KEYS: Final = 100
"""Routing keys of a dead letter or delayed message that are routed in one step."""
_PREDECLARED: Final = {
    "amq.direct": "direct",
    "amq.fanout": "fanout",
    "amq.topic": "topic",
    "amq.headers": "headers",
    "amq.match": "headers",
}
OnPublish = Callable[[str, Message, Sequence[Queue | ReplyTo]], None]
"""Called with each message that a client publishes: the virtual host's name, the message, and its queues."""


class VirtualHost:
    """A virtual host. `generation` counts changes that routing depends on, for caches of routes.

    Args:
        name: Its name.
        release: The behaviour of the broker's release of RabbitMQ.
        journal: Stores durable state.
        policies: The policies of all virtual hosts, and their operator policies.
        dispatcher: Delivers from its queues.
        shares: Schedules long operations.
        churn: Counts created and deleted queues.
        on_publish: Called with each message that a client publishes; None for no call.
    """

    def __init__(
        self,
        name: str,
        *,
        release: Release,
        journal: Journal,
        policies: tuple[Policies, Policies],
        dispatcher: Dispatcher,
        shares: Shares,
        churn: Churn,
        on_publish: OnPublish | None = None,
    ) -> None:
        self.name = name
        self.release = release
        self.journal = journal
        self.dispatcher = dispatcher
        self.on_publish = on_publish
        self._policies, self._operator_policies = policies
        self._shares = shares
        self._churn = churn
        self.queues: dict[str, Queue] = {}
        self.exchanges: dict[str, Exchange] = {"": DefaultExchange(self.queues)}
        self.generation: int = 0
        self.totals: Totals = Totals()
        self.description = "Default virtual host" if name == "/" else ""
        self.tags: tuple[str, ...] = ()
        self.limits: Mapping[str, int] = {}
        """Limits by names of VHOST_LIMITS; a negative value means none."""
        self.firehose: Firehose | None = None
        """Copies messages while tracing is on; off after a restart, as on RabbitMQ."""
        self._moves = OneByOne(self.work)
        """Dead letters and delayed messages on their way to their queues."""
        self._bound_to: dict[int, dict[tuple[int, tuple[int, str, bytes]], Binding]] = {}
        for exchange, kind in _PREDECLARED.items():
            self.exchanges[exchange] = TYPES[kind](exchange, arguments=NO_ARGUMENTS, release=release)
        self.exchanges[TRACE] = TYPES["topic"](TRACE, internal=True, arguments=NO_ARGUMENTS, release=release)

    # -- the virtual host itself -----------------------------------------------------------------------

    def store(self) -> None:
        """Store its description, tags and limits."""
        if self.journal.is_on:
            value: Table = {
                "name": self.name,
                "description": self.description,
                "tags": list(self.tags),
                "limits": dict(self.limits),
            }
            self.journal.put(VHOST, record_key(self.name), value)

    def restore(self, value: Table) -> None:
        """Set description, tags and limits from a record of the store; older records have only the name."""
        tags = value.get("tags")
        self.description = str(value.get("description", self.description))
        self.tags = tuple(map(str, tags)) if isinstance(tags, list) else ()
        limits = value.get("limits")
        items = limits.items() if isinstance(limits, dict) else ()
        self.limits = {name: limit for name, limit in items if isinstance(limit, int)}

    def trace(self, *, is_on: bool) -> None:
        """Turn tracing on or off."""
        self.firehose = Firehose(self.name, self._publish_copy) if is_on else None
        self.generation += 1  # connections look at it with their next publish

    def _publish_copy(self, message: Message, key: str, properties: Properties) -> None:
        for queue in self.route(self.exchanges[TRACE], [key], properties)[0]:
            queue.push_letter(message)

    def restore_exchange(self, value: Table) -> None:
        """Create an exchange from its record in the store."""
        exchange = read_exchange(value, self.release)
        number = value.get("waiting", 0)
        self._set_up_delays(exchange, number if isinstance(number, int) else 0)
        exchange.policy = self._policies.matching(self.name, exchange.name, "exchanges")
        self.exchanges[exchange.name] = exchange

    def follow_policies(self, changed: str, policies: Policies) -> Iterator[None]:
        """Apply a policy that was set or cleared to the queues and exchanges that it matches or applied to.

        Takes a step for each exchange and queue; they and the policies may change between steps.
        """
        is_operator = policies is self._operator_policies
        policy = policies.get(self.name, changed)
        for exchange in [] if is_operator else list(self.exchanges.values()):
            yield
            held = exchange.policy is not None and exchange.policy.name == changed
            if held or (policy and exchange.name and policy.is_for(exchange.name, "exchanges", self.release)):
                exchange.policy = policies.matching(self.name, exchange.name, "exchanges")
        for queue in list(self.queues.values()):
            yield
            if queue.is_deleted:
                continue
            its = queue.operator_policy if is_operator else queue.policy
            if (its and its.name == changed) or (policy and policy.is_for(queue.name, queue.rules.kind, self.release)):
                self._follow(queue)
        self.generation += 1

    def _follow(self, queue: Queue) -> None:
        """Apply the policies that match a queue."""
        both = (self._policies, self._operator_policies)
        queue.follow(*(policies.matching(self.name, queue.name, queue.rules.kind) for policies in both))

    # -- exchanges -------------------------------------------------------------------------------------

    def exchange(self, name: str) -> Exchange:
        """Return an exchange. Raises 404."""
        exchange = self.exchanges.get(name)
        if exchange is None:
            raise not_found("exchange", name, self.name)
        return exchange

    def declare_exchange(
        self, name: str, kind: str, *, durable: bool, auto_delete: bool, internal: bool, arguments: Table
    ) -> None:
        """Declare an exchange, or check an existing one. Raises 403, 406, 503."""
        if not kind:
            raise self._unusable_type("invalid exchange type ''")
        if kind not in types_of(self.release):
            raise self._unusable_type(f"unknown exchange type '{kind}'")
        known = self.exchanges.get(name)
        if known is None:
            other = arguments.get("alternate-exchange", "")
            if not isinstance(other, str):
                raise invalid_type("alternate-exchange", other, f"exchange '{name}'", self.name)
            if name.startswith("amq."):
                raise access_refused(f"exchange name '{name}' contains reserved prefix 'amq.*'")
            TYPES[kind].check_arguments(arguments)
            exchange = TYPES[kind](
                name,
                durable=durable,
                auto_delete=auto_delete,
                internal=internal,
                arguments=arguments,
                release=self.release,
            )
            self._set_up_delays(exchange, self.journal.new_queue_number() if durable and self.journal.is_on else 0)
            self.exchanges[name] = exchange
            exchange.policy = self._policies.matching(self.name, name, "exchanges")
            self.generation += 1
            if durable and self.journal.is_on:
                self.journal.put(EXCHANGE, *exchange_record(self.name, exchange))
            return
        where = f"exchange '{name}' in vhost '{self.name}'"
        for argument, received, current in (
            ("type", kind, known.type),
            ("durable", durable, known.durable),
            ("auto_delete", auto_delete, known.auto_delete),
            ("internal", internal, known.internal),
        ):
            if received != current:
                raise inequivalent(argument, where, flag_text(value=received), flag_text(value=current))
        compare_arguments(("alternate-exchange",), where, arguments, known.arguments)

    def _set_up_delays(self, exchange: Exchange, number: int) -> None:
        """Assign an exchange with delays a place for its messages; `number` is that of this place in the store."""
        if exchange.has_delays:
            exchange.waiting = WaitingRoom(self, exchange.name, functools.partial(self._publish_late, exchange))
            exchange.waiting.id = number
            self.journal.note_queue_number(number)

    def _publish_late(self, exchange: Exchange, message: Message, then: Callable[[], None]) -> None:
        """Publish a message whose delay is over, then call back; in order with dead letters, as `dead_letter` does."""
        self._moves.run(self._publishing_late(exchange, message, then))

    def _publishing_late(self, exchange: Exchange, message: Message, then: Callable[[], None]) -> Iterator[None]:
        late = after_delay(message)
        properties = decode_header(late.header)
        keys = [origin_of(late)[1], *copies(properties.headers or {}), *late.hidden_keys]
        for queue in (yield from self._routing_move(exchange, keys, properties)):
            queue.push_letter(late)
        then()

    def _unusable_type(self, text: str) -> Refusal:
        """Return the error for an exchange type that does not exist."""
        if self.release.refuses_type_on_channel:
            return precondition_failed(text)
        return ConnectionRefusal(Reply.COMMAND_INVALID, text)

    def delete_exchange(self, name: str, *, if_unused: bool) -> None:
        """Delete an exchange and its bindings; one that does not exist is no error. Raises 403, 406."""
        self.refuse_default(name)
        if name.startswith("amq."):
            raise access_refused(f"deletion of system exchange '{name}' in vhost '{self.name}' not allowed")
        exchange = self.exchanges.get(name)
        if exchange is None:
            return
        if if_unused and exchange.bindings:
            raise precondition_failed(f"exchange '{name}' in vhost '{self.name}' in use")
        self._drop(*self._remove_exchange(exchange))

    def deleting_exchange(self, name: str, *, if_unused: bool) -> Iterator[None]:
        """Delete an exchange as `delete_exchange` does, in steps: first its bindings, unless it has to be unused."""
        exchange = self.exchanges.get(name)
        if exchange is not None and not if_unused and not name.startswith("amq.") and name:
            yield from self.unbinding(exchange)
        if self.exchanges.get(name) is exchange:  # an auto-delete exchange may be deleted with its last binding
            self.delete_exchange(name, if_unused=if_unused)

    def _remove_exchange(self, exchange: Exchange) -> list[Binding]:
        """Remove an exchange, and return its bindings, which have to be removed with it."""
        del self.exchanges[exchange.name]
        self.generation += 1
        if exchange.waiting is not None:
            if exchange.waiting.id:
                self.journal.drop_queue(exchange.waiting.id)
                exchange.waiting.id = 0
            exchange.waiting.delete()
        if exchange.durable and self.journal.is_on:
            self.journal.put(EXCHANGE, record_key(self.name, exchange.name), None)
        return [*exchange.bindings.values(), *self.bindings_to(exchange)]

    def refuse_default(self, *names: str) -> None:
        """Refuse an operation on the default exchange (403)."""
        if "" in names:
            raise access_refused("operation not permitted on the default exchange")

    # -- queues ----------------------------------------------------------------------------------------

    def queue(self, name: str, user: Owner | None) -> Queue:
        """Return a queue that connection `user` may use. Raises 404, or 405 for another connection's."""
        queue = self.queues.get(name)
        if queue is None:
            raise not_found("queue", name, self.name)
        if queue.owner is not None and queue.owner is not user:
            raise resource_locked(name, self.name)
        return queue

    def new_queue_name(self) -> str:
        """Return a name for a server-named queue."""
        return "amq.gen-" + urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("=")

    def check_queue_limit(self, name: str) -> None:
        """Check that a new queue is within the virtual host's limit; an existing one always is. Raises 406."""
        limit = self.limits.get("max-queues", -1)
        if 0 <= limit <= len(self.queues) and name not in self.queues:
            text = f"cannot declare queue '{name}': queue limit in vhost '{self.name}' ({limit}) is reached"
            raise precondition_failed(text)

    def declare_queue(
        self,
        name: str,
        user: Owner | None,
        *,
        durable: bool,
        exclusive: bool,
        auto_delete: bool,
        arguments: Table,
        is_generated: bool = False,
    ) -> Queue:
        """Declare a queue, or check an existing one. Raises 403, 405, 406, 540."""
        self._churn.queue_declared += 1
        if name.startswith("amq.") and not is_generated and name not in self.queues:
            raise access_refused(f"queue name '{name}' contains reserved prefix 'amq.*'")
        if self.release.has_default_type and "x-queue-type" not in arguments:
            arguments = {**arguments, "x-queue-type": "classic"}
        if name not in self.queues:
            rules = read_rules(
                name,
                self.name,
                arguments,
                self.release,
                durable=durable,
                exclusive=exclusive,
                auto_delete=auto_delete,
            )
            if user is not None and self.release.checks_mirroring:
                check_locator(rules, arguments)
            owner = user if exclusive else None
            queue = queue_class(rules.kind, self.release)(
                self, name, durable=durable, auto_delete=auto_delete, owner=owner, arguments=arguments, rules=rules
            )
            if durable and not exclusive and self.journal.is_on:
                queue.id = self.journal.new_queue_number()
                self.store_queue(queue)
            self.queues[name] = queue
            self._follow(queue)
            self.generation += 1
            self._churn.queue_created += 1
            return queue
        queue = self.queue(name, user)
        if exclusive != (queue.owner is not None):
            raise resource_locked(name, self.name)
        where = f"queue '{name}' in vhost '{self.name}'"
        for flag, received, current in (
            ("durable", durable, queue.durable),
            ("auto_delete", auto_delete, queue.auto_delete),
        ):
            if received != current:
                raise inequivalent(flag, where, flag_text(value=received), flag_text(value=current))
        compare_arguments(compared(queue.rules, self.release), where, arguments, queue.arguments)
        queue.note_use()
        return queue

    def store_queue(self, queue: Queue) -> None:
        """Store the record of a queue."""
        self.journal.put(QUEUE, *queue_record(self.name, queue))

    def restore_queue(self, value: Table) -> Queue:
        """Create a queue from its record in the store. It does not expire before `start_timers`."""
        name, arguments = str(value["name"]), arguments_of(value)
        auto_delete = value["auto_delete"] is True
        # The queue may have been declared with another release's behaviour, which accepted its arguments.
        release = replace(self.release, not_for_classic=())
        rules = read_rules(name, self.name, arguments, release, durable=True, exclusive=False, auto_delete=auto_delete)
        queue = queue_class(rules.kind, self.release)(
            self, name, durable=True, auto_delete=auto_delete, owner=None, arguments=arguments, rules=rules
        )
        number, recovered_to = value["id"], value["recovered_to"]
        if not isinstance(number, int) or not isinstance(recovered_to, int):
            raise TypeError("its numbers are none")
        queue.id, queue.recovered_to = number, recovered_to
        queue.read_record(value)
        self.journal.note_queue_number(number)
        self.queues[name] = queue
        self._follow(queue)
        queue.close()
        self.generation += 1
        return queue

    def start_timers(self) -> None:
        """Let restored queues expire from now on, when unused: all of them have their messages."""
        for queue in self.queues.values():
            queue.note_use()

    def delete_queue(self, queue: Queue) -> int:
        """Delete a queue, notify its consumers, and return the number of messages deleted with it."""
        if self.queues.get(queue.name) is not queue:
            return 0
        del self.queues[queue.name]
        self._churn.queue_deleted += 1
        self._drop(*self.bindings_to(queue))
        self.generation += 1
        consumers = queue.turns.clear()
        for consumer in consumers:
            consumer.on_queue_deleted()
        if consumers:
            # Sent after the answer to the client that deleted it, which waits for the commit.
            tell = functools.partial(self.work, _telling(consumers))
            asyncio.get_running_loop().call_soon(self.journal.after_commit, tell)
        if queue.owner is not None:
            queue.owner.exclusive_queues.discard(queue)
        if queue.id:
            self.journal.put(QUEUE, record_key(self.name, queue.name), None)
            self.journal.drop_queue(queue.id)
            queue.id = 0
        return queue.delete()

    def clearing(self) -> Iterator[None]:
        """Delete all queues, exchanges and bindings, in steps."""
        for queue in list(self.queues.values()):
            yield from self.deleting_queue(queue)
        for exchange in list(self.exchanges.values()):
            if exchange.name in self.exchanges:  # an auto-delete exchange may be deleted with its last binding
                yield from self._dropping(*self._remove_exchange(exchange))

    def expire_queue(self, queue: Queue) -> None:
        """Delete a queue whose x-expires has passed, alternating with other clients."""
        self.work(self.deleting_queue(queue))

    def deleting_queue(self, queue: Queue) -> Iterator[None]:
        """Delete a queue in steps: first its bindings, then the rest at once."""
        yield from self.unbinding(queue)
        self.delete_queue(queue)
        yield

    # -- bindings --------------------------------------------------------------------------------------

    def bind(self, source: str, destination: Destination, routing_key: str, arguments: Table) -> None:
        """Bind a destination to exchange `source`. Raises 403, 404, 406."""
        binding = self._bind(source, destination, routing_key, arguments)
        if binding is not None and self.journal.is_on and is_durable(binding):
            self.journal.put(BINDING, *binding_record(self.name, binding))

    def restore_binding(self, value: Table) -> None:
        """Restore a binding from a record of the store; skip it if an end does not exist."""
        source, name = text_of(value, "source"), text_of(value, "destination")
        destination = self.queues.get(name) if value.get("kind") == "queue" else self.exchanges.get(name)
        if destination is not None and source in self.exchanges:
            self._bind(source, destination, text_of(value, "routing_key"), arguments_of(value))

    def _bind(self, source: str, destination: Destination, routing_key: str, arguments: Table) -> Binding | None:
        """Bind a destination, and return the binding; None if it existed. Raises 403, 404, 406."""
        self.refuse_default(source)
        exchange = self.exchange(source)
        exchange.check_binding(routing_key, arguments)
        exchange.check_destination(destination.rules.kind if isinstance(destination, Queue) else None)
        binding = Binding(exchange, destination, routing_key, arguments)
        if not exchange.bind(binding):
            return None
        self._bound_to.setdefault(id(destination), {})[id(exchange), binding.identity] = binding
        self.generation += 1
        return binding

    def unbind(self, source: str, destination: Destination, routing_key: str, arguments: Table) -> None:
        """Undo `bind`; a binding that does not exist is no error. Raises 403, 404."""
        self.refuse_default(source)
        exchange = self.exchange(source)
        self._drop(Binding(exchange, destination, routing_key, arguments))

    def unbinding(self, end: Destination) -> Iterator[None]:
        """Undo the bindings of a queue or exchange that is being deleted, one in each step.

        The record of the queue or exchange is deleted last, so it survives a crash in between. A binding's record that
        outlived it would bind a later object of the same name.
        """
        of_source = end.bindings.values() if isinstance(end, Exchange) else ()
        return self._dropping(*of_source, *self.bindings_to(end))

    def is_bound(self, source: str, destination: Destination, routing_key: str, arguments: Table) -> bool:
        """Return whether the binding exists."""
        exchange = self.exchanges.get(source)
        if exchange is None:
            return False
        wanted = Binding(exchange, destination, routing_key, arguments)
        return (id(exchange), wanted.identity) in self._bound_to.get(id(destination), {})

    def all_bindings(self) -> Iterator[Binding]:
        """Yield all bindings."""
        for bound in self._bound_to.values():
            yield from bound.values()

    def bindings_to(self, destination: Destination) -> list[Binding]:
        """Return the bindings that lead to a queue or exchange."""
        return list(self._bound_to.get(id(destination), {}).values())

    def _drop(self, *bindings: Binding) -> None:
        """Undo bindings. An auto-delete exchange is deleted with its last one, as are the bindings leading to it."""
        for _ in self._dropping(*bindings):
            pass

    def _dropping(self, *bindings: Binding) -> Iterator[None]:
        """Undo bindings as `_drop` does, one in each step."""
        waiting = deque(bindings)
        while waiting:
            binding = waiting.popleft()
            exchange = binding.source
            if not exchange.unbind(binding):
                continue
            bound = self._bound_to[id(binding.destination)]
            del bound[id(exchange), binding.identity]
            if not bound:
                del self._bound_to[id(binding.destination)]
            self.generation += 1
            if self.journal.is_on and is_durable(binding):
                self.journal.put(BINDING, binding_record(self.name, binding)[0], None)
            if exchange.auto_delete and not exchange.bindings and exchange.name in self.exchanges:
                waiting.extend(self._remove_exchange(exchange))
            yield

    # -- routing ---------------------------------------------------------------------------------------

    def route(self, exchange: Exchange, routing_keys: list[str], properties: Properties) -> Routed:
        """Return a message's queues, each once, and whether its properties influenced the route."""
        return in_one_step(self.routing(exchange, routing_keys, properties))

    def routing(
        self, exchange: Exchange, routing_keys: list[str], properties: Properties
    ) -> Generator[None, None, Routed]:
        """Route a message as `route` does, in steps."""
        return routing(self.exchanges, exchange, routing_keys, properties)

    # -- called by queues ------------------------------------------------------------------------------

    def work(self, steps: Iterator[None]) -> None:
        """Run the steps of a long operation, alternating with clients, and only while the store accepts more."""
        self._shares.work(steps, lambda: None, self.journal.may_grow)

    @property
    def is_moving_late(self) -> bool:
        """Whether dead letters or delayed messages wait for a later iteration of the event loop."""
        return self._moves.is_late

    def dead_letter(self, queue: Backlog, message: Message, reason: str, then: Callable[[], None]) -> None:
        """Publish a message to its queue's dead-letter exchange, or drop it if there is none; then call back.

        All of it is done when this returns, unless the message has very many routing keys, or another one is just being
        published: then it follows that one, if need be in a later iteration of the event loop. Chains of queues
        therefore need no recursion.
        """
        self._moves.run(self._publishing_letter(queue, message, reason, then))

    def _publishing_letter(
        self, queue: Backlog, message: Message, reason: str, then: Callable[[], None]
    ) -> Iterator[None]:
        rules = queue.rules
        name = rules.dead_letter_exchange
        exchange = None if name is None else self.exchanges.get(name)
        if exchange is None:
            then()
            return
        letter, properties, own_copies = dead_letter(message, queue.name, reason, exchange.name, rules, self.release)
        headers = properties.headers or {}
        keys = [origin_of(letter)[1], *own_copies, *letter.hidden_keys]
        for target in (yield from self._routing_move(exchange, keys, properties)):
            # Messages that wait for a delay are in no queue; the exchange's name may be that of one, however.
            if reason == REJECTED or isinstance(target, WaitingRoom) or not is_cycle(target.name, headers):
                target.push_letter(letter, surely=rules.dead_letters_surely)
        then()

    def _routing_move(
        self, exchange: Exchange, keys: list[str], properties: Properties
    ) -> Generator[None, None, list[Queue]]:
        """Route a dead letter or delayed message. With very many keys, that is done in steps."""
        steps = self.routing(exchange, keys, properties)
        queues, _ = in_one_step(steps) if len(keys) <= _FEW_KEYS else (yield from steps)
        if self.is_moving_late:
            self.dispatcher.dispatch_soon()  # the caller's dispatch is over
        return [queue for queue in queues if not queue.is_deleted]


def _telling(consumers: list[QueueConsumer]) -> Iterator[None]:
    """Notify consumers that their queue was deleted, one in each step."""
    for consumer in consumers:
        consumer.tell_cancelled()
        yield
