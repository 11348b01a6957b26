"""Replies of a stage to the caller of a message, and their values for the caller."""

from __future__ import annotations

import time
from typing import Any, Final, NamedTuple

from rabbitry._decode import decode_text
from rabbitry._errors import LONGEST_ERROR, sendable
from rabbitry.amqp.client import Delivery, Properties
from rabbitry.amqp.protocol.tables import FieldValue, Table
from rabbitry.flow._fitting import ERROR
from rabbitry.flow.codec import JSON, TEXT, Codec, Encoded, encode
from rabbitry.flow.exceptions import CallCancelled, CallFailed
from rabbitry.flow.message import REASON, Publication, Role, text_header

PROGRESS: Final = "x-rabbitry-progress"
"""A header of replies with progress, which precede the last reply."""
CANCELLED: Final = "cancelled"
"""The reason in the reply for a message that was cancelled."""
HANDLED: Final = "handled"
"""The reason in the reply for a message that an idempotent stage had handled before."""
REPLY_TO: Final = "amq.rabbitmq.reply-to"
"""The pseudo-queue of direct reply-to (RabbitMQ's docs/direct-reply-to)."""


class ReplyTo(NamedTuple):
    """The address of replies to a message, and the id by which the caller recognizes them."""

    reply_to: str
    correlation_id: str


def caller_of(properties: Properties) -> ReplyTo | None:
    """Return where replies to a message go; None if it asks for none."""
    if not properties.reply_to:
        return None
    return ReplyTo(properties.reply_to, properties.correlation_id or properties.message_id or "")


def reply(app: str, caller: ReplyTo, encoded: Encoded, headers: dict[str, FieldValue] | None = None) -> Publication:
    """Return the reply to a caller. The broker drops it if the caller is gone."""
    properties = Properties(
        content_type=encoded.content_type,
        headers=headers or None,
        delivery_mode=1,
        correlation_id=caller.correlation_id,
        timestamp=int(time.time()),
        type=sendable(encoded.type_name[:60])[:60],
        app_id=app,
    )
    return Publication("", caller.reply_to, encoded.body, properties, mandatory=False, role=Role.REPLY)


def error_reply(app: str, caller: ReplyTo, reason: str, error: str) -> Publication:
    """Return the message that has the error of a message that failed for good, for its caller."""
    headers: dict[str, FieldValue] = {REASON: sendable(reason[:64])[:64], ERROR: sendable(error[:LONGEST_ERROR])}
    return reply(app, caller, Encoded(b"", TEXT, "error"), headers)._replace(role=Role.ERROR_REPLY)


def progress_reply(app: str, caller: ReplyTo, value: object) -> Publication:
    """Return the message that has a message's progress, for its caller. Raises TypeError if it can't be encoded."""
    return reply(app, caller, encode(value), {PROGRESS: True})


def is_progress(headers: Table) -> bool:
    """Return whether a reply is progress, and the last reply is still to come."""
    return PROGRESS in headers


def value_of(delivery: Delivery, type_: Any = None) -> Any:
    """Return the value of a reply, decoded to a type, or as its content type says.

    Raises CallFailed, CallCancelled and Undecodable.
    """
    properties = delivery.properties
    headers = properties.headers or {}
    if (reason := text_header(headers, REASON)) is not None:
        kind = CallCancelled if reason == CANCELLED else CallFailed
        raise kind(text_header(headers, ERROR) or reason, reason=reason)
    if type_ is not None:
        return Codec(type_).decode(delivery.body, properties.content_type)
    if properties.content_type == JSON:
        return Codec(object).decode(delivery.body)
    return decode_text(delivery.body) if properties.content_type == TEXT else delivery.body
