"""The state between the broker and the pages: the known hosts, and a bounded buffer for each page.

Nothing here waits or does I/O. Everything is bounded: the hosts, their histories, and the data that wait for a page
that reads slowly. Such a page misses samples, but never a host's newest one, and is told how many it missed.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

import msgspec

from rabbitry.apps import Metric
from rabbitry.apps.monitor.decode import InvalidSample, printable
from rabbitry.apps.monitor.reading import Reading, Values, read
from rabbitry.apps.monitor.recent import Recent
from rabbitry.runtime.http.pages import OpenPages

HOST_LIMIT = 1000
"""Hosts that are remembered; beyond that the one silent for longest is forgotten."""
FORGET_AFTER = 3600.0
"""Seconds after which a silent host is forgotten."""
HISTORY = 180
"""Samples of a host that are kept: three minutes, at one a second."""
PENDING_LIMIT = 2000
PENDING_BYTES = 4 * 1024 * 1024
"""Samples that wait for a page, and their size; beyond that it reads too slowly, and misses some."""
CLOCK_TOLERANCE = 10.0
"""Seconds that a machine's clock may differ from this one's before the page says so."""
CLOCK_SAMPLES = 5
"""Samples over which the smallest difference counts, since a message may be late."""
WHOLE_AT_ONCE = 20
"""Hosts that one update holds with their histories, so that it stays well under a megabyte."""

METRICS_FOR = 20.0
"""Seconds after which a silent machine has no metrics."""
_METRICS = (
    ("cpu_usage_ratio", "Busy share of the machine's CPU", 0.01),
    ("memory_usage_ratio", "Used share of the machine's memory", 0.01),
    ("network_receive_bytes_per_second", "Bytes that the machine receives a second", 1.0),
    ("network_transmit_bytes_per_second", "Bytes that the machine sends a second", 1.0),
    ("filesystem_usage_ratio", "Used share of the machine's fullest file system", 0.01),
)
"""Of each value of a sample, and of the disk: name, help and factor."""

BrokerState = Literal["connecting", "connected", "away", "refused"]
"""`away` will be tried again; `refused` (login, virtual host) will not."""


class SampleState(msgspec.Struct, frozen=True):
    """A sample on its way to the page.

    `id` stands for the machine. Its name `host`, the routing key `key` and the machine's own id `machine` are for
    people: machines of one name differ in one of the others. `seq` grows over all machines; `at` is when it came, in
    Unix seconds. `clock` is how many seconds the machine's clock is ahead of this one's (behind, if it is below 0),
    None if they agree or it does not say.
    """

    id: str
    host: str
    key: str
    machine: str
    seq: int
    at: float
    values: Values
    raw: str
    clock: float | None = None


class HostState(msgspec.Struct, frozen=True):
    """All that is known of a host, for a page that was just opened."""

    id: str
    host: str
    latest: SampleState
    history: list[tuple[float, Values]]


class Broker(msgspec.Struct, frozen=True, kw_only=True):
    """The broker that the samples come from: its state, since when, and why it is away if it is."""

    state: BrokerState
    since: float
    where: str
    reason: str = ""


class Unread(msgspec.Struct, frozen=True):
    """Messages that were no samples, since the start; the last one's routing key and what was wrong."""

    count: int
    routing_key: str
    reason: str


class Update(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One message to a page. `now` is the server's time; what is not there has not changed."""

    now: float
    reset: bool = False
    """Everything that the page knew before is void."""
    broker: Broker | None = None
    unread: Unread | None = None
    hosts: list[HostState] = []
    samples: list[SampleState] = []
    gone: list[str] = []
    skipped: int = 0
    """Samples that this page missed since it was opened, because it reads too slowly."""


@dataclass(slots=True)
class _Known:
    latest: SampleState
    history: Recent
    ahead: deque[float]
    """Seconds that the clock of the machine was ahead in its last samples."""
    disk: float | None = None
    """Percent of the fullest file system."""


class Hub:
    """The known state of all hosts. Used from one event loop."""

    def __init__(
        self, where: str, clock: Callable[[], float] = time.time, record: Callable[[Reading], None] | None = None
    ) -> None:
        """Begin without hosts.

        where: names the broker without its password. clock: returns Unix seconds. record: called with each sample.
        """
        self._clock = clock
        self._record = record
        self._hosts: dict[str, _Known] = {}  # by id, in the order of their last samples, the longest silent first
        self._pages = OpenPages[Page]()
        self._seq = 0
        self._unread: Unread | None = None
        self._broker = Broker(state="connecting", since=clock(), where=where)

    @property
    def broker(self) -> Broker:
        """The state of the connection to the broker."""
        return self._broker

    @property
    def host_count(self) -> int:
        """Hosts that are known, silent ones included."""
        return len(self._hosts)

    @property
    def received(self) -> int:
        """Samples taken since the start."""
        return self._seq

    def receive(self, body: bytes, routing_key: str) -> None:
        """Take a message as it came. An invalid sample is counted, and the pages get the reason."""
        try:
            reading = read(body, routing_key)
        except InvalidSample as error:
            count = self._unread.count + 1 if self._unread else 1
            self._unread = Unread(count, printable(routing_key), str(error))
            for page in self._pages:
                page.tell_unread()
            return
        if self._record is not None:
            self._record(reading)
        now, source = self._clock(), reading.source
        self._seq += 1
        known = self._hosts.pop(source.id, None)
        ahead = deque[float](maxlen=CLOCK_SAMPLES) if known is None else known.ahead
        if reading.timestamp is not None:
            ahead.append(reading.timestamp - now)
        sample = SampleState(
            id=source.id,
            host=source.host,
            key=source.key,
            machine=source.machine,
            seq=self._seq,
            at=now,
            values=reading.values,
            raw=reading.raw,
            clock=_clock_error(ahead),
        )
        if known is None:
            known = _Known(sample, Recent(HISTORY), ahead)
        known.latest, known.disk = sample, reading.disk
        known.history.add(now, reading.values)
        self._hosts[source.id] = known
        for page in self._pages:
            page.add(sample)
        self.forget_silent()

    def forget_silent(self) -> None:
        """Drop hosts that are silent for too long, or too many."""
        horizon = self._clock() - FORGET_AFTER
        while self._hosts:
            host, known = next(iter(self._hosts.items()))
            if known.latest.at > horizon and len(self._hosts) <= HOST_LIMIT:
                return
            del self._hosts[host]
            for page in self._pages:
                page.remove(host)

    def set_broker(self, state: BrokerState, reason: str = "") -> None:
        """Send the new state of the connection to the broker to the pages."""
        since = self._broker.since if state == self._broker.state else self._clock()
        self._broker = Broker(state=state, since=since, where=self._broker.where, reason=reason)
        for page in self._pages:
            page.tell_broker()

    def page(self, peer: str | None = None) -> AbstractContextManager[Page]:
        """Open a page's subscription, until the block is left.

        Args:
            peer: The browser's address; see `OpenPages`.
        """
        return self._pages.opened(lambda: Page(self), peer)

    def whole(self, host: str) -> HostState | None:
        """Return all that is known of one host, by its id; None if it is forgotten."""
        known = self._hosts.get(host)
        return None if known is None else HostState(host, known.latest.host, known.latest, list(known.history))

    def ids(self) -> list[str]:
        """Return the ids of all hosts."""
        return list(self._hosts)

    def metrics(self) -> Iterator[Metric]:
        """Yield the gauges of the machines that sent a sample in the last METRICS_FOR seconds."""
        since = self._clock() - METRICS_FOR
        live = [known for known in self._hosts.values() if known.latest.at > since]
        labels = [{"host": one.latest.host, "id": one.latest.id} for one in live]
        found = [(*one.latest.values, one.disk) for one in live]
        for place, (name, help_, scale) in enumerate(_METRICS):
            values = zip(labels, (each[place] for each in found), strict=True)
            samples = [(label, value * scale) for label, value in values if value is not None]
            yield Metric(f"rabbitry_machine_{name}", help_, samples)

    def now(self) -> float:
        """Return the server's time, in Unix seconds."""
        return self._clock()

    @property
    def unread(self) -> Unread | None:
        """What could not be read so far."""
        return self._unread


class Page:
    """The data that wait to be sent to one page; `take` hands it out in pieces of moderate size.

    A host waits either as an id, to be sent whole with its history, or with each of its new samples.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._wake = asyncio.Event()
        self._skipped = 0
        self._start_over()

    def _start_over(self) -> None:
        self._reset = self._broker = self._unread = True
        self._whole = dict.fromkeys(self._hub.ids())  # a dict, since a set has no order
        self._samples: list[SampleState] = []
        self._bytes = 0
        self._gone: list[str] = []
        self._wake.set()

    def add(self, sample: SampleState) -> None:
        """Queue a sample. If too many wait, their hosts are sent whole instead, with the newest of each."""
        if sample.id in self._whole:
            return
        self._samples.append(sample)
        self._bytes += len(sample.raw)
        if len(self._samples) > PENDING_LIMIT or self._bytes > PENDING_BYTES:
            self._skipped += len(self._samples)
            self._whole.update(dict.fromkeys(waiting.id for waiting in self._samples))
            self._samples, self._bytes = [], 0
        self._wake.set()

    def remove(self, host: str) -> None:
        """Queue the news that a host is forgotten."""
        self._whole.pop(host, None)
        self._samples = [sample for sample in self._samples if sample.id != host]
        self._gone.append(host)
        if len(self._gone) > PENDING_LIMIT:
            self._start_over()
        self._wake.set()

    def tell_broker(self) -> None:
        """Queue the state of the broker."""
        self._broker = True
        self._wake.set()

    def tell_unread(self) -> None:
        """Queue the count of messages that were no samples."""
        self._unread = True
        self._wake.set()

    async def wait(self) -> None:
        """Wait until something is to be sent. Cancelling loses nothing."""
        await self._wake.wait()

    def take(self) -> Update:
        """Return the next piece of the waiting data. An empty update is a sign of life."""
        hub = self._hub
        hub.forget_silent()
        ids = list(itertools.islice(self._whole, WHOLE_AT_ONCE))
        for host in ids:
            del self._whole[host]
        update = Update(
            now=hub.now(),
            reset=self._reset,
            broker=hub.broker if self._broker else None,
            unread=hub.unread if self._unread else None,
            hosts=[known for host in ids if (known := hub.whole(host))],
            samples=self._samples,
            gone=self._gone,
            skipped=self._skipped,
        )
        self._reset = self._broker = self._unread = False
        self._samples, self._bytes, self._gone = [], 0, []
        if not self._whole:
            self._wake.clear()
        return update


def _clock_error(ahead: deque[float]) -> float | None:
    """Return the seconds that a clock is ahead by the smallest of its last differences; None if that is negligible."""
    error = min(ahead, key=abs, default=0.0)
    return round(error, 1) if abs(error) > CLOCK_TOLERANCE else None
