"""Exchange type headers: a binding's arguments are compared with the message's headers.

`x-match` is all (the default) or any; all-with-x and any-with-x also compare arguments that begin with x- (RabbitMQ's
docs/tutorials/amqp-concepts, and its exchange type headers). An argument without a value (void) only requires that the
header exists. Values are compared as Erlang terms: numbers of all types and timestamps by value,
strings and byte arrays by their bytes, everything else by type and value. In RabbitMQ 4.0 a float differs from an
integer.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

from rabbitry.amqp.protocol.properties import Properties
from rabbitry.amqp.protocol.tables import FieldValue, Table, encode_table, encode_text, erlang_binary, type_name
from rabbitry.broker._erlang import erlang_term
from rabbitry.broker._errors import precondition_failed
from rabbitry.broker._exchanges.exchange import Binding, Destination, Exchange

_MATCHES: Final = ("all", "any", "all-with-x", "any-with-x")
_PRESENT: Final = b""
"""The value of a condition that only requires the key; no encoded value is empty."""

_BEFORE_TYPE: Final = 5
"""Bytes before the value's type in an encoded table of one empty key: the table's length and the key's."""

_Condition = tuple[str, int | float | bytes]
"""A header's key and its value as `_term` returns it."""
_Bound = dict[tuple[int, str, bytes], Destination]
"""Destinations by their bindings' identities."""


class _Node:
    """The conditions met so far: the conditions that may follow, and the destinations bound with just these."""

    __slots__ = ("bound", "children")

    def __init__(self) -> None:
        self.children: dict[_Condition, _Node] = {}
        self.bound: _Bound = {}


class HeadersExchange(Exchange):
    """Routes by headers.

    Bindings that require all arguments are in a trie of conditions, ordered by key: only branches that the headers
    satisfy are visited. Bindings that require any argument are indexed by each of their conditions.
    """

    type = "headers"
    ignores_copies = True
    description = "AMQP headers exchange, as per the AMQP specification"
    routes_by_properties = True

    def _set_up(self) -> None:
        self._terms = _typed_term if self.release.has_typed_headers else _term
        self._all = _Node()
        self._any: dict[_Condition, _Bound] = {}

    @staticmethod
    def check_binding(routing_key: str, arguments: Table) -> None:
        """Refuse a binding whose x-match is not a string, or not one of the four values (406)."""
        kind = arguments.get("x-match", "all")
        if not isinstance(kind, str):
            text = f"Invalid x-match field type {type_name(kind)} (value {erlang_term(kind)}); expected longstr"
            raise precondition_failed(text)
        if kind not in _MATCHES:
            value = erlang_binary(kind.encode())
            raise precondition_failed(
                f"Invalid x-match field value {value}; expected all, any, all-with-x, or any-with-x"
            )

    def match(self, routing_key: str, properties: Properties) -> Iterable[Destination]:
        """Return the destinations bound with arguments that the headers satisfy."""
        headers = properties.headers or {}
        conditions: list[_Condition] = []
        if self._any or self._all.children:
            for key in sorted(headers):
                conditions += (key, _PRESENT), (key, self._terms(headers[key]))
        found: dict[int, Destination] = {}
        for condition in conditions:
            for destination in self._any.get(condition, {}).values():
                found[id(destination)] = destination
        places = {condition: place for place, condition in enumerate(conditions)}
        waiting = [(self._all, 0)]
        while waiting:
            node, start = waiting.pop()
            for destination in node.bound.values():
                found[id(destination)] = destination
            # Of the node's conditions and the message's, the fewer are gone through: there may be thousands of either.
            children = node.children
            fewer: Iterable[_Condition] = children if len(children) < len(conditions) - start else conditions[start:]
            for condition in fewer:
                child, place = children.get(condition), places.get(condition, -1)
                if child is not None and place >= start:
                    # Both conditions of a key are done: a binding has each key once.
                    waiting.append((child, place - place % 2 + 2))
        return found.values()

    def _conditions(self, arguments: Table) -> tuple[str, list[_Condition]]:
        """Return the x-match kind, and the conditions ordered by key."""
        kind, _, with_x = str(arguments.get("x-match", "all")).partition("-")
        return kind, [
            (key, _PRESENT if value is None else self._terms(value))
            for key, value in sorted(arguments.items())
            if key != "x-match" and (with_x or not key.startswith("x-"))
        ]

    def _add(self, binding: Binding) -> None:
        kind, conditions = self._conditions(binding.arguments)
        if kind == "any":
            for condition in conditions:
                self._any.setdefault(condition, {})[binding.identity] = binding.destination
            return
        node = self._all
        for condition in conditions:
            node = node.children.setdefault(condition, _Node())
        node.bound[binding.identity] = binding.destination

    def _remove(self, binding: Binding) -> None:
        kind, conditions = self._conditions(binding.arguments)
        if kind == "any":
            for condition in conditions:
                bound = self._any[condition]
                del bound[binding.identity]
                if not bound:
                    del self._any[condition]
            return
        path = [self._all]
        for condition in conditions:
            path.append(path[-1].children[condition])
        del path[-1].bound[binding.identity]
        for parent, condition in zip(reversed(path[:-1]), reversed(conditions), strict=True):
            child = parent.children[condition]
            if child.bound or child.children:
                break
            del parent.children[condition]


def _typed_term(value: FieldValue) -> int | float | bytes:
    """Return what `_term` does, except that a float never equals an integer: Erlang's `=:=` holds for the values."""
    return b"F" + struct.pack(">d", value) if isinstance(value, float) else _term(value)


def _term(value: FieldValue) -> int | float | bytes:
    """Return a number or bytes for a value; two results are equal if Erlang's `==` holds for the values."""
    if isinstance(value, str):
        return b"S" + encode_text(value)
    if isinstance(value, bytes):
        return b"S" + value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    encoded = encode_table({"": value})[_BEFORE_TYPE:]
    return int.from_bytes(encoded[1:]) if encoded[:1] == b"T" else encoded
