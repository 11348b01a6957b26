"""The topic `flows`: the stages of all apps with their workers' figures, waiting messages and pauses.

Waiting messages and pauses are asked for over AMQP by passive declares, which need no management API.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

import msgspec

from rabbitry.apps.management import open_client
from rabbitry.exceptions import (
    AccessRefused,
    ChannelClosed,
    Closed,
    ConnectFailed,
    NotFound,
    RequestTimeout,
    UsageError,
)
from rabbitry.flow.wiring import pausing
from rabbitry.flow.wiring.pausing import MOMENT, Pause, State, look
from rabbitry.web.feed.topics import Value
from rabbitry.web.sources.ordering import in_order
from rabbitry.web.sources.stages import declared

if TYPE_CHECKING:
    import httpx

    from rabbitry.amqp.client import BrokerURL, Channel, Connection
    from rabbitry.telemetry import Limits, ScheduleState
    from rabbitry.web.sources.documents import Documents
    from rabbitry.web.sources.nodes import NodeState
    from rabbitry.web.sources.telemetry import Telemetry

EVERY: Final = 1.0
"""Seconds between two rounds of questions while a page shows the stages; more if a round takes longer."""
FIND_EVERY: Final = 60.0
"""Seconds between two searches for stages without workers, while a page shows the stages."""
SHARE: Final = 20
"""The pause after a search is at least this many times as long as the search."""
MOST_STAGES: Final = 500
MOST_WORKERS: Final = 50
"""Workers of a stage that are named."""
MOST_KEYS: Final = 50
"""Keys of results of a stage that are named: the first ones that its workers report."""
_HELD_BACK: Final = ("waiting_tokens", "waiting_slots", "waiting_keys")
_FIGURES: Final = {"received": "rate", "done": "done", "waiting": "retried_rate", "dead": "dead_rate"}


@dataclass(slots=True)
class _Stage:
    """A stage that a worker reported, or of which the broker has queues.

    waiting: messages in its queue; None if unknown. tokens: those of its rate that are free; None if unknown.
    """

    app: str
    name: str
    queue: str
    key: str
    exchange: str
    waiting: int | None = None
    state: State = State.RUNNING
    pause: Pause | None = None
    to: set[str] = field(default_factory=set)
    schedule: ScheduleState | None = None
    limits: Limits | None = None
    tokens: int | None = None


class Flows:
    """The source of the topic `flows`.

    Args:
        telemetry: The source of the workers' reports, and of the connection to the broker.
        documents: The AsyncAPI documents of the apps.
        url: The URL of the broker's management API, which tells of stages without workers.
        login: The broker's URL.

    Its members are `APP/STAGE` → a stage: `app`, `stage`, `place` (its place among the app's stages), `queue`, `key`,
    `exchange`, `to` (the first MOST_KEYS keys of its results), `waiting` (messages in its queue; null if that is not
    known), `state` (`running`, `paused`, `silent`: no worker reports), `pause` (`by`, `at`, `why`; or null), `rate`,
    `done`, `retried_rate` and `dead_rate` (a second), `in_hand`, `retried`, `dead` and `skipped` (since the workers
    began), `handling` (`p50`, `p95`, `p99` in seconds, of the last minute), `schedule` (`when`, `missed`, `next` and
    `fired`, as in `rabbitry.telemetry.ScheduleState`; null if it has none), `limits` (`rate`, `tokens` that are
    free, `waiting_tokens`, `slots`, how many are `free`, `waiting_slots`; of each key `by`, the name of the function
    that returns it, or empty, `rate_each`, `slots_each`, `waiting_keys`; null if it has none), `described` (whether its
    app's AsyncAPI document is known), `workers` (`host`, `id`, `pid`, `started`, `in_hand`, and `held_back`, the
    messages that wait there for a limit), and `more_workers`, how many are not named.
    """

    def __init__(self, telemetry: Telemetry, documents: Documents, url: str, login: BrokerURL) -> None:
        self.topic: Value = Value()
        self._url = url
        self._login = login
        self._telemetry = telemetry
        self._documents = documents
        self._stages: dict[str, _Stage] = {}
        self._channel: Channel | None = None
        self._changed = asyncio.Event()

    def look_again(self) -> None:
        """Ask the broker at once, because a stage was paused or resumed here."""
        self._changed.set()

    async def run(self) -> None:
        """Ask the broker while a page shows the stages, until cancelled."""
        async with open_client(self._url, self._login) as client, asyncio.TaskGroup() as tasks:
            tasks.create_task(self._find(client), name="stages without workers")
            tasks.create_task(self._tell(), name="stages")

    async def _find(self, client: httpx.AsyncClient) -> None:
        """Add the stages of which the broker has queues, whose workers were gone before the dashboard began."""
        while True:
            await self.topic.wanted.wait()
            began = time.monotonic()
            with contextlib.suppress(ConnectFailed):  # the page shows the state of the management API
                for one in await declared(client, self._login.virtual_host, self._stages.keys()):
                    if len(self._stages) < MOST_STAGES:
                        stage = _Stage(one.app, one.stage, one.queue, one.key, one.exchange)
                        self._stages.setdefault(f"{one.app}/{one.stage}", stage)
                self._changed.set()
            await asyncio.sleep(max(FIND_EVERY, SHARE * (time.monotonic() - began)))

    async def _tell(self) -> None:
        while True:
            await self.topic.wanted.wait()
            began = time.monotonic()
            self._changed.clear()
            nodes = [node for node in self._telemetry.nodes.live() if node.report.wiring is not None]
            self._learn(nodes)
            await self._look()
            self.topic.put(self._picture(nodes), time.time())
            took = time.monotonic() - began
            try:
                async with asyncio.timeout(max(EVERY, took)):
                    await self._changed.wait()
            except TimeoutError:
                pass

    def _learn(self, nodes: Iterable[NodeState]) -> None:
        """Add new stages, and update all from the reports of their workers.

        A stage stays when its workers are gone. If there are too many, new ones take the place of those whose workers
        are gone and whose queue is not there, as that of a made-up stage.
        """
        nodes = [*nodes]
        live = {f"{node.report.app}/{node.report.role}" for node in nodes}
        gone = iter([key for key, one in self._stages.items() if key not in live and one.waiting is None])
        for node in nodes:
            report, wiring = node.report, node.report.wiring
            key = f"{report.app}/{report.role}"
            stage = self._stages.get(key)
            if wiring is None:
                continue
            if stage is None:
                if len(self._stages) >= MOST_STAGES and (forgotten := next(gone, None)) is not None:
                    del self._stages[forgotten]
                if len(self._stages) >= MOST_STAGES:
                    continue
                stage = self._stages[key] = _Stage(report.app, report.role, "", "", "")
            stage.queue, stage.key, stage.exchange = wiring.queue, wiring.key, wiring.exchange
            stage.schedule = report.schedule or stage.schedule  # reported by one worker, and kept when that has gone
            stage.limits = report.limits
            for name in report.counters:
                if name.startswith("to.") and len(stage.to) < MOST_KEYS:
                    stage.to.add(name.removeprefix("to."))

    async def _look(self) -> None:
        """Ask the broker for waiting messages and pauses. After a failure the stages keep their earlier values."""
        connection = self._telemetry.connection
        if connection is None or not connection.is_open:
            return
        for stage in list(self._stages.values()):
            try:
                await self._ask(connection, stage)
            except (ChannelClosed, UsageError):
                continue  # this stage's alone: another connection's exclusive queue, or a name that is too long
            except (Closed, RequestTimeout):
                return

    async def _ask(self, connection: Connection, stage: _Stage) -> None:
        """Ask the broker for one stage. Raises Closed, RequestTimeout, and UsageError for names that AMQP forbids."""
        stage.waiting = await _waiting(await self._open(connection), stage.queue)
        if stage.limits is not None and stage.limits.tokens:
            stage.tokens = await _waiting(await self._open(connection), stage.limits.tokens)
        await self._see(connection, await self._open(connection), stage)

    async def _open(self, connection: Connection) -> Channel:
        if self._channel is None or not self._channel.is_open:
            self._channel = await connection.channel()
        return self._channel

    async def _see(self, connection: Connection, channel: Channel, stage: _Stage) -> None:
        """Note whether a stage is paused, and by whom. A reader may hold the pause for a moment: see `pausing`."""
        try:
            found = await look(channel, stage.app, stage.name)
        except NotFound:
            found = State.RUNNING  # its worker is older than pauses
        if found is State.RUNNING and stage.state is State.PAUSED:
            await asyncio.sleep(MOMENT)
            found = await look(channel, stage.app, stage.name)
        if found is State.UNKNOWN or (found is stage.state and (found is State.RUNNING) is (stage.pause is None)):
            return
        stage.state = found
        try:
            stage.pause = await pausing.paused(connection, stage.app, stage.name) if found is State.PAUSED else None
        except (AccessRefused, pausing.Held):  # the pause can't be read
            stage.pause = Pause(stage.app, stage.name)

    def _picture(self, nodes: Iterable[NodeState]) -> dict[str, Any]:
        sums = self._telemetry.nodes.stages()
        workers: dict[str, list[dict[str, Any]]] = {}
        for node in nodes:
            workers.setdefault(f"{node.report.app}/{node.report.role}", []).append(_worker(node))
        places = in_order(self._stages)
        return {
            key: {
                **_drawn(stage, sums.get(key, {}), workers.get(key, []), places[key]),
                "described": stage.app in self._documents,
            }
            for key, stage in self._stages.items()
        }


async def _waiting(channel: Channel, queue: str) -> int | None:
    """Return how many messages are ready in a queue; None if there is no such queue."""
    try:
        return (await channel.declare_queue(queue, passive=True)).message_count
    except NotFound:
        return None


def _worker(node: NodeState) -> dict[str, Any]:
    report = node.report
    return {
        "host": report.host,
        "id": report.id,
        "pid": report.pid,
        "started": report.started,
        "in_hand": round(report.gauges.get("in_hand", 0)),
        "held_back": round(sum(report.gauges.get(name, 0) for name in _HELD_BACK)),
    }


def _limits(stage: _Stage, gauges: Mapping[str, float]) -> dict[str, Any] | None:
    """Return the limits of a stage, what of them is free, and how many messages wait for that."""
    if (limits := stage.limits) is None:
        return None
    return {
        "rate": limits.rate,
        "tokens": stage.tokens,
        "waiting_tokens": round(gauges.get("waiting_tokens", 0)),
        "slots": limits.slots,
        "free": max(0, limits.slots - round(gauges.get("slots", 0))),
        "waiting_slots": round(gauges.get("waiting_slots", 0)),
        "by": limits.by,
        "rate_each": limits.rate_each,
        "slots_each": limits.slots_each,
        "waiting_keys": round(gauges.get("waiting_keys", 0)),
    }


def _drawn(stage: _Stage, sums: Mapping[str, Any], workers: list[dict[str, Any]], place: int) -> dict[str, Any]:
    rates, counters, gauges = (sums.get(name, {}) for name in ("rates", "counters", "gauges"))
    state = "paused" if stage.state is State.PAUSED else "running" if workers else "silent"
    pause = None if stage.pause is None else msgspec.to_builtins(stage.pause)
    return {
        "app": stage.app,
        "stage": stage.name,
        "place": place,
        "queue": stage.queue,
        "key": stage.key,
        "exchange": stage.exchange,
        "to": sorted(stage.to),
        "waiting": stage.waiting,
        "state": state,
        "pause": pause,
        **{shown: rates.get(name, 0.0) for name, shown in _FIGURES.items()},
        "in_hand": round(gauges.get("in_hand", 0)),
        "retried": counters.get("waiting", 0),
        "dead": counters.get("dead", 0),
        "skipped": counters.get("skipped", 0),
        "handling": sums.get("handling", {}),
        "schedule": None if stage.schedule is None else msgspec.to_builtins(stage.schedule),
        "limits": _limits(stage, gauges),
        "workers": sorted(workers, key=itemgetter("host", "id"))[:MOST_WORKERS],
        "more_workers": max(0, len(workers) - MOST_WORKERS),
    }
