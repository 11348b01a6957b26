"""Errors with which handlers refuse a request; `_connection.py` turns them into channel.close or connection.close.

The texts are RabbitMQ's, word for word, since programs match on them.
"""

from __future__ import annotations

from typing import Final

from rabbitry.amqp.protocol.constants import Reply
from rabbitry.amqp.protocol.events import ACK, METHOD, PUBLISH, Event
from rabbitry.amqp.protocol.layouts import BY_TYPE
from rabbitry.amqp.protocol.tables import FieldValue, type_name
from rabbitry.exceptions import RabbitryError

PUBLISH_IDS: Final = (60, 40)
_ACK_IDS: Final = (60, 80)


class Refusal(RabbitryError):
    """A refused request, with reply code and text; the method at fault is known where the error is caught."""

    def __init__(self, reply_code: Reply, text: str) -> None:
        super().__init__(text)
        self.reply_code = reply_code
        self.reply_text = f"{reply_code.name} - {text}"


class ChannelRefusal(Refusal):
    """Closes the channel."""


class ConnectionRefusal(Refusal):
    """Closes the connection."""


def not_found(what: str, name: str, vhost: str) -> ChannelRefusal:
    """Return error 404: no such exchange or queue."""
    return ChannelRefusal(Reply.NOT_FOUND, f"no {what} '{name}' in vhost '{vhost}'")


def access_refused(text: str) -> ChannelRefusal:
    """Return error 403: this user, or every user, lacks the right."""
    return ChannelRefusal(Reply.ACCESS_REFUSED, text)


def precondition_failed(text: str) -> ChannelRefusal:
    """Return error 406: the object's properties differ from the request."""
    return ChannelRefusal(Reply.PRECONDITION_FAILED, text)


def invalid_type(argument: str, value: FieldValue, where: str, vhost: str) -> ChannelRefusal:
    """Return error 406: an argument that names an exchange is not a string."""
    return precondition_failed(f"invalid type '{type_name(value)}' for arg '{argument}' in {where} in vhost '{vhost}'")


def resource_locked(queue: str, vhost: str) -> ChannelRefusal:
    """Return error 405: the queue is exclusive to another connection."""
    text = (
        f"cannot obtain exclusive access to locked queue '{queue}' in vhost '{vhost}'. It could be originally "
        "declared on another connection or the exclusive property value does not match that of the original "
        "declaration."
    )
    return ChannelRefusal(Reply.RESOURCE_LOCKED, text)


def not_implemented(text: str) -> ConnectionRefusal:
    """Return error 540: this broker does not implement it."""
    return ConnectionRefusal(Reply.NOT_IMPLEMENTED, text)


def ids_of(event: Event) -> tuple[int, int]:
    """Return the class id and method id of the method at fault, as a close names it; (0, 0) if it is no method."""
    if event[0] == METHOD:
        layout = BY_TYPE[type(event[2])]
        return layout.class_id, layout.method_id
    return PUBLISH_IDS if event[0] == PUBLISH else _ACK_IDS if event[0] == ACK else (0, 0)


def cut_text(text: str) -> str:
    """Cut a reply text to the length of a short string, as RabbitMQ does."""
    raw = text.encode("utf-8", "surrogateescape")
    return (raw if len(raw) <= 255 else raw[:252] + b"...").decode("utf-8", "surrogateescape")
