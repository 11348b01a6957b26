"""Publishing, and getting and looking at the messages of queues, over HTTP."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Iterator
from typing import Final

from starlette.datastructures import QueryParams

from rabbitry.amqp.protocol.properties import Properties, decode_header, encode_header
from rabbitry.amqp.protocol.tables import encode_short
from rabbitry.broker._errors import precondition_failed
from rabbitry.broker._exchanges import Exchange
from rabbitry.broker._exchanges.routing import Routed
from rabbitry.broker._management import views
from rabbitry.broker._management.call import bad, need_keys
from rabbitry.broker._management.definitions import BadDefinition, table
from rabbitry.broker._management.encoding import Json, encode
from rabbitry.broker._management.pace import Pace
from rabbitry.broker._publishing import read_expiration, routing_keys
from rabbitry.broker._queues import Queue
from rabbitry.broker._queues.dead_letter import has_foreign_deaths
from rabbitry.broker._queues.reply_to import REPLY_TO
from rabbitry.broker._shares import Shares
from rabbitry.broker._vhost import VirtualHost
from rabbitry.broker.message import Entry, Message, check_delivery_mode, origin_of

_DIGITS: Final = 10
_WAIT: Final = 0.01
"""Seconds between two checks of a queue to which many messages are being requeued."""
_INTEGERS: Final = ("delivery_mode", "priority", "timestamp")
"""Properties that are integers; the others, except headers, are strings."""
MOST_PEEKED: Final = 100
FARTHEST_PEEKED: Final = 100_000
LONGEST_PEEKED: Final = 1 << 20
"""Limits of a look at a queue: messages, messages before the first one, and bytes of each body."""
_ENCODINGS: Final = ("auto", "base64")
_ACK_MODES: Final = ("ack_requeue_true", "ack_requeue_false", "reject_requeue_true", "reject_requeue_false")


async def publish(vhost: VirtualHost, exchange: str, body: Json, user: str, pace: Pace) -> bool:
    """Publish a message from JSON. Return whether it was routed to any queue.

    It is routed in slices: its CC header may have thousands of routing keys. Raises Answer, BadDefinition, Refusal or
    UsageError.
    """
    need_keys(body, "routing_key", "properties", "payload", "payload_encoding")
    key = body["routing_key"]
    if not isinstance(key, str):
        raise BadDefinition("the routing_key must be a string")
    content = _content(body["payload"], body["payload_encoding"])
    given = _properties(body["properties"])
    if given.delivery_mode is not None and vhost.release.checks_delivery_mode:
        check_delivery_mode(given.delivery_mode)
    if given.reply_to == REPLY_TO:
        raise precondition_failed("fast reply consumer does not exist")
    headers = given.headers or {}
    keys = routing_keys(key, headers)
    shown = {name: value for name, value in headers.items() if name != "BCC"}
    properties = given if len(shown) == len(headers) else given._replace(headers=shown)
    message = Message(
        encode_short(exchange) + encode_short(key),
        encode_header(properties, len(content)),
        content,
        properties.delivery_mode == 2,
    )
    message.hidden_keys = tuple(keys[len(routing_keys(key, shown)) :])
    message.priority = properties.priority or 0
    message.has_foreign_deaths = has_foreign_deaths(headers, vhost.release)
    if properties.expiration is not None:
        message.expiration = read_expiration(properties.expiration)
    if properties.user_id not in (None, user):
        text = f"user_id property set to '{properties.user_id}' but authenticated user was '{user}'"
        raise precondition_failed(text)
    source = vhost.exchange(exchange)
    found: list[Routed] = []

    def routing() -> Iterator[None]:
        found.append((yield from vhost.routing(source, keys, given)))

    async with pace:
        for _ in routing():
            await pace.rest()
    queues = [queue for queue in found[0][0] if not queue.is_deleted]
    _count_publish(vhost, source, len(queues))
    if vhost.on_publish is not None:
        vhost.on_publish(vhost.name, message, queues)
    for queue in queues:
        queue.push(message)
        vhost.dispatcher.touch(queue)
    return bool(queues)


def _count_publish(vhost: VirtualHost, source: Exchange, routed: int) -> None:
    """Count a publish as RabbitMQ does, which uses a channel with confirms and returns."""
    source.published_in += 1
    source.more_out += (routed or not source.name) - 1
    vhost.totals.count("publish")
    vhost.totals.count("confirm")
    if not routed:
        vhost.totals.count("return_unroutable")


def _content(payload: object, encoding: object) -> bytes:
    if not isinstance(payload, str):
        raise bad("payload_not_string")
    if encoding == "string":
        return payload.encode()
    if encoding != "base64":
        raise bad(["unsupported_encoding", encoding])
    try:
        return base64.b64decode(payload, validate=True)
    except ValueError as error:
        raise bad(["not_base64", payload]) from error


def _properties(given: object) -> Properties:
    """Return a message's properties; unknown ones are dropped, as on RabbitMQ. An empty list means none.

    Raises Answer (400) with RabbitMQ's text for a value of another type.
    """
    if given == []:
        given = {}
    if not isinstance(given, dict):
        raise BadDefinition("properties must be an object")
    values = {name: value for name, value in given.items() if name in Properties._fields}
    for name, value in values.items():
        if name in _INTEGERS:
            if not isinstance(value, int) or isinstance(value, bool):
                raise bad(["not_int", name])
        elif name != "headers" and not isinstance(value, str):
            raise bad(["not_string", name])
    if "headers" in values:
        values["headers"] = table(values["headers"])
    return Properties(**values)


async def get(vhost: VirtualHost, queue: Queue, body: Json, pace: Pace, shares: Shares) -> list[bytes]:
    """Get messages from a queue, according to count, ackmode and encoding in the body. Return each as JSON.

    They are taken and given back in slices. Raises Answer for invalid values, Refusal if the queue can't be read in
    this way.
    """
    count, mode, encoding = _integer(body["count"]), body["ackmode"], body["encoding"]
    truncate = _integer(body["truncate"]) if "truncate" in body else None
    if mode not in _ACK_MODES:
        raise bad(f"ackmode must be one of {', '.join(_ACK_MODES)}")
    if encoding not in _ENCODINGS:
        raise bad("Unsupported encoding. Please use auto or base64.")
    queue.check_get()
    taken: list[Entry] = []
    shown: list[bytes] = []
    settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def then() -> None:
        if not settled.done():  # the client may be gone
            settled.set_result(None)

    try:
        while len(taken) < count:
            async with pace:
                while len(taken) < count and (entry := queue.get()) is not None:
                    taken.append(entry)
                    _count_get(vhost, queue, entry, no_ack=mode == "ack_requeue_false")
                    shown.append(encode(_shown(queue, entry, encoding, truncate)))
                    await pace.rest()
            if len(taken) < count and not await _has_more(vhost, queue):
                break
    finally:  # also if the request is cancelled
        if shares.work(_settling(vhost, queue, taken, mode), then, vhost.journal.may_grow):
            then()
    await settled
    return shown


async def _has_more(vhost: VirtualHost, queue: Queue) -> bool:
    """Return whether a queue that had no message just now has one, or may have one now."""
    if queue.is_busy:
        await asyncio.sleep(_WAIT)
        return True
    if not queue.ready:
        queue.got_nothing += 1
        vhost.totals.count("get_empty")
        return False
    if queue.is_loading:
        await vhost.journal.loaded_now(queue)
    else:
        await asyncio.sleep(_WAIT)
    return True


def _settling(vhost: VirtualHost, queue: Queue, taken: list[Entry], mode: str) -> Iterator[None]:
    """Settle messages in steps; nothing is delivered until all that are requeued are back in their places."""
    queue.returning += 1
    try:
        for entry in taken:
            if mode.endswith("requeue_true"):
                queue.requeue(entry)
            elif mode == "reject_requeue_false":
                queue.rejected(entry)
            else:
                queue.settled(entry)
            yield
    finally:
        queue.returning -= 1
        vhost.dispatcher.touch(queue)
        vhost.dispatcher.dispatch_soon()


async def peek(vhost: VirtualHost, queue: Queue, pace: Pace, query: QueryParams) -> Json:
    """Return ready messages of a queue as JSON, according to count, offset, encoding and truncate in the query.

    Nothing is taken, marked or counted. Raises Answer for an invalid query.
    """
    count = _within(query, "count", 10, MOST_PEEKED)
    offset = _within(query, "offset", 0, FARTHEST_PEEKED)
    truncate = _within(query, "truncate", 50_000, LONGEST_PEEKED)
    encoding = query.get("encoding", "auto")
    if encoding not in _ENCODINGS:
        raise bad("Unsupported encoding. Please use auto or base64.")
    before = -1
    while before < (held := sum(1 for _ in queue.first_held(offset + count))) < offset + count and queue.read_ahead():
        before = held
        await vhost.journal.loaded_now(queue)  # after a restart, only the first messages are in memory
    shown: list[Json] = []
    async with pace:
        for place, entry in enumerate(queue.first_held(offset + count)):
            if place >= offset:
                shown.append(_shown(queue, entry, encoding, truncate))
            if pace.is_over:
                await pace.rest()
    return {"ready": len(queue), "offset": offset, "messages": shown}


def _within(query: QueryParams, name: str, default: int, most: int) -> int:
    found = _integer(query.get(name, str(default)))
    if found > most:
        raise bad(f"{name} must be at most {most}")
    return found


def _count_get(vhost: VirtualHost, queue: Queue, entry: Entry, *, no_ack: bool) -> None:
    queue.delivered += 1
    queue.sent_no_ack += no_ack
    queue.got_no_ack += no_ack
    vhost.totals.count("get_no_ack" if no_ack else "get")
    if entry.redelivered:
        queue.redelivered += 1
        vhost.totals.count("redeliver")


def _integer(value: object) -> int:
    number = int(value) if isinstance(value, str) and value.isdecimal() and len(value) < _DIGITS else value
    if not isinstance(number, int):
        raise bad(["not_integer", value])
    return number


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


async def aliveness(vhost: VirtualHost, pace: Pace) -> None:
    """Declare a queue, publish to it, and get the message.

    Raises:
        BadDefinition: The message was not in the queue.
    """
    queue = vhost.declare_queue("aliveness-test", None, durable=False, exclusive=False, auto_delete=False, arguments={})
    payload = f"test_message {time.time()}"
    body: Json = {"routing_key": queue.name, "payload": payload, "payload_encoding": "string", "properties": {}}
    await publish(vhost, "", body, "", pace)
    entry = queue.get()
    if entry is None:
        raise BadDefinition("the message was not in the queue")
    _count_get(vhost, queue, entry, no_ack=True)
    queue.settled(entry)
