"""Exchange type headers: a binding's arguments are compared with the message's headers.

`x-match` is all (the default) or any; all-with-x and any-with-x compare arguments that begin with x- too
(RabbitMQ's docs/tutorials/amqp-concepts, and its exchange type headers). An argument without a value (void)
asks only that the header is there.

An index of what bindings ask for: a message is compared with those alone that ask for something it has.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple, TypeAlias

from rabbitry.amqp.protocol.tables import FieldValue, Table, erlang_binary, type_name
from rabbitry.broker.erlang import erlang_term
from rabbitry.broker.errors import precondition_failed
from rabbitry.broker.exchanges.exchange import Binding, Destination, Exchange

_MATCHES: Final = ("all", "any", "all-with-x", "any-with-x")

_Place: TypeAlias = tuple[str] | tuple[str, bool, FieldValue]
"""A header, or a header with a value and whether that is a boolean: True equals 1 in Python, and not here."""
_Identity: TypeAlias = tuple[int, str, bytes]


class _Bound(NamedTuple):
    """A destination, and what it asks of a message's headers: all of it, or any."""

    destination: Destination
    wanted: list[tuple[str, FieldValue]]
    is_all: bool

    def is_satisfied(self, headers: Table) -> bool:
        """Whether the headers have what is asked for."""
        hits = (key in headers and (value is None or _same(value, headers[key])) for key, value in self.wanted)
        return all(hits) if self.is_all else any(hits)


class HeadersExchange(Exchange):
    """Routes by headers."""

    type = "headers"
    routes_by_headers = True

    def __init__(
        self, name: str, *, durable: bool = True, auto_delete: bool = False, internal: bool = False, arguments: Table
    ) -> None:
        super().__init__(name, durable=durable, auto_delete=auto_delete, internal=internal, arguments=arguments)
        self._asks_nothing: dict[_Identity, Destination] = {}
        self._by_place: dict[_Place, dict[_Identity, _Bound]] = {}
        self._places: dict[_Identity, list[_Place]] = {}

    def match(self, routing_key: str, headers: Table) -> Iterable[Destination]:
        """Return what is bound with arguments that the headers satisfy."""
        found = dict(self._asks_nothing)
        for key, value in headers.items():
            for place in ((key,), _place(key, value)):
                for identity, bound in self._by_place.get(place, {}).items():
                    if identity not in found and bound.is_satisfied(headers):
                        found[identity] = bound.destination
        return found.values()

    def _add(self, binding: Binding) -> None:
        """Index a binding that asks for any under all that it asks for, another one under the rarest of it."""
        kind = binding.arguments.get("x-match", "all")
        with_x = kind in ("all-with-x", "any-with-x")
        wanted = [
            (key, value)
            for key, value in binding.arguments.items()
            if key != "x-match" and (with_x or not key.startswith("x-"))
        ]
        bound = _Bound(binding.destination, wanted, kind not in ("any", "any-with-x"))
        places = [_place(key, value) for key, value in wanted]
        if bound.is_all and not places:
            self._asks_nothing[binding.identity] = binding.destination
        elif bound.is_all:
            places = [min(places, key=lambda place: len(self._by_place.get(place, ())))]
        for place in places:
            self._by_place.setdefault(place, {})[binding.identity] = bound
        self._places[binding.identity] = places

    def _remove(self, binding: Binding) -> None:
        self._asks_nothing.pop(binding.identity, None)
        for place in self._places.pop(binding.identity):
            bound = self._by_place[place]
            del bound[binding.identity]
            if not bound:
                del self._by_place[place]


def check_arguments(arguments: Table) -> None:
    """Refuse a binding whose x-match is none of the four (406), or no string."""
    kind = arguments.get("x-match", "all")
    if not isinstance(kind, str):
        text = f"Invalid x-match field type {type_name(kind)} (value {erlang_term(kind)}); expected longstr"
        raise precondition_failed(text)
    if kind not in _MATCHES:
        value = erlang_binary(kind.encode())
        raise precondition_failed(f"Invalid x-match field value {value}; expected all, any, all-with-x, or any-with-x")


def _place(key: str, value: FieldValue) -> _Place:
    """Return where a binding is found that asks for a header with a value; lists and tables are compared later."""
    if value is None or isinstance(value, list | dict):
        return (key,)
    return key, isinstance(value, bool), value


def _same(left: object, right: object) -> bool:
    """Compare values; a boolean is no number here, though Python says so."""
    return isinstance(left, bool) == isinstance(right, bool) and left == right
