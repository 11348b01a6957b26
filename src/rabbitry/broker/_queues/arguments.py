"""Queue arguments: the checks, their order and their error texts are those of RabbitMQ."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, get_args

from rabbitry.amqp.protocol.constants import Reply
from rabbitry.amqp.protocol.tables import FieldValue, Table, type_name
from rabbitry.broker._erlang import check_timer
from rabbitry.broker._errors import invalid_type, precondition_failed
from rabbitry.broker._policies import smaller
from rabbitry.broker.compat import Release
from rabbitry.exceptions import ProtocolViolation, RabbitryError

Kind = Literal["classic", "quorum", "stream"]
"""The value of `x-queue-type`."""
_INTEGERS: Final = ("byte", "short", "signedint", "long", "unsignedbyte", "unsignedshort", "unsignedint")


@dataclass(frozen=True, slots=True)
class Rules:
    """The behaviour that arguments and policies configure. Times in milliseconds; None if not set.

    max_age: of a stream's messages. segment_size: bytes of a stream's segment.
    """

    kind: Kind = "classic"
    expires: int | None = None
    message_ttl: int | None = None
    dead_letter_exchange: str | None = None
    dead_letter_routing_key: str | None = None
    dead_letter_strategy: str | None = None
    max_length: int | None = None
    max_length_bytes: int | None = None
    overflow: str = "drop-head"
    max_priority: int | None = None
    single_active_consumer: bool = False
    delivery_limit: int | None = None
    max_age: int | None = None
    segment_size: int | None = None

    @property
    def dead_letters_surely(self) -> bool:
        """Whether RabbitMQ moves dead letters at least once."""
        strategy = self.dead_letter_strategy if self.kind == "quorum" else None
        return strategy == "at-least-once" and self.overflow == "reject-publish"


class _Bad(RabbitryError):
    """An invalid argument, described in RabbitMQ's words."""


def _integer(value: FieldValue, arguments: Table) -> int:
    kind = type_name(value)
    if kind not in _INTEGERS or not isinstance(value, int):
        raise _Bad(f'"expected integer, got {kind}"')
    return value


def _not_negative(value: FieldValue, arguments: Table) -> None:
    number = _integer(value, arguments)
    if number < 0:
        raise _Bad(f"{{value_negative,{number}}}")


def _positive(value: FieldValue, arguments: Table) -> None:
    if _integer(value, arguments) == 0:
        raise _Bad("{value_zero,0}")
    _not_negative(value, arguments)


def _time(value: FieldValue, arguments: Table) -> None:
    wrong = check_timer(_integer(value, arguments))
    if wrong is not None:
        raise _Bad(wrong)


def _positive_time(value: FieldValue, arguments: Table) -> None:
    if _integer(value, arguments) == 0:
        raise _Bad("{value_zero,0}")
    _time(value, arguments)


def _string(value: FieldValue, arguments: Table) -> None:
    if not isinstance(value, str):
        raise _Bad(f"{{unacceptable_type,{type_name(value)}}}")


def _dead_letter_key(value: FieldValue, arguments: Table) -> None:
    _string(value, arguments)
    if "x-dead-letter-exchange" not in arguments:
        raise _Bad("routing_key_but_no_dlx_defined")


def _one_of(wrong: str, *names: str) -> Callable[[FieldValue, Table], None]:
    def check(value: FieldValue, arguments: Table) -> None:
        _string(value, arguments)
        if value not in names:
            raise _Bad(wrong.format(value))

    return check


def _priority(value: FieldValue, arguments: Table) -> None:
    _not_negative(value, arguments)
    if isinstance(value, int) and value > 255:
        raise _Bad(f"{{max_value_exceeded,{value}}}")


def _boolean(value: FieldValue, arguments: Table) -> None:
    if not isinstance(value, bool):
        raise _Bad(f"{{unacceptable_type,{type_name(value)}}}")


def _age(value: FieldValue, arguments: Table) -> None:
    _string(value, arguments)
    if interval(str(value)) is None:
        raise _Bad("invalid_max_age")


def interval(text: str) -> int | None:
    """Return the milliseconds of an age such as "7D" or "1h", at most _LONGEST_AGE; None for an invalid one.

    Raises 541 for one that does not begin with a digit, as RabbitMQ does.
    """
    unit = text.lstrip("0123456789")
    number = text[: len(text) - len(unit)]
    if not number:
        raise ProtocolViolation(Reply.INTERNAL_ERROR, "INTERNAL_ERROR")
    digits = number.lstrip("0")
    if unit not in _UNITS or not digits:
        return None
    if len(digits) > _AGE_DIGITS:  # Python refuses to read very many, and can't divide so large a number
        return _LONGEST_AGE
    return min(int(digits) * _UNITS[unit] * 1000, _LONGEST_AGE)


def _version(value: FieldValue, arguments: Table) -> None:
    _not_negative(value, arguments)
    if value not in (1, 2):
        raise _Bad(f"\"unsupported queue version '{value!s}'\"")


_CHECKS: Final[Mapping[str, Callable[[FieldValue, Table], None]]] = {
    "x-expires": _positive_time,
    "x-message-ttl": _time,
    "x-dead-letter-exchange": _string,
    "x-dead-letter-routing-key": _dead_letter_key,
    "x-dead-letter-strategy": _one_of("invalid_dlx_strategy", "at-most-once", "at-least-once"),
    "x-max-length": _not_negative,
    "x-max-length-bytes": _not_negative,
    "x-max-in-memory-length": _not_negative,
    "x-max-in-memory-bytes": _not_negative,
    "x-max-priority": _priority,
    "x-overflow": _one_of("invalid_overflow", "drop-head", "reject-publish", "reject-publish-dlx"),
    "x-queue-mode": _one_of("\"unsupported queue mode '{}'\"", "default", "lazy"),
    "x-queue-version": _version,
    "x-single-active-consumer": _boolean,
    "x-queue-type": _string,
    "x-quorum-initial-group-size": _positive,
    "x-max-age": _age,
    "x-stream-max-segment-size-bytes": _not_negative,
    "x-initial-cluster-size": _positive,
    "x-queue-leader-locator": _one_of(
        "invalid_queue_locator_arg", "client-local", "balanced", "random", "least-leaders"
    ),
}
_COMPARED: Final = (*_CHECKS, "x-queue-master-locator", "x-delivery-limit")
_LOCATORS: Final = ("client-local", "min-masters", "random", b"client-local", b"min-masters", b"random")
_SETTINGS: Final[Mapping[str, str]] = {
    "message-ttl": "message_ttl",
    "expires": "expires",
    "max-length": "max_length",
    "max-length-bytes": "max_length_bytes",
    "overflow": "overflow",
    "dead-letter-exchange": "dead_letter_exchange",
    "dead-letter-routing-key": "dead_letter_routing_key",
    "dead-letter-strategy": "dead_letter_strategy",
    "delivery-limit": "delivery_limit",
    "stream-max-segment-size-bytes": "segment_size",
}
"""Setting of a policy → the rule of a queue; the argument has the prefix `x-`."""
_LONGEST_SEGMENT: Final = 3_000_000_000
_LONGEST_AGE: Final = 10**15
"""Milliseconds, 30,000 years: a longer age counts as this one."""
_AGE_DIGITS: Final = 15
_UNITS: Final = {"Y": 365 * 86_400, "M": 30 * 86_400, "D": 86_400, "h": 3600, "m": 60, "s": 1}
"""Unit of an age → seconds."""
_FOR_STREAM: Final = (
    "x-max-length-bytes",
    "x-queue-type",
    "x-max-age",
    "x-stream-max-segment-size-bytes",
    "x-initial-cluster-size",
    "x-queue-leader-locator",
)
_NOT_FOR_QUORUM: Final = (
    "x-max-priority",
    "x-queue-mode",
    "x-queue-version",
    "x-queue-master-locator",
    "x-initial-cluster-size",
    "x-max-age",
    "x-stream-max-segment-size-bytes",
)


def compared(rules: Rules, release: Release) -> list[str]:
    """Return the arguments that must be equal when a queue is redeclared, in the order of comparison.

    RabbitMQ ignores arguments of other queue types here, though it refuses a new queue with them.
    """
    others = _refused(rules.kind, release)
    return [argument for argument in _COMPARED if argument not in others]


def _refused(kind: Kind, release: Release) -> Sequence[str]:
    """Return the arguments that a kind of queue refuses."""
    if kind == "stream":
        return [argument for argument in _COMPARED if argument not in _FOR_STREAM]
    return _NOT_FOR_QUORUM if kind == "quorum" else release.not_for_classic


def read_rules(
    name: str, vhost: str, arguments: Table, release: Release, *, durable: bool, exclusive: bool, auto_delete: bool
) -> Rules:
    """Check a new queue's arguments, and return its rules. Raises 406 for the first invalid argument."""
    where = f"queue '{name}' in vhost '{vhost}'"
    target = arguments.get("x-dead-letter-exchange", "")
    if not isinstance(target, str):
        raise invalid_type("x-dead-letter-exchange", target, f"queue '{name}'", vhost)
    _check(arguments, ("x-queue-type",), where)
    given = arguments.get("x-queue-type", "classic")
    kind = next((known for known in get_args(Kind) if known == given), None)
    if kind is None:
        raise precondition_failed(f"invalid arg 'x-queue-type' for {where}: \"unsupported queue type '{given!s}'\"")
    refused = _refused(kind, release)
    _check(arguments, (argument for argument in _CHECKS if argument not in refused), where)
    for argument in refused:
        if argument in arguments:
            raise precondition_failed(f"invalid arg '{argument}' for {where} of queue type rabbit_{kind}_queue")
    if kind != "classic":
        _check_properties(where, durable=durable, exclusive=exclusive, auto_delete=auto_delete)
    if kind == "stream":
        _check_stream(arguments, release)
    return Rules(
        kind=kind,
        expires=_number(arguments, "x-expires"),
        message_ttl=_number(arguments, "x-message-ttl"),
        dead_letter_exchange=_text(arguments, "x-dead-letter-exchange"),
        dead_letter_routing_key=_text(arguments, "x-dead-letter-routing-key"),
        dead_letter_strategy=_text(arguments, "x-dead-letter-strategy"),
        max_length=_number(arguments, "x-max-length"),
        max_length_bytes=_number(arguments, "x-max-length-bytes"),
        overflow=_text(arguments, "x-overflow") or "drop-head",
        max_priority=_number(arguments, "x-max-priority") or None,
        single_active_consumer=arguments.get("x-single-active-consumer") is True,
        delivery_limit=_delivery_limit(_number(arguments, "x-delivery-limit"), release) if kind == "quorum" else None,
        max_age=interval(_text(arguments, "x-max-age") or "0"),
        segment_size=_number(arguments, "x-stream-max-segment-size-bytes"),
    )


def check_locator(rules: Rules, arguments: Table) -> None:
    """Raise 541 for an `x-queue-master-locator` unknown to RabbitMQ 3.10, where declaring fails with it."""
    if rules.kind == "classic" and arguments.get("x-queue-master-locator", "client-local") not in _LOCATORS:
        raise ProtocolViolation(Reply.INTERNAL_ERROR, "INTERNAL_ERROR")


def _check(arguments: Table, names: Iterable[str], where: str) -> None:
    """Check the values of arguments. Raises 406 for the first invalid one."""
    for argument in names:
        if argument in arguments:
            try:
                _CHECKS[argument](arguments[argument], arguments)
            except _Bad as wrong:
                raise precondition_failed(f"invalid arg '{argument}' for {where}: {wrong}") from None


def _delivery_limit(limit: int | None, release: Release) -> int | None:
    """Return the limit that holds for the one that is given."""
    if limit is None:
        return release.delivery_limit
    return None if limit < 0 and release.has_negative_limits else limit


def with_policy(rules: Rules, arguments: Table, definition: Table, release: Release) -> Rules:
    """Return a queue's rules after applying the settings of its policies to `rules`, those of its arguments."""
    changes: dict[str, int | str | None] = {}
    for setting, rule in _SETTINGS.items():
        value = definition.get(setting)
        if not isinstance(value, int | str):
            continue
        own = arguments.get(f"x-{setting}")
        if own is None:
            changes[rule] = value
        elif isinstance(own, int) and isinstance(value, int):
            changes[rule] = smaller(setting, own, value, release)
    if isinstance(age := definition.get("max-age"), str):
        ages = [rules.max_age, interval(age)]
        changes["max_age"] = min((one for one in ages if one is not None), default=None)
    limit = changes.get("delivery_limit")
    if isinstance(limit, int):
        changes["delivery_limit"] = _delivery_limit(limit, release)
    return replace(rules, **changes)  # type: ignore[arg-type] # each setting's type was checked


def _check_stream(arguments: Table, release: Release) -> None:
    """Check the sizes that only streams have. Raises 406."""
    size = _number(arguments, "x-stream-max-segment-size-bytes")
    if size is not None and size > _LONGEST_SEGMENT:
        raise precondition_failed("Exceeded max value for x-stream-max-segment-size-bytes")
    bits = arguments.get("x-stream-filter-size-bytes", 16)
    if release.has_stream_filters and (not isinstance(bits, int) or not 16 <= bits <= 255):
        raise precondition_failed("Invalid value for  x-stream-filter-size-bytes")


def _check_properties(where: str, *, durable: bool, exclusive: bool, auto_delete: bool) -> None:
    """Refuse properties that a quorum queue and a stream can't have (RabbitMQ's docs/quorum-queues)."""
    for name, wrong in (("auto-delete", auto_delete), ("exclusive-owner", exclusive), ("non-durable", not durable)):
        if wrong:
            raise precondition_failed(f"invalid property '{name}' for {where}")


def _number(arguments: Table, name: str) -> int | None:
    value = arguments.get(name)
    return int(value) if isinstance(value, int) else None


def _text(arguments: Table, name: str) -> str | None:
    value = arguments.get(name)
    return value if isinstance(value, str) else None
