"""The agent: publishes this machine's samples, and stops while nobody listens."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime

import msgspec

from rabbitry._words import reason
from rabbitry.amqp.client import BrokerURL, Channel, Connection, Properties, RecoveryEvent, parse_url
from rabbitry.apps._connected import run_connected
from rabbitry.apps.monitor.names import SampleExchange
from rabbitry.apps.monitor.sample import Sample
from rabbitry.apps.monitor.sampling import MeasuringHangs, Meter, Reading, sample
from rabbitry.exceptions import NotFound, PublishError, PublishReturned, RabbitryError
from rabbitry.flow.wiring.declarer import Declarer
from rabbitry.runtime.tasks import until

INTERVAL = 1.0
"""Seconds between two samples."""
PROBE = 5.0
"""Seconds between two attempts while nobody listens."""
CONFIRM = 10.0
"""Seconds in which the broker must confirm a sample."""
SHORT = 0.2
"""Seconds that a measurement on demand is over, and the agent's first one."""

_logger = logging.getLogger(__name__)

Work = Callable[[], Awaitable[object]]


class Away(RabbitryError):
    """There is currently no connection to the broker; the text says why."""


class Publisher:
    """Publishes samples to exchanges that it declares, over a connection that it keeps."""

    def __init__(
        self,
        exchanges: Iterable[SampleExchange],
        routing_key: str,
        *,
        strict: bool = False,
        on_connected: Callable[[], None] | None = None,
    ) -> None:
        """Create a publisher that is not connected yet; see `run`.

        `strict`: raise PreconditionFailed if an exchange exists with other flags, instead of using it as it is.
        on_connected: called each time the connection is made and the exchanges are declared.
        """
        self.exchanges: tuple[SampleExchange, ...] = tuple(exchanges)
        self.routing_key = routing_key
        self.away: str | None = "not connected yet"
        """Why nothing can be published now; None while connected."""
        self._declarer = Declarer(strict=strict)
        self._on_connected = on_connected
        self._connection: Connection | None = None
        self._channel: Channel | None = None
        self._declaring = asyncio.Lock()

    async def run(
        self, url: str | BrokerURL, stop: asyncio.Event, work: Work, *, connect_attempts: int | None = None
    ) -> None:
        """Keep a connection until `stop` is set, and run `work` over it, which ends then.

        Args:
            url: The broker.
            stop: Ends the connection.
            work: Called with the connection.
            connect_attempts: How often to try in a row, at the start and after each loss. None: for ever.

        Raises:
            ConnectFailed: the login was refused, or `connect_attempts` failed in a row.
            AccessRefused, PreconditionFailed: see `Declarer`.
        """
        broker = parse_url(url) if isinstance(url, str) else url

        def told(event: RecoveryEvent) -> None:
            if event.kind == "recovered":
                self._connected(broker)
            else:
                self.away = str(event.error)

        async def publishing(connection: Connection) -> None:
            self._connection = connection
            self._channel = await connection.channel()
            self._connected(broker)
            await work()
            await self._channel.close()

        try:
            await run_connected(
                broker,
                publishing,
                name="rabbitry monitor publish",
                stop=stop,
                connect_attempts=connect_attempts,
                recovery_attempts=connect_attempts,
                declare=self._declare,
                on_recovery=told,
            )
        except RabbitryError as error:
            self.away = str(error)
            raise

    def _connected(self, broker: BrokerURL) -> None:
        self.away = None
        _logger.info(
            "connected to %s: routing key '%s', exchanges %s",
            broker,
            self.routing_key,
            ", ".join(f"'{exchange.name}'" for exchange in self.exchanges),
        )
        if self._on_connected is not None:
            self._on_connected()

    async def publish(self, exchange: SampleExchange, measured: Sample) -> None:
        """Publish a sample; returns when the broker has confirmed it.

        Raises:
            Away: there is no connection.
            PublishReturned: nobody listens.
            PublishRefused, PublishTimeout: the broker did not take it, or not in time.
            ChannelClosed, ConnectionClosed: while it was under way.
        """
        connection, channel = self._connection, self._channel
        if connection is None or channel is None or self.away is not None:
            raise Away(f"the broker is away: {self.away}")
        if not channel.is_open:  # somebody deleted the exchange
            async with self._declaring:
                await self._declare(connection)
                await channel.open()
        await channel.publish(
            msgspec.json.encode(measured),
            exchange=exchange.name,
            routing_key=self.routing_key,
            properties=Properties(
                content_type="application/json",
                delivery_mode=2 if exchange.persistent else 1,
                timestamp=datetime.now(UTC).replace(microsecond=0),
                type="sample",
                app_id="monitor",
            ),
            timeout=CONFIRM,
        )

    async def _declare(self, connection: Connection) -> None:
        # The broker closes a channel whose declaration it refuses, so it is not the one that samples go over.
        async with await connection.channel() as channel:
            for exchange in self.exchanges:
                await self._declarer.exchange(channel, exchange.name, exchange.type, durable=exchange.durable)


class _Audience:
    """Whether samples arrive on one exchange, and what was said of it."""

    def __init__(self, exchange: SampleExchange) -> None:
        self.exchange = exchange
        self.absent = False
        """The last sample came back: nobody listens."""
        self.next_at = 0.0
        """Monotonic seconds before which nothing is sent."""
        self.trouble = False
        """The last sample was not taken for another reason."""


class Agent:
    """Publishes a sample each `interval` seconds to some exchanges of a publisher.

    When a sample comes back because nobody listens, that exchange gets one each `probe` seconds, until one is
    routed. When the broker is slow, samples are left out, not queued.
    """

    def __init__(
        self,
        publisher: Publisher,
        exchanges: Iterable[SampleExchange],
        *,
        interval: float = INTERVAL,
        probe: float = PROBE,
    ) -> None:
        self._publisher = publisher
        self._interval = interval
        self._probe = probe
        self._meter = Meter()
        self._blind = False
        self._audiences = [_Audience(exchange) for exchange in exchanges]

    async def run(self, url: str | BrokerURL, stop: asyncio.Event, *, connect_attempts: int | None = None) -> None:
        """Publish until `stop` is set; raises as `Publisher.run`."""
        await self._publisher.run(url, stop, lambda: self._publish_all(stop), connect_attempts=connect_attempts)

    async def _publish_all(self, stop: asyncio.Event) -> None:
        clock = asyncio.get_running_loop().time
        before = await self._read()
        due = clock() + min(SHORT, self._interval)
        while True:
            await until(stop, asyncio.sleep(due - clock()))
            if stop.is_set():
                return
            due = max(due + self._interval, clock())
            if self._publisher.away is not None:
                before = None  # so that the next sample is not over the time without a broker
                continue
            audiences = [audience for audience in self._audiences if audience.next_at <= clock()]
            after = await self._read() if audiences else None
            if after is None:
                continue
            if before is not None:
                measured = sample(before, after)
                for audience in audiences:
                    await self._publish(audience, measured)
            before = after

    async def _read(self) -> Reading | None:
        try:
            reading = await self._meter.read()
        except (MeasuringHangs, OSError) as error:
            if not self._blind:
                _logger.warning("no samples for now: %s", reason(error, is_named=False))
            self._blind = True
            return None
        self._blind = False
        return reading

    async def _publish(self, audience: _Audience, measured: Sample) -> None:
        exchange, key = audience.exchange.name, self._publisher.routing_key
        try:
            await self._publisher.publish(audience.exchange, measured)
        except PublishReturned:
            audience.next_at = asyncio.get_running_loop().time() + self._probe - self._interval / 2
            if not audience.absent:
                _logger.info(
                    "nobody listens on exchange '%s' with routing key '%s': paused, trying again every %g s",
                    exchange,
                    key,
                    self._probe,
                )
            audience.absent = True
        except Away:
            return
        except (PublishError, NotFound) as error:
            if self._publisher.away is not None:
                return  # the connection was lost meanwhile, which is logged
            if not audience.trouble:
                _logger.warning("exchange '%s' does not take samples: %s", exchange, error)
            audience.trouble = True
        else:
            if audience.absent or audience.trouble:
                _logger.info("samples arrive on exchange '%s' again", exchange)
            audience.absent = audience.trouble = False
