"""A consumer's place in a stream, and the messages that were read for it from the store."""

from __future__ import annotations

import time
from collections import deque
from datetime import datetime
from typing import Final

from rabbitry.amqp.protocol.constants import Reply
from rabbitry.amqp.protocol.tables import FieldValue, TaggedInt, type_name
from rabbitry.broker._erlang import erlang_term
from rabbitry.broker._errors import precondition_failed
from rabbitry.broker._queues.arguments import interval
from rabbitry.broker._queues.stream_filter import Filter
from rabbitry.broker.message import Entry
from rabbitry.exceptions import ProtocolViolation

READ_AT_ONCE: Final = 512
READ_BYTES: Final = 1 << 20
"""Messages, and bytes of bodies, that are read for one consumer at once."""


class Since:
    """The start of a consumer that wants the messages since a time, in POSIX seconds."""

    def __init__(self, time: float) -> None:
        self.time = time


Offset = int | str | Since
"""The start of a consumer: an offset, "first", "last", "next", or a time."""


def parse_offset(value: FieldValue, where: str) -> Offset:
    """Return the start that a consumer's `x-stream-offset` means. Raises 406, or 541 for what RabbitMQ fails at."""
    if isinstance(value, datetime):
        return Since(value.timestamp())
    if isinstance(value, TaggedInt) and value.tag == b"T":  # beyond the year 9999
        return Since(float(value))
    word = value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value
    if word in ("first", "last", "next"):
        return str(word)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if not isinstance(value, str):
        raise ProtocolViolation(Reply.INTERNAL_ERROR, "INTERNAL_ERROR")
    age = interval(value)
    if age is None:
        wrong = f"{{invalid_stream_offset_arg,{{{type_name(value)},{erlang_term(value)}}}}}"
        raise precondition_failed(f"invalid arg 'x-stream-offset' for {where}: {wrong}")
    return Since(time.time() - age / 1000)


class Search:
    """A bisection of the store for the first message since a time: it is at `low` or behind, and not behind `high`."""

    def __init__(self, time: float, low: int, high: int) -> None:
        self.time = time
        self.low = low
        self.high = high

    @property
    def middle(self) -> int:
        """The offset to look at next."""
        return (self.low + self.high) // 2


class Reader:
    """A consumer's place.

    position: the offset of its next message. read: messages from the store, before those at `position`. number: of its
    last read, by which the answer is recognized. search: what it waits for before it has a position. filter: which
    messages it gets; None for all.
    """

    __slots__ = ("filter", "is_reading", "number", "position", "read", "search")

    def __init__(self, position: int) -> None:
        self.position = position
        self.read: deque[Entry] = deque()
        self.number = 0
        self.is_reading = False
        self.search: Search | None = None
        self.filter: Filter | None = None
