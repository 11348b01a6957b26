"""The broker's objects in the form of the management API; names and shapes are RabbitMQ 3.10's."""

from __future__ import annotations

import base64
import math
import os
import time
import zlib
from datetime import datetime
from decimal import Decimal
from typing import Final
from urllib.parse import quote_plus

from rabbitry.amqp.protocol.tables import FieldValue, Table, encode_table
from rabbitry.broker._channel import Channel, Connection, Consumer
from rabbitry.broker._connection import ClientConnection
from rabbitry.broker._exchanges import Binding, Exchange, types_of
from rabbitry.broker._management import stats
from rabbitry.broker._management.encoding import Json
from rabbitry.broker._management.rates import RETENTION, Counts, Rates
from rabbitry.broker._management.stats import Ranges
from rabbitry.broker._parameters import CLUSTER_NAME
from rabbitry.broker._policies import OPERATOR_POLICY, Policy
from rabbitry.broker._product import PLATFORM, node_name
from rabbitry.broker._queues.queue import Queue
from rabbitry.broker._vhost import VirtualHost
from rabbitry.broker.access import Permission, TopicPermission, User
from rabbitry.broker.broker import Broker
from rabbitry.runtime.resources import descriptor_limit, descriptors_in_use, memory_in_use

_MOST_FILES: Final = 1 << 24
"""Shown where there is no limit: the most that Windows gives a process."""


def plain(value: FieldValue) -> object:
    """Return a table's value as JSON data."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")  # see decode_text
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {str(plain(key)): plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, datetime):
        return int(value.timestamp())
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return int(value)  # without its type tag
    return value


def overview(broker: Broker, rates: Rates, totals: dict[VirtualHost, Counts], ranges: Ranges) -> Json:
    """Return the overview of the broker; `totals` are from `vhost_totals`."""
    version = broker.config.release.version
    return {
        "management_version": version,
        "rates_mode": "basic",
        "sample_retention_policies": {"global": [RETENTION], "basic": [RETENTION], "detailed": [RETENTION]},
        "exchange_types": exchange_types(broker),
        "product_version": version,
        "product_name": "RabbitMQ",
        "rabbitmq_version": version,
        "cluster_name": broker.parameters.cluster_name,
        "erlang_version": "",
        "erlang_full_version": PLATFORM,
        "release_series_support_status": "supported",
        "disable_stats": False,
        "enable_queue_totals": False,
        **stats.of_broker(rates.broker(totals), ranges),
        "object_totals": object_totals(broker),
        "statistics_db_event_queue": 0,
        "node": node_name(),
        "listeners": listeners(broker),
        "contexts": [{"node": node_name(), **item} for item in _contexts(broker)],
    }


def object_totals(broker: Broker) -> dict[str, int]:
    """Return how many objects of each kind there are."""
    vhosts = broker.vhosts.values()
    channels = [channel for connection in broker.connections for channel in connection.channels.values()]
    return {
        "channels": len(channels),
        "connections": len(broker.connections),
        "consumers": sum(len(channel.consumers) for channel in channels),
        "exchanges": sum(len(vhost.exchanges) for vhost in vhosts),
        "queues": sum(len(vhost.queues) for vhost in vhosts),
    }


def _contexts(broker: Broker) -> list[Json]:
    """Return the services available over HTTP."""
    return [
        {
            "description": "RabbitMQ Management",
            "path": "/",
            "cowboy_opts": "",
            "ssl_opts": [],
            "ip": broker.host,
            "port": str(broker.management_port),
        }
    ]


def exchange_types(broker: Broker) -> list[Json]:
    """List the exchange types."""
    types = sorted(types_of(broker.config.release).items())
    return [{"name": name, "description": kind.description, "enabled": True} for name, kind in types]


def listeners(broker: Broker) -> list[Json]:
    """Return the addresses on which the broker listens."""
    found = [("amqp", broker.port), ("http", broker.management_port)]
    if broker.has_tls:
        found.append(("amqp/ssl", broker.tls_port))
    return [
        {"node": node_name(), "protocol": protocol, "ip_address": broker.host, "port": port, "socket_opts": {}}
        for protocol, port in found
        if port is not None
    ]


def node(broker: Broker) -> Json:
    """Return the only node."""
    most_files = descriptor_limit() or _MOST_FILES
    return {
        "name": node_name(),
        "type": "disc" if broker.config.data else "ram",
        "running": True,
        "os_pid": str(os.getpid()),
        "uptime": int((time.time() - broker.started_at) * 1000),
        "processors": os.cpu_count() or 1,
        "mem_used": memory_in_use(),
        "mem_limit": broker.alarms.memory_limit,
        "mem_alarm": "memory" in broker.alarms.on,
        "disk_free": broker.alarms.disk_free,
        "disk_free_limit": broker.alarms.disk_free_limit,
        "disk_free_alarm": "disk" in broker.alarms.on,
        "fd_used": descriptors_in_use(),
        "fd_total": most_files,
        "sockets_used": len(broker.connections),
        "sockets_total": most_files,
        "proc_used": 1,
        "proc_total": 1,
        "rates_mode": "basic",
        "run_queue": 0,
        "partitions": [],
        "exchange_types": exchange_types(broker),
        "auth_mechanisms": [
            {"name": name, "description": f"SASL {name} authentication mechanism", "enabled": True}
            for name in sorted(broker.config.release.mechanisms.decode().split())
        ],
        "applications": [],
        "contexts": _contexts(broker),
        "log_files": [],
        "db_dir": str(broker.config.data or ""),
        "config_files": [],
        "enabled_plugins": ["rabbitmq_management"],
        "net_ticktime": 0,
        "cluster_links": [],
    }


def queue(item: Queue, rates: Rates, ranges: Ranges) -> Json:
    """Return a queue."""
    exclusive = next((consumer.tag for consumer in item.turns if consumer.exclusive), None)
    active = item.turns.active
    shown: Json = {
        "name": item.name,
        "vhost": item.vhost.name,
        "type": item.rules.kind,
        "node": node_name(),
        "state": "running",
        "durable": item.durable,
        "auto_delete": item.auto_delete,
        "exclusive": item.owner is not None,
        "arguments": plain(item.arguments),
        "consumers": len(item.turns),
        "consumer_utilisation": 0,
        "consumer_capacity": 0,
        "exclusive_consumer_tag": exclusive,
        "single_active_consumer_tag": active.tag if active is not None else None,
        "policy": item.policy.name if item.policy is not None else None,
        "operator_policy": item.operator_policy.name if item.operator_policy is not None else None,
        "effective_policy_definition": plain(item.settings),
        "memory": 0,
        "message_bytes_ready": item.ready_bytes,
        "message_bytes": item.ready_bytes,
        "messages_ram": item.ready + item.unsettled,
        "messages_ready_ram": item.ready,
        "messages_unacknowledged_ram": item.unsettled,
        "messages_persistent": item.ready + item.unsettled if item.durable else 0,
        "head_message_timestamp": None,
        **stats.of_queue(rates.queue(item), ranges),
    }
    if item.owner is not None:
        shown["owner_pid_details"] = {"name": item.owner.name, "peer_host": "", "peer_port": 0}
    return shown


def queue_details(item: Queue, rates: Rates, ranges: Ranges) -> Json:
    """Return a queue with its consumers."""
    shown = queue(item, rates, ranges)
    shown["consumer_details"] = [consumer(one) for one in item.turns if isinstance(one, Consumer)]
    shown["deliveries"] = []
    shown["incoming"] = []
    return shown


def queue_as_declared(item: Queue, *, has_totals: bool = False) -> Json:
    """Return a queue for a query with `disable_stats`, with its depths on request."""
    shown: Json = {
        "name": item.name,
        "vhost": item.vhost.name,
        "type": item.rules.kind,
        "node": node_name(),
        "state": "running" if has_totals else "live",
        "durable": item.durable,
        "auto_delete": item.auto_delete,
        "exclusive": item.owner is not None,
        "arguments": plain(item.arguments),
    }
    if has_totals:
        shown["messages"] = item.ready + item.unsettled
        shown["messages_ready"], shown["messages_unacknowledged"] = item.ready, item.unsettled
    return shown


def exchange_with_stats(item: Exchange, vhost: VirtualHost, rates: Rates, ranges: Ranges) -> Json:
    """Return an exchange with its counters."""
    return {**exchange(item, vhost), **stats.of_exchange(rates.exchange(item), ranges)}


def exchange(item: Exchange, vhost: VirtualHost) -> Json:
    """Return an exchange as it was declared."""
    followed: Json = {"policy": item.policy.name} if item.policy is not None else {}
    return {
        **followed,
        "name": item.name,
        "vhost": vhost.name,
        "type": item.type,
        "durable": item.durable,
        "auto_delete": item.auto_delete,
        "internal": item.internal,
        "arguments": plain(item.arguments),
        "user_who_performed_action": "",
    }


def policy(item: Policy) -> Json:
    """Return a policy."""
    return {
        "vhost": item.vhost,
        "name": item.name,
        "pattern": item.pattern,
        "apply-to": item.apply_to,
        "definition": plain(item.definition),
        "priority": item.priority,
    }


def binding(item: Binding, vhost: VirtualHost) -> Json:
    """Return a binding."""
    return {
        "source": item.source.name,
        "vhost": vhost.name,
        "destination": item.destination.name,
        "destination_type": kind_of(item),
        "routing_key": item.routing_key,
        "arguments": plain(item.arguments),
        "properties_key": properties_key(item.routing_key, item.arguments),
    }


def kind_of(item: Binding | Queue) -> str:
    """Return the destination_type of a binding, or of a queue's binding to the default exchange."""
    return "queue" if isinstance(item, Queue) or isinstance(item.destination, Queue) else "exchange"


def default_binding(item: Queue) -> Json:
    """Return the binding that every queue has to the default exchange."""
    return {
        "source": "",
        "vhost": item.vhost.name,
        "destination": item.name,
        "destination_type": "queue",
        "routing_key": item.name,
        "arguments": {},
        "properties_key": properties_key(item.name, {}),
    }


def properties_key(routing_key: str, arguments: Table) -> str:
    """Return the key of a binding among those between the same two ends.

    It contains the routing key percent-encoded, with "+" for a blank, as on RabbitMQ; a path encodes it once more.
    """
    name = quote_plus(routing_key).replace("~", "%7E")  # "~" is the empty key's name
    if not arguments:
        return name or "~"
    digest = zlib.crc32(encode_table(arguments)).to_bytes(4, "big")
    return f"{name}~{base64.urlsafe_b64encode(digest).decode().rstrip('=')}"


def connection(item: ClientConnection, rates: Rates, ranges: Ranges) -> Json:
    """Return a connection."""
    host, _, port = item.peer.rpartition(":")
    return {
        "name": item.name,
        "node": node_name(),
        "type": "network",
        "protocol": "AMQP 0-8" if item.core.is_0_8 else "AMQP 0-9-1",
        "state": item.gate.state,
        "user": item.user,
        "user_who_performed_action": item.user,
        "vhost": item.vhost.name,
        "auth_mechanism": item.mechanism,
        "channels": len(item.channels),
        "channel_max": item.core.channel_max,
        "frame_max": item.core.frame_max,
        "timeout": item.heartbeat,
        "client_properties": plain(item.client_properties),
        "connected_at": int(item.connected_at * 1000),
        "host": item.host,
        "port": item.port,
        "peer_host": host,
        "peer_port": int(port) if port.isdecimal() else 0,
        "ssl": item.driver.get_extra_info("ssl_object") is not None,
        "ssl_protocol": None,
        "ssl_cipher": None,
        "ssl_hash": None,
        "ssl_key_exchange": None,
        "peer_cert_subject": None,
        "peer_cert_issuer": None,
        "peer_cert_validity": None,
        "recv_cnt": 0,
        "send_cnt": 0,
        "send_pend": 0,
        **stats.of_connection(rates.connection(item), ranges),
    }


def channel_name(item: Channel) -> str:
    """Return the name of a channel: its connection's, and its number."""
    return f"{item.connection.name} ({item.number})"


def channel(item: Channel, rates: Rates, ranges: Ranges) -> Json:
    """Return a channel."""
    confirms, transaction = item.confirms, item.transaction
    return {
        "name": channel_name(item),
        "number": item.number,
        "node": node_name(),
        "state": "running",
        "user": item.connection.user,
        "user_who_performed_action": item.connection.user,
        "vhost": item.vhost.name,
        "connection_details": _peer(item.connection),
        "consumer_count": len(item.consumers),
        "confirm": confirms is not None,
        "transactional": transaction is not None,
        "prefetch_count": item.consumer_prefetch,
        "global_prefetch_count": item.channel_prefetch,
        "messages_unacknowledged": len(item.unsettled),
        "messages_unconfirmed": confirms.unconfirmed if confirms is not None else 0,
        "messages_uncommitted": len(transaction.publishes) if transaction is not None else 0,
        "acks_uncommitted": len(transaction.settled) if transaction is not None else 0,
        "pending_raft_commands": 0,
        **stats.of_channel(rates.channel(item), ranges),
    }


def publishes(shown: Json, connection: ClientConnection) -> list[Json]:
    """Return the exchanges that a channel publishes to: those of its connection, as no channel has a list of its own.

    The counters are told if there is one exchange; which of several a message went to is not counted.

    Args:
        shown: The channel, as `channel` returns it.
        connection: Its connection.
    """
    counted = shown.get("message_stats")
    if not isinstance(counted, dict) or not counted.get("publish"):
        return []
    names = connection.published_to
    own = {name: value for name, value in counted.items() if name in ("publish", "publish_details")}
    return [
        {"exchange": {"name": name, "vhost": connection.vhost.name}, "stats": own if len(names) == 1 else {}}
        for name in names
    ]


def consumer(item: Consumer) -> Json:
    """Return a consumer."""
    own = item.channel
    return {
        "consumer_tag": item.tag,
        "queue": {"name": item.queue.name, "vhost": item.queue.vhost.name},
        "ack_required": not item.no_ack,
        "exclusive": item.exclusive,
        "active": item.queue.turns.is_active(item),
        "activity_status": "up" if item.queue.turns.is_active(item) else "waiting",
        "prefetch_count": item.prefetch,
        "arguments": plain(item.arguments),
        "channel_details": {
            **_peer(own.connection),
            "connection_name": own.connection.name,
            "name": channel_name(own),
            "node": node_name(),
            "number": own.number,
            "user": own.connection.user,
        },
    }


def _peer(item: Connection) -> Json:
    host, _, port = item.peer.rpartition(":")
    return {"name": item.name, "peer_host": host, "peer_port": int(port) if port.isdecimal() else 0}


def vhost(item: VirtualHost) -> Json:
    """Return a virtual host without its counters."""
    return {
        "name": item.name,
        "description": item.description,
        "tags": list(item.tags),
        "metadata": {"description": item.description, "tags": list(item.tags)},
        "default_queue_type": "undefined",
        "tracing": item.firehose is not None,
        "cluster_state": {node_name(): "running"},
    }


def vhost_with_stats(item: VirtualHost, rates: Rates, totals: Counts, ranges: Ranges) -> Json:
    """Return a virtual host with its counters; `totals` are from `vhost_totals`."""
    return {**vhost(item), **stats.of_vhost(rates.vhost(item, totals), ranges)}


def user(item: User) -> Json:
    """Return a user."""
    return {
        "name": item.name,
        "password_hash": item.password_hash,
        "hashing_algorithm": item.hashing,
        "tags": list(item.tags),
        "limits": dict(item.limits),
    }


def permission(vhost_name: str, user_name: str, item: Permission) -> Json:
    """Return a permission."""
    return {"user": user_name, "vhost": vhost_name, **item._asdict()}


def topic_permission(vhost_name: str, user_name: str, exchange_name: str, item: TopicPermission) -> Json:
    """Return a topic permission."""
    return {"user": user_name, "vhost": vhost_name, "exchange": exchange_name, **item._asdict()}


def parameters(broker: Broker, item: VirtualHost) -> list[Json]:
    """Return a virtual host's parameters: its operator policies, and its limits if any are set."""
    found: list[Json] = []
    for known in broker.operator_policies:
        if known.vhost == item.name:
            value = policy(known)
            place = {"vhost": value.pop("vhost"), "component": OPERATOR_POLICY, "name": value.pop("name")}
            found.append({"value": value, **place})
    if item.limits:
        limits = {"component": "vhost-limits", "name": "limits"}
        found.append({"value": dict(item.limits), "vhost": item.name, **limits})
    return found


def global_parameters(broker: Broker) -> list[Json]:
    """Return the global parameters, which always include the cluster's name."""
    values = {CLUSTER_NAME: broker.parameters.cluster_name, **broker.parameters.values}
    return [{"name": name, "value": values[name]} for name in sorted(values)]


def vhost_definition(item: VirtualHost) -> Json:
    """Return a virtual host as in definitions: its name, description, tags and metadata."""
    shown = vhost(item)
    is_plain = not item.tags and item.description in ("", "Default virtual host")
    names = ("name",) if is_plain else ("name", "description", "tags", "metadata")
    return {name: shown[name] for name in names}
