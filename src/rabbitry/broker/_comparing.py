"""Comparing redeclared queues and exchanges: how arguments are compared, and the error text if they differ.

Both are those of RabbitMQ 3.10 (`rabbit_misc:assert_args_equivalence`), which compares Erlang's terms.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Final

from rabbitry.amqp.protocol.constants import Reply
from rabbitry.amqp.protocol.tables import FieldValue, LongString, Table, type_name
from rabbitry.broker._erlang import erlang_term
from rabbitry.broker._errors import ChannelRefusal, precondition_failed
from rabbitry.exceptions import ProtocolViolation

_MISSING: Final[FieldValue] = LongString(b"missing")
"""Stands for a missing argument, which differs from an argument without a value."""


def inequivalent(argument: str, where: str, received: str, current: str) -> ChannelRefusal:
    """Return error 406: `where` (a queue or an exchange) is redeclared with another value."""
    return precondition_failed(
        f"inequivalent arg '{argument}' for {where}: received {received} but current is {current}"
    )


def flag_text(*, value: bool | str) -> str:
    """Return a flag, or another property, as the error text has it."""
    return f"'{value}'" if isinstance(value, str) else f"'{str(value).lower()}'"


def compare_arguments(names: Sequence[str], where: str, received: Table, current: Table) -> None:
    """Check that the arguments of these names are equal. Raises 406, or 541 for a decimal, as RabbitMQ does."""
    for argument in names:
        left, right = received.get(argument, _MISSING), current.get(argument, _MISSING)
        is_classic = argument == "x-queue-type" and (left, right) in (("classic", _MISSING), (_MISSING, "classic"))
        if is_classic or _is_same(left, right):
            continue  # a queue without x-queue-type is a classic one
        if left is _MISSING or right is _MISSING:
            raise inequivalent(argument, where, _with_type(left), _with_type(right))
        if isinstance(left, Decimal) or isinstance(right, Decimal):
            raise ProtocolViolation(Reply.INTERNAL_ERROR, "INTERNAL_ERROR")  # RabbitMQ fails to print it
        raise inequivalent(argument, where, _alone(left), _alone(right))


def _is_same(left: FieldValue, right: FieldValue) -> bool:
    """Return whether Erlang considers both equal: 10.0 is not 10, but a timestamp may be, and bytes may be a string."""
    if left is _MISSING or right is _MISSING:
        return left is right
    return erlang_term(left) == erlang_term(right)


def _with_type(value: FieldValue) -> str:
    return "none" if value is _MISSING else f"the value '{_text(value)}' of type '{type_name(value)}'"


def _alone(value: FieldValue) -> str:
    return "none" if value is None else f"'{_text(value)}'"


def _text(value: FieldValue) -> str:
    """Return a value as Erlang's ~s prints strings, and as ~p prints everything else."""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    return erlang_term(value)
