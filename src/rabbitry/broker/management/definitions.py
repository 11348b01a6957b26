"""Definitions: all that is declared, as one JSON document, out and in (RabbitMQ's docs/definitions)."""

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from rabbitry.amqp.protocol.tables import FieldValue, Table, TaggedInt, encode_short, encode_table
from rabbitry.broker.access import Permission
from rabbitry.broker.management import accounts, views
from rabbitry.broker.management.encoding import Json
from rabbitry.broker.policies import Policy
from rabbitry.broker.queues import Queue
from rabbitry.exceptions import UsageError

if TYPE_CHECKING:
    from rabbitry.broker.broker import Broker
    from rabbitry.broker.vhost import VirtualHost


class BadDefinition(Exception):
    """A definition that makes no sense; the text names it."""


def export(broker: "Broker", only: "VirtualHost | None" = None) -> Json:
    """Return everything durable; of one virtual host without its name and without users, as RabbitMQ does."""
    hosts = [only] if only is not None else list(broker.vhosts.values())
    document: Json = {
        "rabbit_version": views.VERSION,
        "rabbitmq_version": views.VERSION,
        "product_name": "RabbitMQ",
        "product_version": views.VERSION,
    }
    if only is None:
        document["users"] = [views.user(user) for user in broker.access.users.values()]
        document["vhosts"] = [{"name": host.name} for host in hosts]
        document["permissions"] = [
            views.permission(vhost, user, item) for (vhost, user), item in broker.access.permissions.items()
        ]
        document["topic_permissions"] = []
        document["global_parameters"] = [{"name": "cluster_name", "value": views.node_name()}]
    document["parameters"] = []
    document["policies"] = [
        {name: value for name, value in views.policy(item).items() if only is None or name != "vhost"}
        for item in broker.policies
        if only is None or item.vhost == only.name
    ]
    keep = ("name", "durable", "auto_delete", "arguments", *(() if only is not None else ("vhost",)))
    ends = ("source", "destination", "destination_type", "routing_key", "arguments", *(() if only else ("vhost",)))
    document["queues"] = [
        {key: value for key, value in _queue(queue).items() if key in keep}
        for host in hosts
        for queue in host.queues.values()
        if queue.durable and queue.owner is None
    ]
    document["exchanges"] = [
        {key: value for key, value in views.exchange(exchange, host).items() if key in (*keep, "type", "internal")}
        for host in hosts
        for exchange in host.exchanges.values()
        if exchange.durable and exchange.name and not exchange.name.startswith("amq.")
    ]
    document["bindings"] = [
        {key: value for key, value in views.binding(binding, host).items() if key in ends}
        for host in hosts
        for binding in host.all_bindings()
        if binding.source.durable and binding.destination.durable
    ]
    return document


def _queue(queue: Queue) -> Json:
    return {
        "name": queue.name,
        "vhost": queue.vhost.name,
        "durable": True,
        "auto_delete": queue.auto_delete,
        "arguments": views.plain(queue.arguments),
    }


def load(broker: "Broker", document: Mapping[str, object], only: "VirtualHost | None" = None) -> None:
    """Declare what a document says; what is there already stays. Raises BadDefinition, or a refusal of the broker's."""
    users = [(_name(item, "name"), accounts.read(dict(item))) for item in _items(document, "users")]
    for name, account in users:
        broker.access.put_user(name, *account)
    for item in _items(document, "vhosts"):
        broker.add_vhost(_name(item, "name"))
    for item in _items(document, "permissions"):
        if item.get("vhost") not in broker.vhosts or item.get("user") not in broker.access.users:
            raise BadDefinition(f"permissions for {item.get('user')!r} in {item.get('vhost')!r}: one does not exist")
        permission = Permission(*(_text(item, kind) for kind in Permission._fields))
        try:
            broker.access.put_permission(_text(item, "vhost"), _text(item, "user"), permission)
        except UsageError as error:
            raise BadDefinition(
                f"permissions of {_text(item, 'user')!r}: invalid regular expression: {error}"
            ) from error
    for item in _items(document, "policies"):
        broker.put_policy(policy({**item, "vhost": _vhost(broker, item, only).name}))
    for item in _items(document, "exchanges"):
        _vhost(broker, item, only).declare_exchange(
            _name(item, "name"),
            _text(item, "type"),
            durable=item.get("durable") is not False,
            auto_delete=item.get("auto_delete") is True,
            internal=item.get("internal") is True,
            arguments=table(item.get("arguments")),
        )
    for item in _items(document, "queues"):
        _vhost(broker, item, only).declare_queue(
            _name(item, "name"),
            None,
            durable=item.get("durable") is not False,
            exclusive=False,
            auto_delete=item.get("auto_delete") is True,
            arguments=table(item.get("arguments")),
        )
    for item in _items(document, "bindings"):
        host = _vhost(broker, item, only)
        known = host.queues if item.get("destination_type") == "queue" else host.exchanges
        destination = known.get(_text(item, "destination"))
        if destination is None:
            raise BadDefinition(f"a binding names {item.get('destination')!r}, which does not exist")
        host.bind(_text(item, "source"), destination, _key(item, "routing_key"), table(item.get("arguments")))


def policy(item: Mapping[str, object]) -> Policy:
    """Take a policy that came as JSON. Raises BadDefinition."""
    for name in ("pattern", "definition"):
        if name not in item:
            raise BadDefinition(f"[{{key_missing,{name}}}]")
    priority = item.get("priority", 0)
    if isinstance(priority, str) and re.fullmatch("-?[0-9]{1,9}", priority):  # rabbitmqadmin sends text
        priority = int(priority)
    if not isinstance(priority, int) or isinstance(priority, bool):
        raise BadDefinition(f"priority is a number, not {priority!r}")
    definition = item["definition"]
    if not isinstance(definition, dict):
        raise BadDefinition("a policy's definition is an object")
    apply_to = item.get("apply-to", "all")
    return Policy(
        _text(item, "vhost"), _text(item, "name"), _text(item, "pattern"), table(definition), priority, str(apply_to)
    )


def table(value: object) -> Table:
    """Take arguments that came as JSON. Raises BadDefinition, or UsageError."""
    if value is None or value == []:  # rabbitmqadmin's way to say none
        return {}
    if not isinstance(value, dict):
        raise BadDefinition("arguments are an object")
    try:
        arguments = {str(key): _field(item) for key, item in value.items()}
    except RecursionError as error:
        raise BadDefinition("arguments are nested too deep") from error
    encode_table(arguments)  # raises UsageError for what is too long, too large or too deep
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


def _items(document: Mapping[str, object], name: str) -> Iterable[Mapping[str, object]]:
    items = document.get(name, [])
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise BadDefinition(f"{name} is a list of objects")
    return items


def _text(item: Mapping[str, object], name: str) -> str:
    value = item.get(name, "")
    if not isinstance(value, str):
        raise BadDefinition(f"{name} is a string, not {value!r}")
    return value


def _name(item: Mapping[str, object], name: str) -> str:
    """Take a name: what travels as a short string, at most 255 bytes."""
    text = _key(item, name)
    if not text:
        raise BadDefinition(f"{name} is missing, or empty")
    return text


def _key(item: Mapping[str, object], name: str) -> str:
    text = _text(item, name)
    encode_short(text)  # raises UsageError
    return text


def _vhost(broker: "Broker", item: Mapping[str, object], only: "VirtualHost | None") -> "VirtualHost":
    if only is not None:
        return only
    host = broker.vhosts.get(_text(item, "vhost"))
    if host is None:
        raise BadDefinition(f"there is no virtual host {item.get('vhost')!r}")
    return host
