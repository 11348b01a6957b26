"""The exchanges, queues and bindings of an app: derived from it, declared, checked, and exported as definitions."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from rabbitry.amqp.client import Channel, Connection
from rabbitry.exceptions import NotFound, PreconditionFailed
from rabbitry.flow.exceptions import TopologyMismatch
from rabbitry.flow.spec import AppSpec
from rabbitry.flow.stage import Argument, Output, Stage
from rabbitry.flow.wiring.cancelling import cancel_exchange, cancelled_queue, kept_arguments
from rabbitry.flow.wiring.dead_letters import dead_queue
from rabbitry.flow.wiring.declarer import HOW_TO_REPLACE, Declarer
from rabbitry.flow.wiring.delays import waiting
from rabbitry.flow.wiring.pausing import pause_arguments, pause_queue
from rabbitry.flow.wiring.rates import rate_arguments, rate_queue, tokens_arguments, tokens_queue
from rabbitry.flow.wiring.retries import RETRY_QUEUES, retry_queue, suspects_queue
from rabbitry.flow.wiring.schedules import schedule_queue, token_arguments
from rabbitry.flow.wiring.slots import slot_arguments, slot_queues

DELIVERY_LIMIT: Final = 1_000_000
"""Brokers throw a quorum queue's message away past its limit (20 by default since RabbitMQ 4.0). Attempts are counted
by the framework, which publishes what comes redelivered anew, so the broker's count never comes far."""
DELIVERY_TIMEOUT: Final = 30 * 60.0
"""Seconds after which a broker closes the channel of a consumer that keeps a message (RabbitMQ's docs/consumers)."""

_AT_LEAST_ONCE: Final = (3, 10)
_DURABLE_ONLY: Final = (4, 3)

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ExchangeSpec:
    """An exchange to be declared."""

    name: str
    type: str
    durable: bool = True
    auto_delete: bool = False


@dataclass(frozen=True, slots=True)
class QueueSpec:
    """A queue to be declared; never exclusive."""

    name: str
    durable: bool = True
    arguments: Mapping[str, Argument] = field(default_factory=dict)
    required_by: str = ""
    """What can't use one that exists with other flags; empty if it is used as it is."""
    auto_delete: bool = False


@dataclass(frozen=True, slots=True)
class Binding:
    """A binding of a queue."""

    exchange: str
    queue: str
    key: str


@dataclass(frozen=True, slots=True)
class AppTopology:
    """All that an app declares, in the order in which it can be."""

    exchanges: Sequence[ExchangeSpec]
    queues: Sequence[QueueSpec]
    bindings: Sequence[Binding]

    def definitions(self, vhost: str = "/") -> dict[str, list[dict[str, object]]]:
        """Return the topology as RabbitMQ's definitions (docs/definitions), for an operator to import."""
        return {
            "exchanges": [
                {"name": item.name, "vhost": vhost, "type": item.type, "durable": item.durable,
                 "auto_delete": item.auto_delete, "internal": False, "arguments": {}}
                for item in self.exchanges
            ],
            "queues": [
                {"name": item.name, "vhost": vhost, "durable": item.durable,
                 "auto_delete": item.auto_delete, "arguments": dict(item.arguments)}
                for item in self.queues
            ],
            "bindings": [
                {"source": item.exchange, "vhost": vhost, "destination": item.queue, "destination_type": "queue",
                 "routing_key": item.key, "arguments": {}}
                for item in self.bindings
            ],
        }  # fmt: skip


def derive(spec: AppSpec) -> AppTopology:
    """Return the topology that an app needs. It fits brokers from RabbitMQ 3.10 on, and the embedded one."""
    durable = not spec.plain
    arguments: dict[str, Argument] = (
        {"x-queue-type": "quorum", "x-delivery-limit": DELIVERY_LIMIT} if spec.queue_type == "quorum" else {}
    )
    passing = spec.auto_delete if spec.plain else frozenset()
    exchanges = [ExchangeSpec(spec.exchange, spec.exchange_type, durable, spec.exchange in passing)]
    queues: list[QueueSpec] = []
    bindings: list[Binding] = []
    items: list[Stage | Output] = [*spec.stages.values(), *spec.outputs.values()]
    for item in items:
        exchange = item.exchange or spec.exchange
        if exchange not in {known.name for known in exchanges}:
            exchanges.append(ExchangeSpec(exchange, "direct"))
        if item.queue is not None:
            if item.queue not in {queue.name for queue in queues}:
                # An exchange of its own is no plain program's, and so is its queue.
                own = arguments | {"x-single-active-consumer": True} if item.single_active else arguments
                own = own | dict(item.queue_arguments)
                needs = ""
                if isinstance(item, Stage) and item.single_active:
                    needs = f"stage '{item.name}' with single_active=True"
                is_durable = durable or item.exchange is not None
                queues.append(QueueSpec(item.queue, is_durable, own, needs, item.queue in passing))
            bindings.append(Binding(exchange, item.queue, item.key))
    if spec.stages:  # of an app that only publishes, nothing fails
        queues.append(QueueSpec(dead_queue(spec.name)))
    for stage in spec.stages.values():
        queues.append(QueueSpec(suspects_queue(spec.name, stage.name)))
        queues.append(QueueSpec(pause_queue(spec.name, stage.name), True, pause_arguments(stage.queue)))
    for name in spec.schedules:
        queues.append(
            QueueSpec(
                schedule_queue(spec.name, name), True, token_arguments(arguments), f"the schedule of stage '{name}'"
            )
        )
    for name in spec.rates:
        queues.append(QueueSpec(tokens_queue(spec.name, name), True, tokens_arguments(arguments)))
        queues.append(
            QueueSpec(rate_queue(spec.name, name), True, rate_arguments(arguments), f"the rate of stage '{name}'")
        )
    for name, number in spec.totals.items():
        for queue in slot_queues(spec.name, name, number):
            queues.append(QueueSpec(queue, True, slot_arguments(arguments), f"stage '{name}' with total_concurrency"))
    if spec.cancellable:
        exchanges.append(ExchangeSpec(cancel_exchange(spec.name), "fanout"))
        queues.append(QueueSpec(cancelled_queue(spec.name), True, kept_arguments()))
        bindings.append(Binding(cancel_exchange(spec.name), cancelled_queue(spec.name), ""))
    for seconds, suffix in RETRY_QUEUES if spec.stages else ():
        name = retry_queue(spec.name, suffix)
        exchanges.append(ExchangeSpec(name, "fanout"))
        queues.append(QueueSpec(name, True, waiting(seconds)))
        bindings.append(Binding(name, name, ""))
    return AppTopology(exchanges, queues, bindings)


def misfits(spec: AppSpec, version: tuple[int, ...]) -> list[str]:
    """Return warnings of what a broker of this version does not do as the app needs it; () is an unknown version."""
    name = "RabbitMQ " + ".".join(str(part) for part in version)
    if () < version < _AT_LEAST_ONCE:
        return [
            f"{name} loses messages that wait for a retry if it dies; from 3.10 on queues dead-letter at least once"
        ]
    if spec.plain and version >= _DURABLE_ONLY:
        return [f"{name} refuses shared queues that are not durable: make app {spec.name!r} without plain=True"]
    return []


async def declare(
    connection: Connection, spec: AppSpec, *, strict: bool = False, declarer: Declarer | None = None
) -> None:
    """Declare everything. A queue or exchange that exists with other flags is used as it is, with a warning.

    Args:
        connection: An open connection.
        spec: The app.
        strict: Raise TopologyMismatch instead, naming all differences, before anything is declared.
        declarer: The declarer of an earlier call, so that each difference is logged once.

    Raises:
        AccessRefused: The user may not declare something.
        TopologyMismatch: Strict, and something exists with other flags; or the queue of a stage with one active worker
            does, so that two would be active.
    """
    topology = derive(spec)
    for text in misfits(spec, connection.server_version):
        _logger.warning("%s", text)
    if strict:
        findings = [finding for finding in await check(connection, spec) if finding.is_different]
        if findings:
            raise TopologyMismatch("; ".join(map(str, findings)) + f"; nothing was changed; {HOW_TO_REPLACE}")
    declarer = declarer or Declarer()
    channel = await connection.channel()
    try:
        for exchange in topology.exchanges:
            await declarer.exchange(
                channel, exchange.name, exchange.type, durable=exchange.durable, auto_delete=exchange.auto_delete
            )
        for queue in topology.queues:
            await declarer.queue(
                channel,
                queue.name,
                durable=queue.durable,
                auto_delete=queue.auto_delete,
                arguments=queue.arguments,
                required_by=queue.required_by,
            )
        for binding in topology.bindings:
            await channel.bind_queue(binding.queue, binding.exchange, binding.key)
    finally:
        await channel.close()


@dataclass(frozen=True, slots=True)
class Finding:
    """A difference between the broker and the app's topology. text: the broker's words, or `missing`."""

    what: str
    text: str
    item: ExchangeSpec | QueueSpec | None = None
    """The exchange or the queue as the app declares it; None if it is a binding."""

    def __str__(self) -> str:
        return f"{self.what}: {self.text}"

    @property
    def is_different(self) -> bool:
        """Whether it exists, with other flags."""
        return self.text != _MISSING


_MISSING: Final = "missing"


async def check(connection: Connection, spec: AppSpec) -> list[Finding]:
    """Compare exchanges and queues with a broker without changing anything.

    An exchange or queue that exists is declared again with the app's flags: the broker answers 406 if the flags differ,
    and does nothing if they do not (AMQP 0-9-1, queue.declare). AMQP has no way to ask for bindings.
    """
    topology = derive(spec)
    findings: list[Finding] = []
    channel = await connection.channel()
    try:
        for item, passive, act in _declarations(channel, topology):
            what = f"{'queue' if isinstance(item, QueueSpec) else 'exchange'} '{item.name}'"
            try:
                await passive()
                await act()
            except NotFound:
                findings.append(Finding(what, _MISSING, item))
            except PreconditionFailed as error:
                findings.append(Finding(what, error.reply_text, item))
            if not channel.is_open:
                await channel.open()
    finally:
        await channel.close()
    return findings


def missing_bindings(topology: AppTopology, present: Sequence[Mapping[str, object]]) -> list[Finding]:
    """Compare bindings with those that a management API listed (`GET /api/bindings/VHOST`)."""
    known = {(item.get("source"), item.get("destination"), item.get("routing_key")) for item in present}
    return [
        Finding(f"binding of queue '{item.queue}' to exchange '{item.exchange}' with key '{item.key}'", _MISSING)
        for item in topology.bindings
        if (item.exchange, item.queue, item.key) not in known
    ]


_Act = Callable[[], Awaitable[object]]


def _declarations(channel: Channel, topology: AppTopology) -> list[tuple[ExchangeSpec | QueueSpec, _Act, _Act]]:
    """Return each exchange and queue with a passive check and its declaration."""
    steps: list[tuple[ExchangeSpec | QueueSpec, _Act, _Act]] = []
    for exchange in topology.exchanges:
        look = partial(channel.declare_exchange, exchange.name, passive=True)
        act = partial(
            channel.declare_exchange,
            exchange.name,
            exchange.type,
            durable=exchange.durable,
            auto_delete=exchange.auto_delete,
        )
        steps.append((exchange, look, act))
    for queue in topology.queues:
        look_at = partial(channel.declare_queue, queue.name, passive=True)
        make = partial(
            channel.declare_queue,
            queue.name,
            durable=queue.durable,
            auto_delete=queue.auto_delete,
            arguments=dict(queue.arguments),
        )
        steps.append((queue, look_at, make))
    return steps
