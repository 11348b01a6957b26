"""Exchange type headers: a binding's arguments are compared with the message's headers.

`x-match` is all (the default) or any; all-with-x and any-with-x compare arguments that begin with x- too
(RabbitMQ's docs/tutorials/amqp-concepts, and its exchange type headers). An argument without a value (void)
asks only that the header is there.
"""

from collections.abc import Iterable
from typing import Final

from rabbitry.amqp.protocol.tables import Table, erlang_binary, type_name
from rabbitry.broker.erlang import erlang_term
from rabbitry.broker.errors import precondition_failed
from rabbitry.broker.exchanges.exchange import Binding, Destination, Exchange

_MATCHES: Final = ("all", "any", "all-with-x", "any-with-x")


class HeadersExchange(Exchange):
    """Routes by headers."""

    type = "headers"
    routes_by_headers = True

    def match(self, routing_key: str, headers: Table) -> Iterable[Destination]:
        """Return what is bound with arguments that the headers satisfy."""
        return [binding.destination for binding in self.bindings.values() if _satisfies(binding.arguments, headers)]

    def _add(self, binding: Binding) -> None:
        """Nothing beside the list of bindings is kept."""

    def _remove(self, binding: Binding) -> None:
        """Nothing beside the list of bindings is kept."""


def check_arguments(arguments: Table) -> None:
    """Refuse a binding whose x-match is none of the four (406), or no string."""
    kind = arguments.get("x-match", "all")
    if not isinstance(kind, str):
        text = f"Invalid x-match field type {type_name(kind)} (value {erlang_term(kind)}); expected longstr"
        raise precondition_failed(text)
    if kind not in _MATCHES:
        value = erlang_binary(kind.encode())
        raise precondition_failed(f"Invalid x-match field value {value}; expected all, any, all-with-x, or any-with-x")


def _satisfies(arguments: Table, headers: Table) -> bool:
    kind = arguments.get("x-match", "all")
    with_x = kind in ("all-with-x", "any-with-x")
    wanted = [
        (key, value) for key, value in arguments.items() if key != "x-match" and (with_x or not key.startswith("x-"))
    ]
    hits = (key in headers and (value is None or _same(value, headers[key])) for key, value in wanted)
    if kind in ("any", "any-with-x"):
        return any(hits)
    return all(hits)


def _same(left: object, right: object) -> bool:
    """Compare values; a boolean is no number here, though Python says so."""
    return isinstance(left, bool) == isinstance(right, bool) and left == right
