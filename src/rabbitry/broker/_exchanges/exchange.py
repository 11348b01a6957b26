"""The base of all exchange types: their flags and their bindings."""

from __future__ import annotations

import abc
from collections.abc import Iterable
from typing import NamedTuple, TypeAlias, Union

from rabbitry.amqp.protocol.properties import Properties
from rabbitry.amqp.protocol.tables import Table, encode_table
from rabbitry.broker._policies import Policy
from rabbitry.broker._queues import Queue
from rabbitry.broker._queues.arguments import Kind
from rabbitry.broker._queues.waiting import WaitingRoom
from rabbitry.broker.compat import RELEASES, Release

Destination: TypeAlias = Union[Queue, "Exchange"]


class Binding(NamedTuple):
    """A binding as declared; bindings with the same `identity` are the same."""

    source: Exchange
    destination: Destination
    routing_key: str
    arguments: Table

    @property
    def identity(self) -> tuple[int, str, bytes]:
        """Destination, routing key and arguments."""
        return id(self.destination), self.routing_key, encode_table(self.arguments)


class Exchange(abc.ABC):
    """An exchange; subclasses implement matching."""

    type: str
    description: str
    """The type's description in RabbitMQ's management API."""
    has_delays = False
    """Whether messages may have to wait before they are routed."""

    routes_by_properties = False
    """Whether routing depends on properties, so that the result can't be cached for a routing key."""

    ignores_copies = False
    """Whether only the first routing key counts, or none at all, and not those of CC and BCC."""

    def __init__(
        self,
        name: str,
        *,
        durable: bool = True,
        auto_delete: bool = False,
        internal: bool = False,
        arguments: Table,
        release: Release = RELEASES["3.10"],
    ) -> None:
        self.name = name
        self.durable = durable
        self.auto_delete = auto_delete
        self.internal = internal
        self.arguments = arguments
        self.release = release
        self.policy: Policy | None = None
        self.published_in = 0
        """Number of messages that clients published to it."""
        self.more_out = 0
        """Number of queues that those messages reached, via other exchanges too, minus one for each message."""
        self.bindings: dict[tuple[int, str, bytes], Binding] = {}
        self.waiting: WaitingRoom | None = None
        """Messages to be routed later; only a type with delays has any."""
        self._set_up()

    def _set_up(self) -> None:  # noqa: B027 - not all types need one
        """Create the index that `match` uses."""

    @property
    def routing_type(self) -> str:
        """The type that checks bindings and routes: its own, unless it only delays messages."""
        return self.type

    @property
    def published_out(self) -> int:
        """Number of queues that the messages published to it reached."""
        return self.published_in + self.more_out

    @property
    def alternate(self) -> str | None:
        """Name of the alternate exchange, by argument or else by policy."""
        definition = self.policy.definition if self.policy is not None else {}
        name = self.arguments.get("alternate-exchange", definition.get("alternate-exchange"))
        return name if isinstance(name, str) else None

    def bind(self, binding: Binding) -> bool:
        """Add a binding. Return whether it is new."""
        if binding.identity in self.bindings:
            return False
        self.bindings[binding.identity] = binding
        self._add(binding)
        return True

    def unbind(self, binding: Binding) -> bool:
        """Remove a binding. Return whether it existed."""
        known = self.bindings.pop(binding.identity, None)
        if known is None:
            return False
        self._remove(known)
        return True

    @staticmethod
    def exists_in(release: Release) -> bool:
        """Return whether a release of RabbitMQ has this type, itself or as a plugin."""
        return True

    @staticmethod  # noqa: B027 - most types accept all
    def check_arguments(arguments: Table) -> None:
        """Refuse invalid arguments of a new exchange (406)."""

    @staticmethod  # noqa: B027 - most types accept all
    def check_binding(routing_key: str, arguments: Table) -> None:
        """Refuse a binding that the type cannot use (406)."""

    @staticmethod  # noqa: B027 - most types accept all
    def check_destination(kind: Kind | None) -> None:
        """Refuse a binding to a kind of queue, or to an exchange (None), that the type cannot use (406)."""

    @abc.abstractmethod
    def match(self, routing_key: str, properties: Properties) -> Iterable[Destination]:
        """Return the destinations of a message; one may come more than once."""

    @abc.abstractmethod
    def _add(self, binding: Binding) -> None:
        """Add a new binding to the index that `match` uses."""

    @abc.abstractmethod
    def _remove(self, binding: Binding) -> None:
        """Remove a binding from the index that `match` uses."""
