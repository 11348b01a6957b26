"""The broker's figures for Prometheus. RabbitMQ's plug-in rabbitmq_prometheus serves them on a port of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Final

from rabbitry._version import __version__
from rabbitry.broker._counts import PUBLISHED
from rabbitry.broker._management import views
from rabbitry.broker._management.call import Call, route
from rabbitry.broker._management.listing import streamed
from rabbitry.broker._management.pace import Pace
from rabbitry.broker._management.rates import vhost_totals
from rabbitry.broker._product import node_name
from rabbitry.runtime.http.prometheus import MEDIA, Broker, of_broker, of_queues, queue_labels

_PARTS: Final = 500
"""Lines about queues that are made, and sent, at once."""


@route("/metrics")
async def _metrics(call: Call) -> object:
    async with call.pace as pace:
        return streamed([_encoded(await _of_broker(call, pace))], MEDIA)


@route("/metrics/detailed")
async def _detailed(call: Call) -> object:
    """Answer with the figures of the queues that the caller may see, too."""
    async with call.pace as pace:
        chunks = [_encoded(await _of_broker(call, pace))]
        queues: list[tuple[str, Mapping[str, float]]] = []
        for vhost in call.vhosts():
            for queue in list(vhost.queues.values()):
                ready, unsettled = queue.ready, queue.unsettled
                figures = {
                    "messages": ready + unsettled,
                    "messages_ready": ready,
                    "messages_unacknowledged": unsettled,
                    "consumers": len(queue.turns),
                }
                queues.append((queue_labels(vhost.name, queue.name), figures))
                if pace.is_over:
                    await pace.rest()
        parts = of_queues(queues)
        while chunk := _encoded(islice(parts, _PARTS)):
            chunks.append(chunk)
            if pace.is_over:
                await pace.rest()
    return streamed(chunks, MEDIA)


async def _of_broker(call: Call, pace: Pace) -> list[str]:
    broker = call.broker
    counted = call.rates.broker(await vhost_totals(broker, pace))
    publishers = 0
    for connection in list(broker.connections):
        for channel in list(connection.channels.values()):
            publishers += channel.counts()[PUBLISHED.index("publish")] > 0
            if pace.is_over:
                await pace.rest()
    version = broker.config.release.version
    figures = {name: value for name, value in views.node(broker).items() if isinstance(value, int | float)}
    found = of_broker(
        Broker(
            product="Rabbitry",
            version=__version__,
            compatible=version,
            erlang="",
            api=version,
            node=node_name(),
            cluster=broker.parameters.cluster_name,
            totals=views.object_totals(broker),
            counts=dict(zip(counted.names, counted.now, strict=True)),
            publishers=publishers,
            nodes=[(node_name(), figures)],
        )
    )
    return list(found)


def _encoded(parts: Iterable[str]) -> bytes:
    return "".join(parts).encode(errors="replace")
