"""Filters of a stream's consumers: only messages with certain values of `x-stream-filter-value`.

RabbitMQ leaves out whole chunks of messages, and may deliver others beside those that a filter names (docs/streams);
here each message is looked at.
"""

from __future__ import annotations

from typing import Final

from rabbitry.amqp.protocol.constants import Reply
from rabbitry.amqp.protocol.properties import decode_header
from rabbitry.amqp.protocol.tables import FieldValue, Table
from rabbitry.broker.compat import Release
from rabbitry.exceptions import ProtocolViolation

_VALUE: Final = "x-stream-filter-value"
_NAME: Final = _VALUE.encode()


class Filter:
    """The values that a consumer takes.

    with_unfiltered: whether it takes messages without a value, too.
    """

    def __init__(self, values: frozenset[str], *, with_unfiltered: bool) -> None:
        self._values = values
        self._with_unfiltered = with_unfiltered

    def takes(self, header: bytes) -> bool:
        """Return whether a consumer gets the message with this content header."""
        value = _value_of(header)
        return value in self._values if isinstance(value, str) else self._with_unfiltered


def parse_filter(arguments: Table, release: Release) -> Filter | None:
    """Return the filter that a consumer's arguments name; None for no filter, as any value but text and lists means.

    Raises 541, as RabbitMQ does, for a list without text.
    """
    wanted = arguments.get("x-stream-filter")
    if not release.has_stream_filters or not isinstance(wanted, str | list):
        return None
    values = frozenset(one for one in (wanted if isinstance(wanted, list) else [wanted]) if isinstance(one, str))
    if not values:
        raise ProtocolViolation(Reply.INTERNAL_ERROR, "INTERNAL_ERROR")
    return Filter(values, with_unfiltered=arguments.get("x-stream-match-unfiltered") is True)


def is_bad_value(header: bytes) -> bool:
    """Return whether a message has a value for filters that is not text, at which RabbitMQ fails."""
    if _NAME not in header:
        return False
    headers = decode_header(header).headers or {}
    return _VALUE in headers and not isinstance(headers[_VALUE], str)


def _value_of(header: bytes) -> FieldValue:
    return (decode_header(header).headers or {}).get(_VALUE) if _NAME in header else None
