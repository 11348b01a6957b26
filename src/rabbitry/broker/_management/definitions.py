"""Definitions as JSON: exporting everything declared as one document, and parsing its parts.

The format is RabbitMQ's (docs/definitions). `importing` reads whole documents.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from rabbitry.amqp.protocol.constants import DEFAULT_FRAME_MAX
from rabbitry.amqp.protocol.tables import FieldValue, Table, TaggedInt, encode_short, encode_table
from rabbitry.broker._erlang import erlang_json
from rabbitry.broker._exchanges import Binding, Exchange
from rabbitry.broker._management import views
from rabbitry.broker._management.encoding import Json, encode
from rabbitry.broker._management.listing import encoded
from rabbitry.broker._management.pace import Pace
from rabbitry.broker._policies import POLICY, Policy, check
from rabbitry.broker._queues import Queue
from rabbitry.broker._vhost import VirtualHost
from rabbitry.broker.broker import Broker
from rabbitry.broker.compat import Release
from rabbitry.exceptions import RabbitryError, UsageError

_QUEUE: Final = ("name", "vhost", "durable", "auto_delete", "arguments")
_EXCHANGE: Final = ("name", "vhost", "type", "durable", "auto_delete", "internal", "arguments")
_BINDING: Final = ("source", "vhost", "destination", "destination_type", "routing_key", "arguments")
_MOST_OF_TABLE: Final = DEFAULT_FRAME_MAX
"""Most bytes of JSON of a table, which is read in one step: about as much as an AMQP frame can hold."""
_Section = tuple[str, Iterable[Any], Callable[[Any], Json]]


class BadDefinition(RabbitryError):
    """A definition is invalid; the text names it."""


async def export(broker: Broker, pace: Pace, only: VirtualHost | None = None) -> list[bytes]:
    """Return everything declared, as pieces of one JSON document.

    Exclusive queues and the predeclared exchanges (`amq.…`) are left out. only: the one virtual host to export, without
    its
    name and without users; None means all of them.
    """
    sections = [*([] if only is not None else _of_broker(broker)), *_of_vhosts(broker, only)]
    version = broker.config.release.version
    head: Json = {"rabbit_version": version}
    if only is None:
        head |= {"rabbitmq_version": version, "product_name": "RabbitMQ", "product_version": version}
    chunks = [encode(head)[:-1]]
    async with pace:
        for name, items, view in sections:
            chunks.append(b',"%s":[' % name.encode())
            chunks += await encoded(items, view, pace)
            chunks.append(b"]")
    return [*chunks, b"}"]


def _of_broker(broker: Broker) -> list[_Section]:
    access = broker.access
    permissions = [(*place, item) for place, item in access.permissions.items()]
    topics = [(*place, item) for place, item in access.topic_permissions.items()]
    return [
        ("users", list(access.users.values()), views.user),
        ("vhosts", list(broker.vhosts.values()), views.vhost_definition),
        ("permissions", permissions, lambda item: views.permission(*item)),
        ("topic_permissions", topics, lambda item: views.topic_permission(*item)),
        ("global_parameters", views.global_parameters(broker), lambda item: item),
    ]


def _of_vhosts(broker: Broker, only: VirtualHost | None) -> list[_Section]:
    hosts = [only] if only is not None else list(broker.vhosts.values())
    without = () if only is None else ("vhost",)

    def picked(view: Callable[..., Json], names: tuple[str, ...] = ()) -> Callable[[Any], Json]:
        """Return a view that shows only these fields, or all, without the virtual host if only one is exported."""

        def pick(item: Any) -> Json:
            shown = view(*item) if type(item) is tuple else view(item)
            return {name: shown[name] for name in names or shown if name not in without}

        return pick

    # All are collected in one iteration of the event loop, as one state of the broker, and picked while they are
    # encoded.
    queues = [(host, list(host.queues.values())) for host in hosts]
    exchanges = [(host, list(host.exchanges.values())) for host in hosts]
    bindings = [(host, list(host.all_bindings())) for host in hosts]
    policies = [item for item in broker.policies if only is None or item.vhost == only.name]
    return [
        ("parameters", [item for host in hosts for item in views.parameters(broker, host)], picked(dict)),
        ("policies", policies, picked(views.policy)),
        (
            "queues",
            (item for _, its in queues for item in its if item.owner is None),
            picked(views.queue_as_declared, _QUEUE),
        ),
        (
            "exchanges",
            ((item, host) for host, its in exchanges for item in its if not _is_predeclared(item)),
            picked(views.exchange, _EXCHANGE),
        ),
        (
            "bindings",
            ((item, host) for host, its in bindings for item in its if not _is_exclusive(item)),
            picked(views.binding, _BINDING),
        ),
    ]


def _is_predeclared(exchange: Exchange) -> bool:
    return not exchange.name or exchange.name.startswith("amq.")


def _is_exclusive(binding: Binding) -> bool:
    return isinstance(binding.destination, Queue) and binding.destination.owner is not None


# -- parsing parts from JSON -------------------------------------------------------------------------------


def policy(vhost: str, name: str, item: Mapping[str, object], release: Release, component: str = POLICY) -> Policy:
    """Parse a policy from JSON and check it. Raises BadDefinition with RabbitMQ's text."""
    pattern, definition = item.get("pattern"), item.get("definition")
    priority, apply_to = item.get("priority", 0), item.get("apply-to", "all")
    if not isinstance(pattern, str):
        raise _invalid(f"pattern should be a binary but was {_printed(pattern)}")
    if not isinstance(definition, dict):
        text = f"parse error while reading policy definition: {_printed(definition)}. Validator: policy_validator."
        raise _invalid(text)
    if not isinstance(priority, int | float) or isinstance(priority, bool):
        raise _invalid(f"priority should be a number, actually was {_printed(priority)}")
    if not isinstance(apply_to, str):
        raise _invalid(f"apply-to '{_printed(apply_to)}' unrecognised; should be 'queues', 'exchanges' or 'all'")
    made = Policy(vhost, name, pattern, definition, priority, apply_to)
    try:
        encode_table({"priority": priority})
        check(made, release, component)
    except UsageError as error:
        raise _invalid(str(error)) from error
    return made._replace(definition=table(definition))


def _invalid(text: str) -> BadDefinition:
    return BadDefinition(f"Validation failed\n\n{html.escape(text, quote=False)}\n")


def _printed(value: object) -> str:
    """Return a JSON value as Erlang prints it."""
    return erlang_json(value)


def limits(value: object, names: tuple[str, ...], what: str) -> dict[str, int]:
    """Parse limits from JSON: numbers by name. Raises BadDefinition with RabbitMQ's text."""
    if value == []:  # RabbitMQ's spelling of none
        return {}
    if not isinstance(value, dict):
        raise BadDefinition(f"{what} must be an object")
    unknown = [f"{{{_printed(name)},{_printed(limit)}}}" for name, limit in value.items() if name not in names]
    if unknown:
        raise BadDefinition(f"Unrecognised terms [{','.join(unknown)}] in {what}")
    for name, limit in value.items():
        if not isinstance(limit, int) or isinstance(limit, bool) or limit.bit_length() >= _LONG:
            raise BadDefinition(f"{name} should be a number, actually was {_printed(limit)}")
    return dict(value)


_LONG: Final = 63


def table(value: object) -> Table:
    """Parse arguments from JSON. Raises BadDefinition or UsageError."""
    if value is None or value == []:  # rabbitmqadmin's spelling of none
        return {}
    if not isinstance(value, dict):
        raise BadDefinition("arguments must be an object")
    if len(encode(value)) > _MOST_OF_TABLE:
        raise BadDefinition(f"arguments have more than {_MOST_OF_TABLE >> 10} KiB, which no client could declare")
    try:
        arguments = {str(key): _field(item) for key, item in value.items()}
    except RecursionError as error:
        raise BadDefinition("arguments are nested too deep") from error
    encode_table(arguments)  # raises UsageError for values too long, too large or too deep
    return arguments


def _field(value: object) -> FieldValue:
    if isinstance(value, dict):
        return {str(key): _field(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_field(item) for item in value]
    if isinstance(value, int) and not isinstance(value, bool):
        return TaggedInt(value, b"l")  # JSON's integers are long ones to RabbitMQ
    if value is None or isinstance(value, bool | float | str):
        return value
    raise BadDefinition(f"{value!r} can't be an argument")


def text(item: Mapping[str, object], name: str) -> str:
    """Return a string field of a definition.

    Raises:
        BadDefinition: The field is missing or not a string.
    """
    value = item.get(name)
    if not isinstance(value, str):
        raise BadDefinition(f"{name} must be a string, not {value!r}")
    return value


def short(item: Mapping[str, object], name: str) -> str:
    """Return a field that AMQP sends as a short string (255 bytes at most). Raises BadDefinition or UsageError."""
    value = text(item, name)
    encode_short(value)
    return value


def named(item: Mapping[str, object], name: str = "name") -> str:
    """Return a name: a short string that is not empty. Raises BadDefinition or UsageError."""
    if not short(item, name):
        raise BadDefinition(f"{name} is empty")
    return short(item, name)


def flag(item: Mapping[str, object], name: str) -> bool:
    """Return a boolean field, which RabbitMQ requires.

    Raises:
        BadDefinition: The field is missing or not a boolean.
    """
    value = item.get(name)
    if not isinstance(value, bool):
        raise BadDefinition(f"{name} of {item.get('name')!r} must be true or false, not {value!r}")
    return value
