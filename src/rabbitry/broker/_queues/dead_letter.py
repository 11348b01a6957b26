"""Dead letters: the headers and properties of dead-lettered messages (RabbitMQ's docs/dlx)."""

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
from rabbitry.broker._queues.arguments import Rules
from rabbitry.broker.compat import Release
from rabbitry.broker.message import Message, origin_of

REJECTED: Final = "rejected"
EXPIRED: Final = "expired"
MAXLEN: Final = "maxlen"
DELIVERY_LIMIT: Final = "delivery_limit"
_DEATHS: Final = (
    "x-death",
    *(f"x-{which}-death-{name}" for which in ("first", "last") for name in ("reason", "queue", "exchange")),
)
"""The headers of a dead letter."""


def dead_letter(
    message: Message, queue: str, reason: str, exchange: str, rules: Rules, release: Release
) -> tuple[Message, Properties, list[str]]:
    """Return the message to publish to `exchange`, its properties, and the routing keys of its CC header.

    Without a dead-letter routing key, it keeps its own and those of CC.

    Args:
        message: The message that died.
        queue: The name of the queue in which it died.
        reason: Why.
        exchange: The dead-letter exchange.
        rules: The queue's rules.
        release: The behaviour of the broker's release of RabbitMQ.
    """
    routing_key = rules.dead_letter_routing_key
    origin, own_key = origin_of(message)
    properties = decode_header(message.header)
    headers = dict(properties.headers or {})
    if message.has_foreign_deaths:
        headers = {name: value for name, value in headers.items() if name not in _DEATHS}
    own_copies = copies(headers)
    death: dict[str, FieldValue] = {
        "reason": reason,
        "queue": queue,
        "time": datetime.now(UTC).replace(microsecond=0),
        "exchange": origin,
        "routing-keys": [own_key, *own_copies],
    }
    if properties.expiration is not None:
        death["original-expiration"] = properties.expiration
    _add_death(headers, death, keeps_order=release.owns_deaths)
    if release.owns_deaths:
        headers |= {f"x-last-death-{name}": death[name] for name in ("reason", "queue", "exchange")}
    if routing_key is not None:
        own_copies = []
        if not release.owns_deaths:
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
    return letter, properties, own_copies


def has_foreign_deaths(headers: Table | None, release: Release) -> bool:
    """Return whether a client's message has deaths that the broker must not count on."""
    return release.owns_deaths and headers is not None and "x-death" in headers


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


def _add_death(headers: dict[str, FieldValue], death: dict[str, FieldValue], *, keeps_order: bool) -> None:
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
    known_deaths = [known for known in deaths if isinstance(known, dict)] if keeps_order else _grouped(deaths)
    for known in known_deaths:
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
