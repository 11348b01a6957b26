"""Publishing, and looking into queues, over HTTP."""

import base64
import time
from typing import TYPE_CHECKING

from warren.amqp.protocol.properties import Properties, decode_header, encode_header
from warren.amqp.protocol.tables import encode_short
from warren.broker.errors import precondition_failed
from warren.broker.management import views
from warren.broker.management.definitions import BadDefinition, table
from warren.broker.management.views import Json
from warren.broker.publishing import read_expiration, routing_keys
from warren.broker.queues import Entry, Message, Queue
from warren.broker.queues.dead_letter import origin_of
from warren.broker.queues.message import check_delivery_mode
from warren.broker.queues.reply_to import REPLY_TO

if TYPE_CHECKING:
    from warren.broker.vhost import VirtualHost

_ACK_MODES = ("ack_requeue_true", "ack_requeue_false", "reject_requeue_true", "reject_requeue_false")


def publish(vhost: "VirtualHost", exchange: str, body: Json, user: str) -> bool:
    """Publish a message that came as JSON; says whether any queue took it.

    Raises BadDefinition, Refusal or UsageError.
    """
    key, payload = body.get("routing_key"), body.get("payload")
    encoding = body.get("payload_encoding", "string")
    if not isinstance(key, str) or not isinstance(payload, str):
        raise BadDefinition("routing_key and payload are strings")
    if encoding == "base64":
        try:
            content = base64.b64decode(payload, validate=True)
        except ValueError as error:
            raise BadDefinition("the payload is no base64") from error
    elif encoding == "string":
        content = payload.encode()
    else:
        raise BadDefinition(f"Unsupported encoding: {encoding}")
    properties = _properties(body.get("properties") or {})
    if properties.delivery_mode is not None:
        check_delivery_mode(properties.delivery_mode)
    if properties.reply_to == REPLY_TO:
        raise precondition_failed("fast reply consumer does not exist")
    message = Message(
        encode_short(exchange) + encode_short(key),
        encode_header(properties, len(content)),
        content,
        properties.delivery_mode == 2,
    )
    message.priority = properties.priority or 0
    if properties.expiration is not None:
        message.expiration = read_expiration(properties.expiration)
    if properties.user_id not in (None, user):
        text = f"user_id property set to '{properties.user_id}' but authenticated user was '{user}'"
        raise precondition_failed(text)
    headers = properties.headers or {}
    queues, _ = vhost.route(vhost.exchange(exchange), routing_keys(key, headers), headers)
    for queue in queues:
        queue.push(message)
        vhost.broker.touch(queue)
    return bool(queues)


def _properties(given: object) -> Properties:
    if not isinstance(given, dict):
        raise BadDefinition("properties are an object")
    unknown = set(given) - set(Properties._fields)
    if unknown:
        raise BadDefinition(f"unknown property: {sorted(unknown)[0]}")
    values = dict(given)
    if "headers" in values:
        values["headers"] = table(values["headers"])
    return Properties(**values)


async def get(queue: Queue, body: Json) -> list[Json]:
    """Take messages from a queue and give them as JSON. Raises BadDefinition."""
    count, mode = body.get("count"), body.get("ackmode")
    encoding, truncate = body.get("encoding", "auto"), body.get("truncate")
    count = int(count) if isinstance(count, str) and count.isdecimal() and len(count) < 10 else count
    if not isinstance(count, int) or mode not in _ACK_MODES or encoding not in ("auto", "base64"):
        raise BadDefinition(f"count is a number, ackmode one of {', '.join(_ACK_MODES)}, encoding auto or base64")
    entries: list[Entry] = []
    shown: list[Json] = []
    while len(entries) < count:
        entry = queue.get()
        if entry is None and not queue.ready:
            break
        if entry is None:
            await queue.vhost.journal.committed_now()  # the store gives what it has
            continue
        queue.unsettled += 1
        entries.append(entry)
        shown.append(_shown(queue, entry, str(encoding), truncate if isinstance(truncate, int) else None))
    for entry in entries:
        if mode.endswith("requeue_true"):
            queue.requeue(entry)
        elif mode == "reject_requeue_false":
            queue.rejected(entry)
        else:
            queue.settled(entry)
    queue.vhost.broker.touch(queue)
    return shown


def _shown(queue: Queue, entry: Entry, encoding: str, truncate: int | None) -> Json:
    message = entry.message
    exchange, key = origin_of(message)
    payload = message.body[:truncate] if truncate is not None else message.body
    try:
        text, used = payload.decode() if encoding == "auto" else base64.b64encode(payload).decode(), "string"
    except UnicodeDecodeError:
        text, used = base64.b64encode(payload).decode(), "base64"
    properties = {
        name: views.plain(value) for name, value in decode_header(message.header)._asdict().items() if value is not None
    }
    return {
        "payload_bytes": len(message.body),
        "redelivered": entry.redelivered,
        "exchange": views.plain(exchange),
        "routing_key": views.plain(key),
        "message_count": len(queue),
        "properties": properties or [],
        "payload": text,
        "payload_encoding": "base64" if encoding == "base64" else used,
    }


def aliveness(vhost: "VirtualHost") -> None:
    """Declare a queue, publish to it and take the message back. Raises BadDefinition where that does not work."""
    queue = vhost.declare_queue("aliveness-test", None, durable=False, exclusive=False, auto_delete=False, arguments={})
    publish(vhost, "", {"routing_key": queue.name, "payload": f"test_message {time.time()}"}, "")
    entry = queue.get()
    if entry is None:
        raise BadDefinition("the message did not come back")
    queue.unsettled += 1
    queue.settled(entry)
