"""A restart without a store: taking over durable state from a stopped in-memory broker."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from rabbitry.broker._parameters import Parameters
from rabbitry.broker._policies import Policies
from rabbitry.broker._records import binding_record, exchange_record, queue_record
from rabbitry.broker._vhost import VirtualHost
from rabbitry.broker.access import Access

_Settings = tuple[Access, Parameters, Policies, Policies]


def take_over_settings(before: _Settings, now: _Settings) -> None:
    """Take over users, permissions, parameters, policies and operator policies, instead of the initial ones."""
    known, its_parameters, *its_policies = before
    access, parameters, *own_policies = now
    access.clear()
    access.users |= known.users
    access.permissions |= known.permissions
    access.topic_permissions |= known.topic_permissions
    for name, value in its_parameters.values.items():
        parameters.put(name, value)
    for theirs, own in zip(its_policies, own_policies, strict=True):
        for policy in theirs:
            own.put(policy)


def take_over_vhosts(
    before: Iterable[VirtualHost], vhosts: dict[str, VirtualHost], new_vhost: Callable[[str], VirtualHost]
) -> None:
    """Take over virtual hosts with their durable exchanges, durable queues, persistent messages, and bindings.

    The policies that apply to them have to be taken over first.
    """
    for known in before:
        vhost = vhosts.get(known.name) or vhosts.setdefault(known.name, new_vhost(known.name))
        vhost.description, vhost.tags, vhost.limits = known.description, known.tags, known.limits
        for exchange in known.exchanges.values():
            if exchange.durable and exchange.name not in vhost.exchanges:
                vhost.restore_exchange(exchange_record(known.name, exchange)[1])
                successor = vhost.exchanges[exchange.name].waiting
                if exchange.waiting is not None and successor is not None:
                    for entry in exchange.waiting.kept():
                        successor.restore(entry)
        for queue in known.queues.values():
            if queue.durable and queue.owner is None:
                restored = vhost.restore_queue(queue_record(known.name, queue)[1])
                for entry in queue.kept():
                    restored.restore(entry)
        vhost.start_timers()
        for binding in known.all_bindings():
            if binding.source.durable and binding.destination.durable:
                vhost.restore_binding(binding_record(known.name, binding)[1])
