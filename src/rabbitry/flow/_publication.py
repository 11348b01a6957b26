"""The message that publishes a value to an app."""

from __future__ import annotations

import math
from typing import Any

from rabbitry.amqp.client import Properties
from rabbitry.amqp.protocol.tables import Table
from rabbitry.exceptions import UsageError
from rabbitry.flow import _tracing
from rabbitry.flow.codec import encode
from rabbitry.flow.key import Key, check_value, name_of
from rabbitry.flow.message import Message, Publication, first_properties, with_given
from rabbitry.flow.outgoing import Outgoing, extra_of, properties_of
from rabbitry.flow.spec import AppSpec
from rabbitry.flow.wiring.retries import delayed


def publication_of(
    spec: AppSpec, value: object, key: str | Key[Any], headers: Table | None = None
) -> tuple[str, Publication]:
    """Make the message that publishes `value` with `key`, the first of its chain; its id goes before it.

    An Outgoing's own key and headers go before `key` and `headers`. Raises UsageError for a key that leads nowhere or a
    value that can't be encoded or is not of the key's type.
    """
    given = Properties()
    if isinstance(value, Outgoing):
        extra_of(value, None)  # raises for what can't be published
        given = properties_of(value)
        key = key if value.key is None else value.key
        value = value.value
    name = name_of(key)
    try:
        encoded = encode(value)
    except (TypeError, ValueError) as error:
        raise UsageError(f"a {type(value).__name__} can't be published with key {name!r}: {error}") from error
    typed = key if isinstance(key, Key) else spec.types.get(name)
    if typed is not None:
        check_value(typed, value, encoded)
    all_headers = {**(headers or {}), **(given.headers or {})}
    properties = with_given(first_properties(spec.name, encoded.content_type, encoded.type_name, all_headers), given)
    return properties.message_id or "", addressed(spec, encoded.body, properties, name)


def addressed(spec: AppSpec, body: bytes, properties: Properties, key: str) -> Publication:
    """Make the message that publishes an encoded body with `key`. Raises UsageError for a key that leads nowhere."""
    if not spec.leads_somewhere(key):
        keys = ", ".join(sorted(set(spec.keys)))
        raise UsageError(f"key {key!r} leads nowhere in app {spec.name!r}; it has {keys}")
    return Publication(spec.exchange_of(key), key, body, properties, mandatory=spec.is_required(key))


def following(
    spec: AppSpec,
    cause: Message,
    value: object,
    key: str | Key[Any],
    headers: Table | None,
    priority: int | None,
    delay: float | None,
    *,
    waits: bool = True,
) -> tuple[str, list[Publication]]:
    """Make the messages that publish `value` as one that follows from a message; its id goes before them.

    There is one, or with a delay one for each queue that the key leads to. waits: False ignores the delay. See
    `Context.publish` for the other arguments, and `publication_of` for the errors.
    """
    trace = _tracing.current() or _tracing.carried(cause.headers)
    identity, message = publication_of(spec, value, key, {**trace, **(headers or {})})
    properties = message.properties
    assert isinstance(properties, Properties)  # noqa: S101 # of `publication_of`; narrows the type
    if priority is not None and properties.priority is None:
        properties = properties._replace(priority=priority)
    message = message._replace(properties=properties._replace(correlation_id=cause.correlation_id or identity))
    if delay is None:
        return identity, [message]
    if not (isinstance(delay, int | float) and 0 <= delay < math.inf):
        raise UsageError(f"delay={delay!r}: give seconds, not negative")
    queues = spec.queues_of(message.routing_key)
    if not queues:
        raise UsageError(
            f"delay={delay!r}: key {message.routing_key!r} leads to no queue that app {spec.name!r} knows: "
            "declare it with app.output(KEY, queue=…), or publish without a delay"
        )
    if not waits:
        return identity, [message]
    return identity, [delayed(spec.name, queue, message, delay) for queue in queues]
