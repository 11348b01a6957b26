"""Dead letters: the headers and properties of dead-lettered messages (RabbitMQ's docs/dlx, as of 3.10)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from rabbitry.amqp.protocol.properties import Properties, decode_header, encode_header
from rabbitry.amqp.protocol.tables import (
    FieldValue,
    Table,
    TaggedInt,
    encode_short,
    encode_table,
    encode_text,
)
from rabbitry.broker.message import Message, origin_of

REJECTED: Final = "rejected"
EXPIRED: Final = "expired"
MAXLEN: Final = "maxlen"
DELIVERY_LIMIT: Final = "delivery_limit"


def dead_letter(
    message: Message, queue: str, reason: str, exchange: str, routing_key: str | None
) -> tuple[Message, Properties]:
    """Return the message to publish to `exchange`, and its properties.

    Without a dead-letter routing key, it keeps its own.
    """
    origin, own_key = origin_of(message)
    properties = decode_header(message.header)
    headers = dict(properties.headers or {})
    death: dict[str, FieldValue] = {
        "reason": reason,
        "queue": queue,
        "time": datetime.now(UTC).replace(microsecond=0),
        "exchange": origin,
        "routing-keys": [own_key, *copies(headers)],
    }
    if properties.expiration is not None:
        death["original-expiration"] = properties.expiration
    _add_death(headers, death)
    if routing_key is not None:
        headers.pop("CC", None)
    headers = dict(sorted(headers.items()))
    properties = properties._replace(headers=headers, expiration=None)
    key = encode_text(own_key if routing_key is None else routing_key)[:255]  # a queue's may exceed a short string
    letter = Message(
        encode_short(exchange) + bytes((len(key),)) + key,
        encode_header(properties, len(message.body)),
        message.body,
        message.persistent,
    )
    letter.priority = message.priority
    letter.is_owed = True
    if routing_key is None:
        letter.hidden_keys = message.hidden_keys
    return letter, properties


def copies(headers: Table) -> list[str]:
    """Return the routing keys of a CC header, which was checked when the message was published."""
    value = headers.get("CC")
    return [str(key) for key in value] if isinstance(value, list) else []


def is_cycle(queue: str, headers: Table) -> bool:
    """Return whether a message is in a cycle without a rejection through `queue`, and therefore has to be dropped."""
    deaths = headers.get("x-death")
    if not isinstance(deaths, Sequence):
        return False
    for death in deaths:
        if not isinstance(death, dict):
            continue
        if death.get("reason") == REJECTED:
            return False
        if death.get("queue") == queue:
            return True
    return False


def _add_death(headers: dict[str, FieldValue], death: dict[str, FieldValue]) -> None:
    """Count a death of the same queue and reason, or insert a new one at the front."""
    deaths = headers.get("x-death")
    if not isinstance(deaths, list):
        headers["x-death"] = [{"count": TaggedInt(1, b"l"), **death}]
        if deaths is None:
            headers["x-first-death-reason"] = death["reason"]
            headers["x-first-death-queue"] = death["queue"]
            headers["x-first-death-exchange"] = death["exchange"]
        return
    others: list[FieldValue] = []
    place = _place(death)
    first: dict[str, FieldValue] = {"count": TaggedInt(1, b"l"), **death}
    for known in _grouped(deaths):
        if _place(known) == place:
            count = known.get("count")
            number = count + 1 if isinstance(count, int) else 1
            first = dict(sorted({**known, "count": TaggedInt(number, b"l")}.items()))
        else:
            others.append(known)
    headers["x-death"] = [first, *others]


def _place(death: Table) -> tuple[FieldValue, FieldValue] | bytes:
    queue, reason = death.get("queue"), death.get("reason")
    if isinstance(queue, str) and isinstance(reason, str):
        return queue, reason
    return encode_table({"queue": queue, "reason": reason})  # sent by a client; encoded, it can be a key


def _grouped(deaths: list[FieldValue]) -> list[Table]:
    """Merge deaths of the same queue and reason, which brokers before RabbitMQ 3.5.2 listed one by one.

    RabbitMQ reverses the list in doing so, and drops items that are not tables.
    """
    grouped: dict[tuple[FieldValue, FieldValue] | bytes, tuple[Table, int]] = {}
    for table in deaths:
        if isinstance(table, dict):
            place = _place(table)
            first, number = grouped.get(place, (table, 0))
            grouped[place] = first, number + 1
    return [
        table if "count" in table else {"count": TaggedInt(number, b"l"), **table}
        for table, number in reversed(grouped.values())
    ]
