"""Exchange type x-consistent-hash: the hash of a message's key chooses one destination.

RabbitMQ has it as its plugin rabbitmq_consistent_hash_exchange. The key is the routing key, or a header (`hash-
header`), or a property (`hash-property`). A binding key is the number of buckets that the destination gets. Of several
bindings of one destination the first one counts, and the removal of any of them removes its buckets, as in RabbitMQ.
Bindings and messages in the same order have the same result there.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable
from typing import Final

from rabbitry.amqp.protocol.properties import Properties
from rabbitry.amqp.protocol.tables import Table, encode_table, encode_text, encode_timestamp, erlang_binary, type_name
from rabbitry.broker._errors import precondition_failed
from rabbitry.broker._exchanges.exchange import Binding, Destination, Exchange
from rabbitry.broker._exchanges.jump_hash import UNDEFINED, bucket, hash_field, hash_text

_PROPERTIES: Final = ("correlation_id", "message_id", "timestamp")
_WEIGHT: Final = re.compile(r"[+-]?[0-9]+", re.ASCII)
_LONGEST_WEIGHT: Final = 20
"""Characters of a binding key that are read; more would be a number of buckets without any use."""


class ConsistentHashExchange(Exchange):
    """Routes each message to one destination, chosen by a hash."""

    type = "x-consistent-hash"
    description = "Consistent Hashing Exchange"
    ignores_copies = True

    def _set_up(self) -> None:
        self._hashes_values = self.release.hashes_header_values
        self._header = self.arguments.get("hash-header")
        self._property = self.arguments.get("hash-property")
        self.routes_by_properties = self._header is not None or self._property is not None
        self._weights: dict[int, int] = {}
        """Buckets of each destination, by its `id`, in the order of the bindings."""
        self._destinations: list[Destination] = []
        self._ends: list[int] = []
        """For each destination the number of its last bucket, plus one."""

    @staticmethod
    def check_arguments(arguments: Table) -> None:
        """Refuse a property that cannot be hashed, and a header and a property together (406)."""
        values = [arguments.get(name) for name in ("hash-header", "hash-property")]
        if values[0] is not None and values[1] is not None:
            raise precondition_failed("hash-header and hash-property are mutually exclusive")
        if values[1] is not None and values[1] not in _PROPERTIES:
            raise precondition_failed(f"Unsupported property: {values[1]}")

    @staticmethod
    def check_binding(routing_key: str, arguments: Table) -> None:
        """Refuse a binding key that is not a positive number of buckets (406)."""
        if _WEIGHT.fullmatch(routing_key) is None or len(routing_key) > _LONGEST_WEIGHT:
            raise precondition_failed(f"The binding key must be an integer: {erlang_binary(encode_text(routing_key))}")
        if int(routing_key) < 1:
            raise precondition_failed("The binding key must be greater than 0")

    def match(self, routing_key: str, properties: Properties) -> Iterable[Destination]:
        """Return the destination of the message's bucket."""
        if not self._ends:
            return ()
        chosen = 0 if self._ends[-1] == 1 else bucket(self._hash(routing_key, properties), self._ends[-1])
        return (self._destinations[bisect_right(self._ends, chosen)],)

    def _hash(self, routing_key: str, properties: Properties) -> int:
        if isinstance(self._header, str):
            value = (properties.headers or {}).get(self._header)
            if value is None:
                return UNDEFINED
            if isinstance(value, str):
                text = encode_text(value)
                return hash_text(text) if self._hashes_values else hash_field("longstr", text)
            # RabbitMQ hashes the Erlang term, which may choose another destination than this.
            return hash_field(type_name(value), encode_table({"": value}))
        if self._property == "timestamp":
            time = properties.timestamp
            return UNDEFINED if time is None else hash_text(str(encode_timestamp(time)).encode())
        if self._property is not None:
            name = properties.correlation_id if self._property == "correlation_id" else properties.message_id
            return UNDEFINED if name is None else hash_text(encode_text(name))
        return hash_text(encode_text(routing_key))

    def _add(self, binding: Binding) -> None:
        key = id(binding.destination)
        if key not in self._weights:
            weight = self._weights[key] = int(binding.routing_key)
            self._destinations.append(binding.destination)
            self._ends.append(weight + (self._ends[-1] if self._ends else 0))

    def _remove(self, binding: Binding) -> None:
        weight = self._weights.pop(id(binding.destination), None)
        if weight is None:
            return
        at = self._destinations.index(binding.destination)
        del self._destinations[at], self._ends[at]
        for later in range(at, len(self._ends)):
            self._ends[later] -= weight
