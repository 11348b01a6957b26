"""Looking at what waits in the queues of an app's stages."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, Final

from rabbitry.cli._scaling import Backlog
from rabbitry.exceptions import ChannelClosed, NotFound, RabbitryError
from rabbitry.runtime.backoff import AT_START

if TYPE_CHECKING:
    from rabbitry.amqp.client import Channel, Connection
    from rabbitry.flow.spec import AppSpec
    from rabbitry.flow.stage import Stage
    from rabbitry.telemetry import Collector, Report

LOOK: Final = 1.0
"""Seconds between two looks."""
_BUSY: Final = 0.8
"""The share of a stage's handlers from which on they are what its messages wait for, and not the limits of keys."""

_logger = logging.getLogger(__name__)


async def watch(url: str, spec: AppSpec, stages: Sequence[Stage], on_look: Callable[[Backlog], None]) -> None:
    """Call `on_look` with what waits, once a second, for as long as it runs.

    While the broker is away nothing is called: the workers wait for it as well.

    Args:
        url: The broker.
        spec: The app.
        stages: The stages whose queues count. Left out are those that more processes do not help: paused ones, those of
            which one worker at a time is active, and those whose messages wait for a limit, of the stage or of their
            keys. Only workers see the keys: a stage with such limits counts while its workers report that their
            handlers are busy.
        on_look: Called in the event loop.
    """
    from rabbitry.amqp.client import connect

    shared = [stage for stage in stages if not stage.single_active]
    failures = 0
    while True:
        try:
            async with connect(url, name="rabbitry worker --processes", recover=False) as connection:
                failures = 0
                await _watch(connection, spec, shared, on_look)
        except RabbitryError as error:
            failures += 1
            _logger.debug("can't look at the queues of app '%s': %s", spec.name, error)
            await asyncio.sleep(AT_START.pause(failures))


async def _watch(
    connection: Connection, spec: AppSpec, stages: Sequence[Stage], on_look: Callable[[Backlog], None]
) -> None:
    """Look until the connection is lost. `empty`: when each queue was last seen empty, or at first."""
    loop = asyncio.get_running_loop()
    empty: dict[str, float] = {}
    async with _reports(connection, spec) as reports:
        while True:
            waiting, age = 0, 0.0
            for stage in stages:
                is_counted = stage.name not in spec.key_limits or _is_busy(reports(), spec, stage)
                found = await _waiting(connection, spec, stage) if is_counted else 0
                now = loop.time()
                if not found:
                    empty[stage.queue] = now
                waiting += found
                age = max(age, now - empty.setdefault(stage.queue, now))
            on_look(Backlog(waiting, age))
            await asyncio.sleep(LOOK)


@contextlib.asynccontextmanager
async def _reports(connection: Connection, spec: AppSpec) -> AsyncIterator[Callable[[], list[Report]]]:
    """Collect what the app's workers report, if a stage has limits by key. Yield a function: their last reports.

    It raises the error with which collecting ended, unless the broker refuses to deliver reports.
    """
    from rabbitry.telemetry import Collector

    collector = Collector()
    if not spec.key_limits:
        yield collector.nodes
        return
    collecting = asyncio.create_task(_collect(connection, spec, collector))

    def reports() -> list[Report]:
        if collecting.done():
            collecting.result()
        return collector.nodes()

    try:
        yield reports
    finally:
        collecting.cancel()
        # Its error is not raised here, where it would take the place of what ends the block: of being cancelled, too.
        await asyncio.gather(collecting, return_exceptions=True)


async def _collect(connection: Connection, spec: AppSpec, collector: Collector) -> None:
    try:
        await collector.run(connection, app=spec.name)
    except ChannelClosed as error:
        _logger.warning(
            "app '%s': its stages with limits by key add no processes, because workers' reports can't be read: %s",
            spec.name,
            error,
        )


def _is_busy(reports: Sequence[Report], spec: AppSpec, stage: Stage) -> bool:
    """Return whether messages of a stage with limits by key wait for handlers, as all its workers together report.

    While no worker has reported, they do not.
    """
    mine = [report.gauges for report in reports if (report.app, report.role) == (spec.name, stage.name)]
    shares = [gauges["busy"] for gauges in mine if "busy" in gauges]  # an older worker does not tell
    return bool(shares) and sum(shares) / len(shares) >= _BUSY


async def _waiting(connection: Connection, spec: AppSpec, stage: Stage) -> int:
    """Return how many messages wait for a stage's workers: none if it is paused, not declared yet, or at its limit."""
    from rabbitry.flow.wiring.pausing import State, look

    with contextlib.suppress(ChannelClosed):
        async with await connection.channel() as channel:
            count = (await channel.declare_queue(stage.queue, passive=True)).message_count
            with contextlib.suppress(NotFound):  # an app of another version declared the queue
                if count and (await _is_at_rate(channel, spec, stage) or await _is_at_total(channel, spec, stage)):
                    return 0
                if count and await look(channel, spec.name, stage.name) is not State.RUNNING:
                    return 0
            return count
    return 0


async def _is_at_rate(channel: Channel, spec: AppSpec, stage: Stage) -> bool:
    """Return whether a stage begins as many messages as its rate allows, as its tokens tell.

    The workers use each token at once while they can begin messages. If at least half of the most tokens are left, more
    processes would begin more.
    """
    from rabbitry.flow.wiring.rates import tokens_queue

    if (rate := spec.rates.get(stage.name)) is None:
        return False
    left = (await channel.declare_queue(tokens_queue(spec.name, stage.name), passive=True)).message_count
    return 2 * left < rate.burst


async def _is_at_total(channel: Channel, spec: AppSpec, stage: Stage) -> bool:
    """Return whether all calls of a stage that may run at once do: each of its slots is held.

    A token lies in the queue of a free slot, unless none was published yet; then nobody consumes it. A slot that passes
    from one call to the next is free for a moment, which two looks tell from a free one.
    """
    from rabbitry.flow.wiring.pausing import MOMENT
    from rabbitry.flow.wiring.slots import slot_queues

    if (total := spec.totals.get(stage.name)) is None:
        return False
    for is_last in (False, True):
        queues = slot_queues(spec.name, stage.name, total)
        found = [await channel.declare_queue(queue, passive=True) for queue in queues]
        if all(one.consumer_count and not one.message_count for one in found):
            return True
        if not is_last:
            await asyncio.sleep(MOMENT)
    return False
