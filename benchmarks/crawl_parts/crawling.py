"""Crawlers and processors alone: CPU, memory, scaling, start time; and the effect of slow hosts on others."""

import asyncio
import contextlib
import dataclasses
import os
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from typing import Final

import msgspec
import trustme
from tests.support.crawling import Crawl, Queues
from tests.support.embedded import BrokerProcess
from tests.support.pages import SITE_A, Graph, page, words
from tests.support.sites import Answer, Entry, Request, Site, SitesProcess, host
from tests.support.waiting import eventually_blocking

import rabbitry
from benchmarks.crawl_parts import Row
from benchmarks.crawl_parts.processes import cpu_seconds, divided_cpu_seconds, mebibytes
from rabbitry.amqp.client import Properties
from rabbitry.apps.crawl import names
from rabbitry.apps.crawl.messages import Address, Batch

_HOSTS: Final = 50
_BATCH: Final = 50
_PAGES: Final = 10_000
_ROUNDS: Final = 3
_FIRST_WITHIN: Final = 600.0
_AGAIN_WITHIN: Final = 900.0
"""Seconds for the first crawl of the recrawl's pages, and then for the second one. The rows show how many pages were
fetched in these."""


async def publish(url: str, sites: SitesProcess, count: int) -> None:
    """Publish batches of `count` pages of site A, spread over its hosts."""
    async with rabbitry.connect(url) as connection:
        channel = await connection.channel()
        await channel.declare_exchange(names.EXCHANGE, "topic", durable=True)
        for queue, key in ((names.BATCH_QUEUE, names.BATCH_KEY), (names.PAGE_QUEUE, names.PAGE_KEY)):
            await channel.declare_queue(queue, durable=True)
            await channel.bind_queue(queue, names.EXCHANGE, key)
        for first in range(0, count, _BATCH):
            number = first // _BATCH % _HOSTS
            addresses = [Address(sites.url(f"/p/{n % 4000}", number)) for n in range(first, min(first + _BATCH, count))]
            batch = Batch(uuid.uuid4().hex, sites.origin(number), addresses, 0.0, time.time() + 600)
            await channel.send(
                msgspec.json.encode(batch),
                exchange=names.EXCHANGE,
                routing_key=names.BATCH_KEY,
                properties=Properties(type="Batch", content_type="application/json"),
            )
        await channel.wait_for_confirms()


def alone(share: float) -> list[Row]:
    """Measure a crawler's CPU for a page of site A, without and with TLS."""
    rows = []
    for name, authority, target in (("", None, "<= 0.5"), (" over kept TLS", trustme.CA(), "<= 0.8")):
        costs = [_crawler_cpu(int(_PAGES * share), authority) for _ in range(_ROUNDS if share == 1 else 1)]
        rows.append(Row(f"crawler alone, CPU a 58 kB page{name}, ms", f"{statistics.median(costs):.2f}", target))
    return rows


def _crawler_cpu(count: int, authority: trustme.CA | None) -> float:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        more = {}
        if authority:
            authority.cert_pem.write_to_path(folder / "ca.pem")
            more["SSL_CERT_FILE"] = str(folder / "ca.pem")
        sites = stack.enter_context(SitesProcess(SITE_A, _HOSTS, authority=authority))
        broker = stack.enter_context(BrokerProcess("--log-level", "error", anew=True))
        crawl = stack.enter_context(Crawl(broker.url, folder, more=more, anew=True))
        asyncio.run(publish(broker.url, sites, count))
        crawler = crawl.start("crawler")
        pid = crawler.process.pid
        first = count // 5
        eventually_blocking(lambda: sites.count >= first, "a fifth of the pages", within=120)
        cpu, begun = cpu_seconds(pid), sites.count
        eventually_blocking(lambda: sites.count >= count, "all pages", within=300)
        with Queues(broker.url) as queues:
            eventually_blocking(lambda: queues.count(names.PAGE_QUEUE) >= count, "all published", within=60)
        return (cpu_seconds(pid) - cpu) / (count - begun) * 1000


def memory(share: float) -> list[Row]:
    """Measure a crawler's peak memory while a frontier grows, and with many hosts at once."""
    count = int(4000 * share)
    site = dataclasses.replace(SITE_A, hosts=200)
    most = 0.0
    with (
        tempfile.TemporaryDirectory() as folder,
        SitesProcess(site, 200) as sites,
        BrokerProcess("--log-level", "error", anew=True) as broker,
        Crawl(broker.url, Path(folder), anew=True) as crawl,
    ):
        crawl.start_all()
        [pid] = [one.process.pid for one, role in crawl.running.items() if role == "crawler"]
        crawl.add(sites.url("/p/0"), limit=count)

        def done() -> bool:
            nonlocal most
            most = max(most, mebibytes(pid))
            return sites.count >= count

        eventually_blocking(done, "all pages", within=600)
        status = crawl.settled(documents=count, within=300)
    frontier = sum(status.addresses.values())
    return [Row(f"memory of a crawler, {frontier:,} addresses found on 200 hosts, MiB", f"{most:.0f}", "< 80")]


def start(share: float) -> list[Row]:
    """Measure time and CPU from the start of a crawler's process to its first request, with batches waiting."""
    seconds, used = [], []
    with (
        tempfile.TemporaryDirectory() as folder,
        SitesProcess(SITE_A, _HOSTS) as sites,
        BrokerProcess("--log-level", "error", anew=True) as broker,
    ):
        for _ in range(5 if share == 1 else 1):
            asyncio.run(publish(broker.url, sites, 100))
            sites.clear()
            with Crawl(broker.url, Path(folder), anew=True) as crawl:
                began = time.perf_counter()
                crawler = crawl.start("crawler")
                eventually_blocking(lambda: sites.count > 0, "the first request", within=30)
                seconds.append(time.perf_counter() - began)
                used.append(cpu_seconds(crawler.process.pid))
    name = "a crawler started anywhere works within, s (median, worst)"
    return [
        Row(name, f"{statistics.median(seconds):.2f}, {max(seconds):.2f}", "2"),
        Row("… CPU until its first request, s (median, worst)", f"{statistics.median(used):.2f}, {max(used):.2f}"),
    ]


@dataclasses.dataclass(frozen=True)
class _Processing:
    """Pages a second, and the milliseconds of CPU for one: broker, processors, and the processes in which they read."""

    rate: float
    broker: float
    processors: float
    reading: float

    @property
    def cpu(self) -> float:
        return self.broker + self.processors + self.reading


def processors(share: float) -> list[Row]:
    """Measure four processors on two cores beside one, with pages waiting."""
    count = int(6000 * share)
    found: dict[int, list[_Processing]] = {1: [], 4: []}
    with SitesProcess(SITE_A, _HOSTS) as sites:
        for _ in range(_ROUNDS if share == 1 else 1):
            for number, measured in found.items():
                measured.append(_processing(sites, number, count))
    one, four = (_median(measured) for measured in found.values())
    costs = "… CPU a page, ms: broker, receiving and publishing, reading"
    cores = os.cpu_count() or 1
    return [
        Row("one processor, pages of 58 kB a second", f"{one.rate:,.0f}"),
        Row(costs, f"{one.broker:.2f}, {one.processors:.2f}, {one.reading:.2f}"),
        Row(f"four processors on {cores} cores, pages a second", f"{four.rate:,.0f}"),
        Row(costs, f"{four.broker:.2f}, {four.processors:.2f}, {four.reading:.2f}"),
        Row("four processors on two cores beside one, times", f"{four.rate / one.rate:.2f}", ">= 1.8"),
        Row(f"… with {cores} cores busy all the time", f"{cores * 1000 / four.cpu / one.rate:.2f}"),
    ]


def _median(measured: list[_Processing]) -> _Processing:
    columns = zip(*map(dataclasses.astuple, measured), strict=True)
    return _Processing(*(statistics.median(column) for column in columns))


def _processing(sites: SitesProcess, number: int, count: int) -> _Processing:
    """Measure once all processors run and have read a tenth of the pages, until a tenth is left."""
    with (
        tempfile.TemporaryDirectory() as folder,
        BrokerProcess("--log-level", "error", anew=True) as broker,
        Crawl(broker.url, Path(folder), anew=True) as crawl,
        Queues(broker.url) as queues,
    ):
        asyncio.run(publish(broker.url, sites, count))
        crawler = crawl.start("crawler")
        eventually_blocking(lambda: queues.count(names.PAGE_QUEUE) >= count, "the pages wait", within=120)
        crawl.stop(crawler)
        pids = [crawl.start("processor", "--processes", "1").process.pid for _ in range(number)]
        eventually_blocking(lambda: queues.consumers(names.PAGE_QUEUE) == number, "all processors", within=120)
        first = queues.count(names.PAGE_QUEUE) - count // 10
        eventually_blocking(lambda: queues.count(names.PAGE_QUEUE) <= first, "a tenth", within=120)
        began, left, before = time.perf_counter(), queues.count(names.PAGE_QUEUE), _cpu_seconds(broker.pid, pids)
        eventually_blocking(lambda: queues.count(names.PAGE_QUEUE) <= count * 0.1, "nine tenths", within=300)
        pages, seconds = left - queues.count(names.PAGE_QUEUE), time.perf_counter() - began
        spent = zip(_cpu_seconds(broker.pid, pids), before, strict=True)
        return _Processing(pages / seconds, *(1000 * (after - was) / pages for after, was in spent))


def _cpu_seconds(broker: int, processors: list[int]) -> tuple[float, float, float]:
    return cpu_seconds(broker), *divided_cpu_seconds(*processors)


class _Slow:
    """Two hundred hosts, one of which may take 30 s for each answer; picklable."""

    def __init__(self, is_slow: bool, pages: int) -> None:
        self._is_slow = is_slow
        self._pages = pages

    def __call__(self, request: Request) -> Answer:
        links = [f"/{n}" for n in range(self._pages)]
        body = page(request.target, links, words(request.host + request.target)).encode()
        return Answer(body, after=30 if self._is_slow and request.host == host(0) else 0)


def slow_host(share: float) -> list[Row]:
    """Measure how much slower 199 hosts are if the 200th takes 30 s for each answer."""
    pages = int(20 * share)
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(_ROUNDS if share == 1 else 1):
        for is_slow, measured in seconds.items():
            with _fresh(_Slow(is_slow, pages), 200) as (sites, crawl):
                began = time.perf_counter()
                crawl.add(*(sites.url("/", number) for number in range(200)), delay=0.5)
                wanted = 199 * (pages + 2)
                eventually_blocking(lambda: sites.count >= wanted, "the others' pages", within=300)  # noqa: B023 - called in this round
                measured.append(time.perf_counter() - began)
    loss = statistics.median(seconds[True]) / statistics.median(seconds[False]) - 1
    return [Row("loss of the other hosts where one of 200 has a delay of 30 s", f"{max(loss, 0):.1%}", "< 5 %")]


@contextlib.contextmanager
def _fresh(site: Site, hosts: int) -> Iterator[tuple[SitesProcess, Crawl]]:
    with (
        tempfile.TemporaryDirectory() as folder,
        SitesProcess(site, hosts) as sites,
        BrokerProcess("--log-level", "error", anew=True) as broker,
        Crawl(broker.url, Path(folder), anew=True) as crawl,
    ):
        crawl.start_all()
        yield sites, crawl


def recrawl(share: float) -> list[Row]:
    """Crawl unchanging pages twice."""
    count = int(20_000 * share)
    with _fresh(Graph(count, links=20, size=8000, hosts=20, validators=True), 20) as (sites, crawl):
        crawl.add(sites.url("/p/0"), recrawl=max(60, count // 100))
        _wait(lambda: sites.count >= count + 20, _FIRST_WITHIN)
        first = {(entry.host, entry.target): entry for entry in sites.log.pages() if entry.status == 200}
        sites.clear()
        _wait(lambda: sites.count >= len(first) <= len(_of(sites, first)), _AGAIN_WITHIN)
        again = _of(sites, first)
    unchanged = sum(entry.status == 304 for entry in again.values()) / len(again)
    size = sum(entry.size for entry in again.values()) / sum(first[page].size for page in again)
    return [
        Row(f"recrawl of {len(again):,} unchanged pages, answered 304", f"{unchanged:.1%}", ">= 95 %"),
        Row("… share of the bytes", f"{size:.1%}", "<= 5 %"),
    ]


def _of(sites: SitesProcess, pages: Container[tuple[str, str]]) -> dict[tuple[str, str], Entry]:
    """Return the first request for each of these pages."""
    found: dict[tuple[str, str], Entry] = {}
    for entry in sites.log.pages():
        if (entry.host, entry.target) in pages:
            found.setdefault((entry.host, entry.target), entry)
    return found


def _wait(done: Callable[[], bool], within: float) -> None:
    """Wait until `done` returns true, or for `within` seconds."""
    end = time.monotonic() + within
    while not done() and time.monotonic() < end:
        time.sleep(0.5)
