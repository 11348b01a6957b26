"""Key: a routing key with the type of its messages."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, is_typeddict, overload

from rabbitry.exceptions import Undecodable, UsageError
from rabbitry.flow.codec import Codec, Encoded

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Key(Generic[_T]):
    """A routing key whose messages all have one type. Made by `App.key`; it goes wherever a key does.

    Type checkers compare what is published with the type, and so do publishers and workers when they run.

    Attributes:
        name: The routing key.
        type: The type of a message's value.
        version: Rises with each change of the type after which older workers can't read the messages.
    """

    name: str
    type: type[_T]
    version: int
    _codec: Codec = field(repr=False, compare=False)

    def __str__(self) -> str:
        """Return the routing key."""
        return self.name


def make_key(name: str, type_: type[_T], version: int) -> Key[_T]:
    """Make a key. Raises TypeError for a type that no JSON can be decoded to."""
    return Key(name, type_, version, Codec(type_))


def check_value(key: Key[Any], value: object, encoded: Encoded) -> None:
    """Raise UsageError for a value that is not of the key's type.

    A value of a class must be an object of it. For other types, such as `list[int]`, the body is decoded.
    """
    type_: object = key.type
    if isinstance(type_, type) and _compares(type_):
        # To type checkers an int is a float. A bool is an int to Python, but not in JSON.
        is_bool_for_number = isinstance(value, bool) and type_ in (int, float)
        if is_bool_for_number or not isinstance(value, (int, float) if type_ is float else type_):
            raise UsageError(f"key {key.name!r} takes {_called(type_)}, and not {_called(type(value))}")
        return
    try:
        key._codec.decode(encoded.body, encoded.content_type)
    except Undecodable as error:
        raise UsageError(f"key {key.name!r} takes {_called(type_)}, and not this value: {error}") from error


def _compares(type_: type) -> bool:
    """Return whether `isinstance` can be asked for a type."""
    return not hasattr(type_, "__origin__") and not is_typeddict(type_) and type_ is not Any


def _called(type_: object) -> str:
    return type_.__qualname__ if isinstance(type_, type) and not hasattr(type_, "__origin__") else str(type_)


@overload
def name_of(key: str | Key[Any]) -> str: ...
@overload
def name_of(key: None) -> None: ...
def name_of(key: str | Key[Any] | None) -> str | None:
    """Return the routing key of a key."""
    return key.name if isinstance(key, Key) else key
