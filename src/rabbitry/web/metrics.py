"""`/metrics`: the broker's figures for Prometheus, under the names of RabbitMQ's plug-in rabbitmq_prometheus."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from fastapi import APIRouter, Response

from rabbitry.amqp.client.url import parse_url
from rabbitry.apps import Metric, Role, needs
from rabbitry.apps.management import decode_answer, fetch, get, get_object, management_url, open_client, part_of
from rabbitry.exceptions import ConnectFailed, Undecodable
from rabbitry.web.sources.broker import broker_value
from rabbitry.web.sources.fields import Object, number, text

if TYPE_CHECKING:
    import httpx

SHARE: Final = 0.05
"""The largest share of the time that requests for all queues take; meanwhile the last answer is returned again."""
SHORTEST: Final = 1.0
"""Seconds for which an answer is returned again, at least."""
_PATIENCE: Final = 60.0
_MEDIA: Final = "text/plain; version=0.0.4; charset=utf-8"
_TOTALS: Final = (
    ("queues", "queues", "Queues"),
    ("connections", "connections", "Connections of clients"),
    ("channels", "channels", "Channels of connections"),
    ("consumers", "consumers", "Consumers of queues"),
)
_DEPTHS: Final = (
    ("messages", "Messages ready and unacknowledged"),
    ("messages_ready", "Messages ready to be delivered"),
    ("messages_unacked", "Messages delivered and not acknowledged yet"),
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
_QUEUE_FIELDS: Final = "vhost,name,messages,messages_ready,messages_unacknowledged,consumers"
_QUEUE: Final = (
    ("messages", "messages", "Messages ready and unacknowledged"),
    ("messages_ready", "messages_ready", "Messages ready to be delivered"),
    ("messages_unacknowledged", "messages_unacked", "Messages delivered and not acknowledged yet"),
    ("consumers", "consumers", "Consumers of the queue"),
)

_PROTOCOL: Final = {"protocol": "amqp091"}
_ALL_TYPES: Final = "all"
"""In place of the type of a queue: the management API has the totals of all types together."""
_NAME: Final = re.compile(r"rabbitry_[a-z0-9_]+")
_LABEL: Final = re.compile(r"[a-z_][a-z0-9_]*")
_App: TypeAlias = tuple[str, Callable[[], Iterable[Metric]]]
_logger = logging.getLogger(__name__)


class Metrics:
    """The routes `/metrics` and `/metrics/detailed`. They work while `running` is entered.

    Args:
        broker: The broker's URL, for the login.
        management: The URL of its management API; RabbitMQ's port on the broker's host if it is None.
        apps: Pairs of an app's name and a function that returns its metrics.

    Raises:
        UsageError: One of them is no URL.
    """

    def __init__(self, broker: str, management: str | None, apps: Sequence[_App] = ()) -> None:
        self._apps = apps
        self._login = parse_url(broker)
        self._url = management_url(management, self._login)
        self._client: httpx.AsyncClient
        self._asking = asyncio.Lock()
        self._queues = b""
        self._until = 0.0
        self.router: APIRouter = APIRouter(tags=["metrics"])
        add = self.router.add_api_route
        answers: dict[int | str, dict[str, Any]] = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}
        add("/metrics", self.show, response_class=Response, responses=answers, summary="The broker for Prometheus")
        add(
            "/metrics/detailed", self.show_queues, response_class=Response, responses=answers,
            summary="The broker and each of its queues for Prometheus",
        )  # fmt: skip

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep a client of the management API while the block runs."""
        async with open_client(self._url, self._login) as self._client:
            yield

    @needs(Role.VIEWER)
    async def show(self) -> Response:
        """Return the figures of the broker; `rabbitry_broker_up` alone if its management API does not answer."""
        return Response(await self._broker(), media_type=_MEDIA)

    @needs(Role.VIEWER)
    async def show_queues(self) -> Response:
        """Return the same with the figures of each queue, which are older if the broker is slow to list its queues."""
        found = await self._broker()
        async with self._asking:
            if time.monotonic() >= self._until:
                started = time.monotonic()
                try:
                    path = f"/api/queues?columns={_QUEUE_FIELDS}"
                    body = await fetch(self._client, path, timeout=_PATIENCE)
                    self._queues = await asyncio.to_thread(_of_queues, body)
                except (ConnectFailed, Undecodable) as error:
                    _logger.debug("no metrics of queues: %s", error)
                    self._queues = b""
                ended = time.monotonic()
                self._until = ended + max(SHORTEST, (ended - started) / SHARE)
            return Response(found + self._queues, media_type=_MEDIA)

    async def _broker(self) -> bytes:
        try:
            overview, nodes = await get_object(self._client, "/api/overview"), await get(self._client, "/api/nodes")
            # With `name`: RabbitMQ answers a list, not an object, for a channel that has none of the columns.
            channels = await get(self._client, "/api/channels?columns=name,message_stats.publish")
        except ConnectFailed as error:
            _logger.debug("no metrics: %s", error)
            return "".join([*_up(0), *_of_apps(self._apps)]).encode()
        return "".join([*_up(1), *_of_broker(overview, nodes, channels), *_of_apps(self._apps)]).encode()


def _up(is_up: int) -> Iterator[str]:
    return _family("rabbitry_broker_up", "gauge", "1 if the broker's management API answers", [({}, is_up)])


def _of_apps(apps: Iterable[_App]) -> Iterator[str]:
    """Yield the metrics of apps. Invalid ones of an app are left out, because Prometheus would refuse all metrics."""
    seen = {"rabbitry_broker_up"}
    for app, metrics in apps:
        try:
            found = list(metrics())
            names = _checked(found, seen)
            lines = "".join(part for each in found for part in _family(each.name, "gauge", each.help, each.samples))
        except Exception:
            _logger.exception("/metrics leaves out metrics of the app '%s', because they are invalid", app)
        else:
            seen |= names
            yield lines


def _checked(metrics: Iterable[Metric], seen: Collection[str]) -> set[str]:
    """Return the names of an app's metrics. Raises ValueError for names that Prometheus refuses, and repeated ones."""
    names: set[str] = set()
    for each in metrics:
        if not _NAME.fullmatch(each.name):
            raise ValueError(f"metric {each.name!r}: a name is rabbitry_, then letters a to z, digits and underscores")
        if each.name in names or each.name in seen:
            raise ValueError(f"metric {each.name!r}: another one has this name; put all samples into one")
        for label in (label for labels, _ in each.samples for label in labels):
            if not _LABEL.fullmatch(label):
                raise ValueError(f"metric {each.name!r}: label {label!r}: use letters a to z, digits and underscores")
        names.add(each.name)
    return names


def _of_broker(overview: Object, nodes: Sequence[Object], channels: Sequence[Object] = ()) -> Iterator[str]:
    value = broker_value(overview, nodes)
    about = {
        "rabbitmq_version": text(overview.get("rabbitmq_version")),
        "prometheus_plugin_version": text(overview.get("management_version")),
        "prometheus_client_version": value["version"],
        "erlang_version": text(overview.get("erlang_version")),
        "product_name": value["product"],
        "product_version": value["version"],
    }
    yield from _family("rabbitmq_build_info", "gauge", "The broker's product and version", [(about, 1)])
    identity = {
        "rabbitmq_node": value["node"],
        "rabbitmq_cluster": value["cluster"],
        "rabbitmq_cluster_permanent_id": value["cluster"],
    }
    yield from _family("rabbitmq_identity_info", "gauge", "The broker's name", [(identity, 1)])
    for field, name, help_ in _TOTALS:
        yield from _family(f"rabbitmq_{name}", "gauge", help_, [({}, value["totals"][field])])
    depths = (value["messages"][name] for name in ("messages", "ready", "unacked"))
    for (name, help_), depth in zip(_DEPTHS, depths, strict=True):
        yield from _family(f"rabbitmq_queue_{name}", "gauge", help_, [({}, depth)])
    stats = part_of(overview, "message_stats")
    for field, name, help_ in _COUNTERS:
        yield from _family(f"rabbitmq_channel_{name}_total", "counter", help_, [({}, number(stats.get(field)))])
    for fields, name, help_, is_of_queues in _GLOBAL:
        labels = {**_PROTOCOL, "queue_type": _ALL_TYPES} if is_of_queues else _PROTOCOL
        total = sum(number(stats.get(field)) for field in fields)
        yield from _family(f"rabbitmq_global_{name}_total", "counter", help_, [(labels, total)])
    routed = number(stats.get("publish")) - sum(number(stats.get(f"{how}_unroutable")) for how in ("return", "drop"))
    name = "rabbitmq_global_messages_routed_total"
    yield from _family(name, "counter", "Messages routed to a queue", [(_PROTOCOL, max(0, routed))])
    publishers = sum(number(part_of(channel, "message_stats").get("publish")) > 0 for channel in channels)
    name, help_ = "rabbitmq_global_publishers", "Channels that have published"
    yield from _family(name, "gauge", help_, [(_PROTOCOL, publishers)])
    consumers = value["totals"]["consumers"]
    yield from _family("rabbitmq_global_consumers", "gauge", "Consumers of queues", [(_PROTOCOL, consumers)])
    yield from _family("rabbitmq_channel_consumers", "gauge", "Consumers of queues", [({}, consumers)])
    churn = part_of(overview, "churn_rates")
    for field, name, help_ in _CHURN:
        yield from _family(f"rabbitmq_{name}_total", "counter", help_, [({}, number(churn.get(field)))])
    named = [({"rabbitmq_node": text(node.get("name"))}, node) for node in nodes]
    for field, name, help_, unit in _NODE:
        values = [(labels, number(node.get(field)) * unit) for labels, node in named]
        yield from _family(f"rabbitmq_{name}", "gauge", help_, values)
    for field, name, help_ in _ALARMS:
        alarms = [(labels, int(node.get(field) is True)) for labels, node in named]
        yield from _family(f"rabbitmq_{name}", "gauge", help_, alarms)


def _of_queues(body: bytes) -> bytes:
    # As in the plug-in, these families have names of their own, so that nothing is counted twice.
    queues = decode_answer(body, list[dict[str, Any]])
    labels = [
        f'{{vhost="{_escaped(text(queue.get("vhost")))}",queue="{_escaped(text(queue.get("name")))}"}}'
        for queue in queues
    ]
    found: list[str] = []
    for field, name, help_ in _QUEUE:
        full = f"rabbitmq_detailed_queue_{name}"
        found += [f"# HELP {full} {help_}\n# TYPE {full} gauge\n"]
        found += [
            f"{full}{label} {number(queue.get(field)):.15g}\n" for label, queue in zip(labels, queues, strict=True)
        ]
    return "".join(found).encode()


def _family(name: str, kind: str, help_: str, samples: Iterable[tuple[Mapping[str, str], float]]) -> Iterator[str]:
    """Yield a family of metrics in Prometheus' text format."""
    described = help_.replace("\\", "\\\\").replace("\n", "\\n")
    yield f"# HELP {name} {described}\n# TYPE {name} {kind}\n"
    for labels, value in samples:
        shown = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
        yield f"{name}{{{shown}}} {value:.15g}\n" if shown else f"{name} {value:.15g}\n"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
