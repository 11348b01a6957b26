"""A message in the broker, and its place in a queue.

Neither can be part of a reference cycle, so the garbage collector does not track them (`gc=False`): visiting a million
of them would block all clients for 0.1 s.
"""

from __future__ import annotations

from typing import Final

import msgspec

from rabbitry.amqp.protocol.constants import Reply
from rabbitry.amqp.protocol.properties import (
    FLAG_CONTENT_ENCODING,
    FLAG_CONTENT_TYPE,
    FLAG_DELIVERY_MODE,
    FLAG_MESSAGE_ID,
    decode_header,
    encode_header,
)
from rabbitry.amqp.protocol.tables import TaggedInt, decode_text
from rabbitry.broker._errors import precondition_failed
from rabbitry.exceptions import ProtocolViolation


class Message(msgspec.Struct, gc=False, eq=False):
    """A message; the received bytes of header and body are passed on unchanged.

    destination: exchange and routing key as two short strings, as publish and deliver carry them. persistent: whether
    it survives a restart in durable queues. expiration: milliseconds, None for none. priority: 0 to 255. hidden_keys:
    routing keys of a BCC header, which consumers do not see. id: its number in the store, 0 while it is not stored.
    copies: in how many queues the store has it. is_owed: it is a dead letter or part of a transaction, so it is too
    late to refuse it for lack of space. has_foreign_deaths: its `x-death` is a client's, which the next death replaces.
    """

    destination: bytes
    header: bytes
    body: bytes
    persistent: bool
    expiration: int | None = None
    priority: int = 0
    hidden_keys: tuple[str, ...] = ()
    id: int = 0
    copies: int = 0
    is_owed: bool = False
    has_foreign_deaths: bool = False

    def again(self) -> Message:
        """Return a copy that replaces this message in the store."""
        message = Message(self.destination, self.header, self.body, self.persistent)
        message.expiration = self.expiration
        message.priority = self.priority
        message.hidden_keys = self.hidden_keys
        message.is_owed = True
        message.has_foreign_deaths = self.has_foreign_deaths
        return message


class Entry(msgspec.Struct, gc=False, eq=False):
    """A message's place in one queue.

    position: orders entries, including requeued ones. expires: POSIX seconds, 0 for never. deliveries: how often it was
    returned to a quorum queue. returns: of those that a quorum queue has at its front, the run that it came back in, 0
    if it is not among them. stored: whether it is in the store, or will be. is_kept: its queue keeps it over a restart
    though the message is transient; other queues with the message do not.
    """

    position: int
    message: Message
    priority: int = 0
    expires: float = 0.0
    redelivered: bool = False
    deliveries: int = 0
    returns: int = 0
    stored: bool = False
    is_kept: bool = False


_MODE_AND_ID: Final = FLAG_DELIVERY_MODE | FLAG_MESSAGE_ID
_STRING: Final = 0
"""Marks a property that has its own length; the others have the length given here."""
_SIZES: Final = (
    (FLAG_CONTENT_TYPE, _STRING),
    (FLAG_CONTENT_ENCODING, _STRING),
    (FLAG_DELIVERY_MODE, 1),
    (1 << 10, _STRING),  # correlation_id
    (FLAG_MESSAGE_ID, _STRING),
    (1 << 6, 8),  # timestamp
    (1 << 5, _STRING),  # type
    (1 << 3, _STRING),  # app_id
    (1 << 2, _STRING),  # cluster_id
)
_STEPS: Final[dict[int, tuple[int, ...]]] = {}
"""Property flags → the sizes of the properties. At most 512 entries, since headers with other flags are decoded."""


def delivery_mode(header: bytes, flags: int) -> int:
    """Return delivery_mode (1 if missing), and check that a header which is passed on undecoded is well-formed.

    `flags` must not contain headers, priority, expiration, reply_to or user_id. Raises ProtocolViolation (541, as
    RabbitMQ does) for a truncated header, precondition_failed for a mode other than 1 and 2.
    """
    size = len(header)
    if flags == _MODE_AND_ID and size > 15 and size == 16 + header[15] and 0 < header[14] < 3:  # the most common case
        return header[14]
    mode = any_delivery_mode(header, flags)
    check_delivery_mode(mode)
    return mode


def any_delivery_mode(header: bytes, flags: int) -> int:
    """Return delivery_mode as `delivery_mode` does, but accept every mode."""
    steps = _STEPS.get(flags)
    if steps is None:
        steps = tuple(size for flag, size in _SIZES if flags & flag)
        if not flags & 3:
            _STEPS[flags] = steps
    mode = 1
    offset = 14
    try:
        for size in steps:
            if size == 1:
                mode = header[offset]
            offset += size or 1 + header[offset]
    except IndexError:
        offset = -1
    if offset != len(header):
        raise ProtocolViolation(Reply.INTERNAL_ERROR, "INTERNAL_ERROR")
    return mode


def check_delivery_mode(mode: int) -> None:
    """Refuse a delivery mode other than 1 and 2 (406)."""
    if mode not in (1, 2):
        raise precondition_failed(f"invalid message: {{delivery_mode_unknown,{mode}}}")


def origin_of(message: Message) -> tuple[str, str]:
    """Return the exchange and routing key that a message was published with."""
    middle = 1 + message.destination[0]
    return decode_text(message.destination[1:middle]), decode_text(message.destination[middle + 1 :])


def with_delivery_count(message: Message, deliveries: int) -> bytes:
    """Return a content header with a quorum queue's count of earlier deliveries (RabbitMQ's docs/quorum-queues)."""
    properties = decode_header(message.header)
    headers = {**(properties.headers or {}), "x-delivery-count": TaggedInt(deliveries, b"l")}
    return encode_header(properties._replace(headers=headers), len(message.body))
