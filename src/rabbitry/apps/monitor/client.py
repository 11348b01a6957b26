"""The statistics client of contract `pi_utilization`: samples of some routing keys in, statistics out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence

from rabbitry.amqp.client import BrokerURL, Channel, Connection, Consumer, RecoveryEvent, parse_url
from rabbitry.apps._connected import run_connected
from rabbitry.apps.monitor.decode import InvalidSample, decode, printable, utilization
from rabbitry.apps.monitor.names import UTILIZATION
from rabbitry.apps.monitor.statistics import Counts, HostSeries
from rabbitry.flow.wiring.declarer import Declarer
from rabbitry.runtime.tasks import background, until

PREFETCH = 200
DRAIN_SECONDS = 6.0
"""Seconds in which the samples left in the queue are counted at the end; then the queue is purged."""
GETS_AT_ONCE = 32
SILENCE = 5.0
"""Seconds without a message from a routing key after which this is logged; twice as long each further time."""
_WARNINGS = 100
"""Different warnings that are shown, so that a hostile publisher can't flood the terminal."""

_logger = logging.getLogger(__name__)

Show = Callable[[str, HostSeries], Awaitable[None]]


class StatisticsClient:
    """Counts the samples of some routing keys into `counts`.

    `show(routing_key, host)` is awaited for each that was counted; while it waits, no other is taken.
    """

    def __init__(self, keys: Sequence[str], counts: Counts, show: Show, *, strict: bool = False) -> None:
        """Create a client. strict: raise PreconditionFailed for an exchange with other flags instead of using it."""
        self._counts = counts
        self._show = show
        self._declarer = Declarer(strict=strict)
        self._warned: set[tuple[str, str]] = set()
        self._machines: dict[str, tuple[str, str]] = {}  # of each key that is bound: the latest, and the one before
        self._silence = dict.fromkeys(keys, SILENCE)
        self._heard = dict.fromkeys(keys, 0.0)
        self._silent: set[str] = set()
        self._is_away = False

    async def run(self, url: str | BrokerURL, stop: asyncio.Event) -> None:
        """Count until `stop` is set, over restarts of the broker; then end in order (see `_work`).

        Raises:
            ConnectFailed: the first attempt to connect failed; or the login was refused at a later one.
            AccessRefused, PreconditionFailed: see `Declarer`.
        """
        broker = parse_url(url) if isinstance(url, str) else url

        def told(event: RecoveryEvent) -> None:
            self._is_away = event.kind != "recovered"
            if not self._is_away:
                self._log_connected(broker)

        await run_connected(
            broker,
            lambda connection: self._work(connection, stop),
            name="rabbitry monitor stats",
            stop=stop,
            connect_attempts=1,
            declare=self._declare,
            on_recovery=told,
        )

    async def _declare(self, connection: Connection) -> None:
        async with await connection.channel() as channel:
            await self._declarer.exchange(channel, UTILIZATION.name, UTILIZATION.type, durable=UTILIZATION.durable)

    def _log_connected(self, broker: BrokerURL) -> None:
        _logger.info("connected to %s: counting %s", broker, _named(self._silence))

    async def _work(self, connection: Connection, stop: asyncio.Event) -> None:
        """Count until `stop`; then stop consuming, empty the queue of what is left, close the channel.

        The connection is closed after that.
        """
        self._is_away = False
        channel = await connection.channel(prefetch=PREFETCH)
        queue = (await channel.declare_queue("", exclusive=True)).name
        for key in self._silence:
            await channel.bind_queue(queue, UTILIZATION.name, key)
        # `stop` interrupts the counting alone, never the start of the consumer: a message on its way to a consumer
        # that was given up is in no queue, and the drain below would not find it.
        async with background(self._say_silence()), channel.consume(queue) as deliveries:
            self._log_connected(connection.url)
            await until(stop, self._count(deliveries))
        await self._drain(channel, queue)
        await channel.close()

    async def _count(self, deliveries: Consumer) -> None:
        async for delivery in deliveries:
            delivery.ack()
            await self._take(delivery.routing_key, delivery.body)

    async def _drain(self, channel: Channel, queue: str) -> None:
        deadline = asyncio.get_running_loop().time() + DRAIN_SECONDS
        while True:
            # One after the other, each would cost a round trip: seconds for some hundred of them on a busy machine.
            answers = await asyncio.gather(*(channel.get(queue, no_ack=True) for _ in range(GETS_AT_ONCE)))
            for delivery in filter(None, answers):
                await self._take(delivery.routing_key, delivery.body)
            if None in answers:
                return
            if asyncio.get_running_loop().time() > deadline:
                await channel.purge_queue(queue)
                return

    async def _take(self, routing_key: str, body: bytes) -> None:
        self._hear(routing_key)
        try:
            sample = utilization(decode(body))
        except InvalidSample as error:
            self._counts.skipped += 1
            self._warn_once(routing_key, f"{error}: skipped")
            return
        for problem in sample.problems:
            self._warn_once(routing_key, f"{problem}: skipped")
        if sample.machine:
            self._tell_apart(routing_key, sample.machine)
        await self._show(routing_key, self._counts.add(routing_key, sample.cpu, sample.net))

    def _tell_apart(self, key: str, machine: str) -> None:
        """Warn if two machines alternate with one routing key. A machine that takes over for good is no mistake."""
        latest, before = self._machines.get(key, ("", ""))
        if machine == latest:
            return
        self._machines[key] = machine, latest
        if machine == before:
            self._warn_once(key, "comes from another machine than the one before: give each a key of its own, with -k")

    def _warn_once(self, key: str, problem: str) -> None:
        if len(self._warned) > _WARNINGS or (key, problem) in self._warned:
            return
        self._warned.add((key, problem))
        if len(self._warned) > _WARNINGS:
            _logger.warning("further malformed samples are counted, but not named")
        else:
            _logger.warning("a message of '%s' %s", printable(key), problem)

    def _hear(self, key: str) -> None:
        if key in self._heard:
            self._heard[key] = asyncio.get_running_loop().time()
            if key in self._silent:
                self._silent.discard(key)
                _logger.info("samples of '%s' come", printable(key))

    async def _say_silence(self) -> None:
        """Log each routing key from which nothing has come for some time, and what to check."""
        clock = asyncio.get_running_loop().time
        self._heard = dict.fromkeys(self._heard, clock())
        while True:
            await asyncio.sleep(1)
            if self._is_away:
                self._heard = dict.fromkeys(self._heard, clock())
            silent = [
                key
                for key, heard in self._heard.items()
                if key not in self._silent and clock() - heard > self._silence[key]
            ]
            if not silent:
                continue
            _logger.warning(
                "nothing came from %s for %.0f s: does a publisher run with this routing key, "
                "on this broker and virtual host? `rabbitry doctor` looks",
                _named(silent),
                max(self._silence[key] for key in silent),
            )
            self._silent.update(silent)
            for key in silent:
                self._silence[key] *= 2


def _named(keys: Iterable[str]) -> str:
    return ", ".join(f"'{printable(key)}'" for key in keys)
