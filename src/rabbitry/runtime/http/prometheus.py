"""A broker's figures for Prometheus, under the names of RabbitMQ's plug-in rabbitmq_prometheus.

Served by the embedded broker's management API, and by the dashboard for any broker that has one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

MEDIA: Final = "text/plain; version=0.0.4; charset=utf-8"
"""The content type of Prometheus' text format."""
_TOTALS: Final = (
    ("queues", "queues", "Queues"),
    ("connections", "connections", "Connections of clients"),
    ("channels", "channels", "Channels of connections"),
    ("consumers", "consumers", "Consumers of queues"),
)
_DEPTHS: Final = (
    ("messages", "messages", "Messages ready and unacknowledged"),
    ("messages_ready", "messages_ready", "Messages ready to be delivered"),
    ("messages_unacknowledged", "messages_unacked", "Messages delivered and not acknowledged yet"),
)
_COUNTERS: Final = (
    ("publish", "messages_published", "Messages published"),
    ("confirm", "messages_confirmed", "Messages published and confirmed"),
    ("return_unroutable", "messages_unroutable_returned", "Unroutable messages returned to publishers"),
    ("drop_unroutable", "messages_unroutable_dropped", "Unroutable messages dropped"),
    ("deliver", "messages_delivered_ack", "Messages delivered that have to be acknowledged"),
    ("deliver_no_ack", "messages_delivered", "Messages delivered that need no acknowledgement"),
    ("get", "get_ack", "Messages fetched that have to be acknowledged"),
    ("get_no_ack", "get", "Messages fetched that need no acknowledgement"),
    ("get_empty", "get_empty", "Attempts to fetch a message from an empty queue"),
    ("redeliver", "messages_redelivered", "Messages delivered again"),
    ("ack", "messages_acked", "Messages acknowledged"),
)
_GLOBAL: Final = (
    (("publish",), "messages_received", "Messages published", False),
    (("confirm",), "messages_received_confirm", "Messages published that are to be confirmed", False),
    (("confirm",), "messages_confirmed", "Messages published and confirmed", False),
    (("return_unroutable",), "messages_unroutable_returned", "Unroutable messages returned to publishers", False),
    (("drop_unroutable",), "messages_unroutable_dropped", "Unroutable messages dropped", False),
    (("deliver", "deliver_no_ack", "get", "get_no_ack"), "messages_delivered", "Messages delivered or fetched", True),
    (("deliver",), "messages_delivered_consume_manual_ack", "Messages delivered that have to be acknowledged", True),
    (("deliver_no_ack",), "messages_delivered_consume_auto_ack", "Messages delivered without acknowledgement", True),
    (("get",), "messages_delivered_get_manual_ack", "Messages fetched that have to be acknowledged", True),
    (("get_no_ack",), "messages_delivered_get_auto_ack", "Messages fetched without acknowledgement", True),
    (("get_empty",), "messages_get_empty", "Attempts to fetch a message from an empty queue", True),
    (("redeliver",), "messages_redelivered", "Messages delivered again", True),
    (("ack",), "messages_acknowledged", "Messages acknowledged", True),
)
"""Fields of `message_stats` that add up to a counter, its name, its description, and whether it is of queues."""
_CHURN: Final = (
    ("connection_created", "connections_opened", "Connections opened"),
    ("connection_closed", "connections_closed", "Connections closed"),
    ("channel_created", "channels_opened", "Channels opened"),
    ("channel_closed", "channels_closed", "Channels closed"),
    ("queue_declared", "queues_declared", "Declarations of queues, of those that existed too"),
    ("queue_created", "queues_created", "Queues created"),
    ("queue_deleted", "queues_deleted", "Queues deleted"),
)
_NODE: Final = (
    ("mem_used", "process_resident_memory_bytes", "Memory used", 1.0),
    ("mem_limit", "resident_memory_limit_bytes", "Memory from which on publishers are blocked", 1.0),
    ("disk_free", "disk_space_available_bytes", "Disk space free", 1.0),
    ("disk_free_limit", "disk_space_available_limit_bytes", "Free disk space below which publishers are blocked", 1.0),
    ("fd_used", "process_open_fds", "File descriptors open", 1.0),
    ("fd_total", "process_max_fds", "File descriptors that may be open", 1.0),
    ("sockets_used", "process_open_tcp_sockets", "Connections of clients open", 1.0),
    ("sockets_total", "process_max_tcp_sockets", "Connections of clients that may be open", 1.0),
    ("uptime", "erlang_uptime_seconds", "Time since the start", 0.001),
)
_ALARMS: Final = (
    ("mem_alarm", "alarms_memory_used_watermark", "1 while short of memory"),
    ("disk_free_alarm", "alarms_free_disk_space_watermark", "1 while short of disk space"),
)
_QUEUE: Final = (*_DEPTHS, ("consumers", "consumers", "Consumers of the queue"))

_PROTOCOL: Final = {"protocol": "amqp091"}
_ALL_TYPES: Final = "all"
"""In place of the type of a queue: the totals of all types are known together."""


class Broker(NamedTuple):
    """A broker as a whole.

    product, version: its own. compatible, erlang, api: the versions of RabbitMQ, Erlang and the management API that it
    has or names. totals: how many queues, connections, channels and consumers there are. counts: counters and depths by
    the management API's names. publishers: channels that have published. nodes: the name and the figures of each node,
    alarms as 0 or 1.
    """

    product: str
    version: str
    compatible: str
    erlang: str
    api: str
    node: str
    cluster: str
    totals: Mapping[str, float]
    counts: Mapping[str, float]
    publishers: int
    nodes: list[tuple[str, Mapping[str, float]]]


def of_broker(broker: Broker) -> Iterator[str]:
    """Yield the metrics of a broker. A figure that it does not have is 0."""
    about = {
        "rabbitmq_version": broker.compatible,
        "prometheus_plugin_version": broker.api,
        "prometheus_client_version": broker.version,
        "erlang_version": broker.erlang,
        "product_name": broker.product,
        "product_version": broker.version,
    }
    yield from family("rabbitmq_build_info", "gauge", "The broker's product and version", [(about, 1)])
    identity = {
        "rabbitmq_node": broker.node,
        "rabbitmq_cluster": broker.cluster,
        "rabbitmq_cluster_permanent_id": broker.cluster,
    }
    yield from family("rabbitmq_identity_info", "gauge", "The broker's name", [(identity, 1)])
    for field, name, help_ in _TOTALS:
        yield from family(f"rabbitmq_{name}", "gauge", help_, [({}, broker.totals.get(field, 0))])
    counts = broker.counts
    for field, name, help_ in _DEPTHS:
        yield from family(f"rabbitmq_queue_{name}", "gauge", help_, [({}, counts.get(field, 0))])
    for field, name, help_ in _COUNTERS:
        yield from family(f"rabbitmq_channel_{name}_total", "counter", help_, [({}, counts.get(field, 0))])
    yield from _of_protocol(broker)
    for field, name, help_ in _CHURN:
        yield from family(f"rabbitmq_{name}_total", "counter", help_, [({}, counts.get(field, 0))])
    named = [({"rabbitmq_node": node}, figures) for node, figures in broker.nodes]
    for field, name, help_, unit in _NODE:
        values = [(labels, figures.get(field, 0) * unit) for labels, figures in named]
        yield from family(f"rabbitmq_{name}", "gauge", help_, values)
    for field, name, help_ in _ALARMS:
        alarms = [(labels, figures.get(field, 0)) for labels, figures in named]
        yield from family(f"rabbitmq_{name}", "gauge", help_, alarms)


def _of_protocol(broker: Broker) -> Iterator[str]:
    """Yield the metrics that the plug-in has for each protocol."""
    counts = broker.counts
    for fields, name, help_, is_of_queues in _GLOBAL:
        labels = {**_PROTOCOL, "queue_type": _ALL_TYPES} if is_of_queues else _PROTOCOL
        total = sum(counts.get(field, 0) for field in fields)
        yield from family(f"rabbitmq_global_{name}_total", "counter", help_, [(labels, total)])
    unroutable = counts.get("return_unroutable", 0) + counts.get("drop_unroutable", 0)
    routed = max(0, counts.get("publish", 0) - unroutable)
    name = "rabbitmq_global_messages_routed_total"
    yield from family(name, "counter", "Messages routed to a queue", [(_PROTOCOL, routed)])
    name, help_ = "rabbitmq_global_publishers", "Channels that have published"
    yield from family(name, "gauge", help_, [(_PROTOCOL, broker.publishers)])
    consumers = broker.totals.get("consumers", 0)
    yield from family("rabbitmq_global_consumers", "gauge", "Consumers of queues", [(_PROTOCOL, consumers)])
    yield from family("rabbitmq_channel_consumers", "gauge", "Consumers of queues", [({}, consumers)])


def queue_labels(vhost: str, name: str) -> str:
    """Return the labels of a queue's metrics."""
    return f'{{vhost="{_escaped(vhost)}",queue="{_escaped(name)}"}}'


def of_queues(queues: Sequence[tuple[str, Mapping[str, float]]]) -> Iterator[str]:
    """Yield the metrics of queues, given the labels of each, and its figures by the management API's names.

    As in the plug-in, these families have names of their own, so that nothing is counted twice.
    """
    for field, name, help_ in _QUEUE:
        full = f"rabbitmq_detailed_queue_{name}"
        yield f"# HELP {full} {help_}\n# TYPE {full} gauge\n"
        for label, figures in queues:
            yield f"{full}{label} {figures.get(field, 0):.15g}\n"


def family(name: str, kind: str, help_: str, samples: Iterable[tuple[Mapping[str, str], float]]) -> Iterator[str]:
    """Yield a family of metrics in Prometheus' text format. kind: counter or gauge. samples: labels and value."""
    described = help_.replace("\\", "\\\\").replace("\n", "\\n")
    yield f"# HELP {name} {described}\n# TYPE {name} {kind}\n"
    for labels, value in samples:
        shown = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
        yield f"{name}{{{shown}}} {value:.15g}\n" if shown else f"{name} {value:.15g}\n"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
