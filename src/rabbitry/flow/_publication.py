"""The message that publishes a value to an app."""

from __future__ import annotations

from typing import Any, Final

from rabbitry.amqp.client import Properties
from rabbitry.amqp.protocol.tables import Table
from rabbitry.exceptions import UsageError
from rabbitry.flow import _tracing
from rabbitry.flow.codec import encode
from rabbitry.flow.key import Key, check_value, name_of
from rabbitry.flow.message import EXPIRES, VERSION, Message, Publication, first_properties, with_given
from rabbitry.flow.outgoing import Outgoing, extra_of, properties_of
from rabbitry.flow.spec import AppSpec
from rabbitry.flow.timing import Timing, expiry_of
from rabbitry.flow.wiring.delays import delayed

_LONGEST_EXPIRATION: Final = 10 * 365 * 86_400.0
"""Seconds of the longest `expiration` that RabbitMQ takes."""


def publication_of(
    spec: AppSpec,
    value: object,
    key: str | Key[Any],
    headers: Table | None = None,
    timing: Timing | None = None,
    identity: str | None = None,
) -> tuple[str, Publication]:
    """Make the message that publishes `value` with `key`, the first of its chain; its id goes before it.

    An Outgoing's own key and headers go before `key` and `headers`. Raises UsageError for a key that leads nowhere or a
    value that can't be encoded or is not of the key's type, and with a delay for a key that leads to no known queue.

    identity: the message's id, None for a random one.
    """
    made, message = _at_once(spec, value, key, headers)
    if identity is None:
        identity = made
    else:
        message = with_id(message, identity)
    return identity, message if timing is None else _timed(spec, message, timing)


def with_id(message: Publication, identity: str) -> Publication:
    """Return a message with another id, which is its correlation id too if it begins a chain."""
    properties = message.properties
    assert isinstance(properties, Properties)  # noqa: S101 # of `_at_once`; narrows the type
    if properties.correlation_id == properties.message_id:
        properties = properties._replace(correlation_id=identity)
    return message._replace(properties=properties._replace(message_id=identity))


def _at_once(spec: AppSpec, value: object, key: str | Key[Any], headers: Table | None) -> tuple[str, Publication]:
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


def addressed(
    spec: AppSpec, body: bytes, properties: Properties, key: str, timing: Timing | None = None
) -> Publication:
    """Make the message that publishes an encoded body with `key`. Raises UsageError as `publication_of` does."""
    if not spec.leads_somewhere(key):
        keys = ", ".join(sorted(set(spec.keys)))
        raise UsageError(f"key {key!r} leads nowhere in app {spec.name!r}; it has {keys}")
    if (version := spec.version_of(key)) > 1:
        properties = properties._replace(headers={**(properties.headers or {}), VERSION: version})
    message = Publication(spec.exchange_of(key), key, body, properties, mandatory=spec.is_required(key))
    return message if timing is None else _timed(spec, message, timing)


def following(
    spec: AppSpec,
    cause: Message,
    value: object,
    key: str | Key[Any],
    headers: Table | None,
    priority: int | None,
    timing: Timing | None,
) -> tuple[str, Publication]:
    """Make the message that publishes `value` as one that follows from a message; its id goes before it.

    See `Context.publish` for the arguments, and `publication_of` for the errors.
    """
    trace = _tracing.current() or _tracing.carried(cause.headers)
    identity, message = _at_once(spec, value, key, {**trace, **(headers or {})})
    properties = message.properties
    assert isinstance(properties, Properties)  # noqa: S101 # of `_at_once`; narrows the type
    if priority is not None and properties.priority is None:
        properties = properties._replace(priority=priority)
    message = message._replace(properties=properties._replace(correlation_id=cause.correlation_id or identity))
    return identity, message if timing is None else _timed(spec, message, timing)


def _timed(spec: AppSpec, message: Publication, timing: Timing) -> Publication:
    """Return the message with its times. Raises UsageError for a delay of a key that leads to no known queue."""
    properties = message.properties
    assert isinstance(properties, Properties)  # noqa: S101 # of `_at_once`; narrows the type
    own = properties.expiration
    if timing.delay and timing.expires is None and own is not None and own.isdecimal():
        # An Outgoing's expiration counts from the delivery too: on the way it would apply to each queue of delays.
        timing = timing._replace(expires=int(own) / 1000, expired="drop")
    expires = timing.expires if timing.expired == "drop" and not timing.delay else None
    if expires is not None and expires <= _LONGEST_EXPIRATION:
        # The broker drops it then, also while no worker runs.
        properties = properties._replace(expiration=str(round(expires * 1000)))
    elif expiry := expiry_of(timing):
        properties = properties._replace(expiration=None, headers={**(properties.headers or {}), EXPIRES: str(expiry)})
    message = message._replace(properties=properties)
    if not timing.delay:
        return message
    queues = spec.queues_of(message.routing_key)
    if not queues:
        raise UsageError(
            f"key {message.routing_key!r} leads to no queue that app {spec.name!r} knows, so that nothing can be "
            "delivered to it later: declare its queue with app.output(KEY, queue=…), or have it delivered at once"
        )
    return delayed(queues, message, timing.delay)
