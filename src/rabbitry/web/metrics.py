"""`/metrics`: the broker's figures for Prometheus, under the names of RabbitMQ's plug-in rabbitmq_prometheus."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from fastapi import APIRouter, Response

from rabbitry.amqp.client.url import parse_url
from rabbitry.apps import Metric, Role, needs
from rabbitry.apps.management import decode_answer, fetch, get, get_object, management_url, open_client, part_of
from rabbitry.exceptions import ConnectFailed, Undecodable
from rabbitry.runtime.http.prometheus import MEDIA, Broker, family, of_broker, of_queues, queue_labels
from rabbitry.web.sources.broker import broker_value
from rabbitry.web.sources.fields import Object, number, text

if TYPE_CHECKING:
    import httpx

SHARE: Final = 0.05
"""The largest share of the time that requests for all queues take; meanwhile the last answer is returned again."""
SHORTEST: Final = 1.0
"""Seconds for which an answer is returned again, at least."""
_PATIENCE: Final = 60.0
_QUEUE_FIELDS: Final = "vhost,name,messages,messages_ready,messages_unacknowledged,consumers"
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
        return Response(await self._broker(), media_type=MEDIA)

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
            return Response(found + self._queues, media_type=MEDIA)

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
    return family("rabbitry_broker_up", "gauge", "1 if the broker's management API answers", [({}, is_up)])


def _of_apps(apps: Iterable[_App]) -> Iterator[str]:
    """Yield the metrics of apps. Invalid ones of an app are left out, because Prometheus would refuse all metrics."""
    seen = {"rabbitry_broker_up"}
    for app, metrics in apps:
        try:
            found = list(metrics())
            names = _checked(found, seen)
            lines = "".join(part for each in found for part in family(each.name, "gauge", each.help, each.samples))
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
    parts = (part_of(overview, name) for name in ("message_stats", "churn_rates", "queue_totals"))
    yield from of_broker(
        Broker(
            product=value["product"],
            version=value["version"],
            compatible=text(overview.get("rabbitmq_version")),
            erlang=text(overview.get("erlang_version")),
            api=text(overview.get("management_version")),
            node=value["node"],
            cluster=value["cluster"],
            totals=value["totals"],
            counts={name: number(count) for part in parts for name, count in part.items()},
            publishers=sum(number(part_of(channel, "message_stats").get("publish")) > 0 for channel in channels),
            nodes=[(text(node.get("name")), _figures(node)) for node in nodes],
        )
    )


def _figures(thing: Object) -> dict[str, float]:
    """Return the numbers of an object, and its flags as 0 or 1."""
    return {name: int(value) if isinstance(value, bool) else number(value) for name, value in thing.items()}


def _of_queues(body: bytes) -> bytes:
    queues = decode_answer(body, list[dict[str, Any]])
    rows = [(queue_labels(text(queue.get("vhost")), text(queue.get("name"))), _figures(queue)) for queue in queues]
    return "".join(of_queues(rows)).encode()
