"""Crawls under which something is killed or paused, or that meet traps, short or long; each checks what it saw."""

from __future__ import annotations

import asyncio
import random
import re
import signal
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from rabbitry.amqp.client import parse_url
from tests.support.crawling import Crawl, Role
from tests.support.pages import Graph, Trapped, page, words
from tests.support.proxy import FaultProxy
from tests.support.sites import NOT_FOUND, Answer, Log, Request, Sites, SitesProcess
from tests.support.waiting import eventually, eventually_blocking

_ROLES: Final[tuple[Role, ...]] = ("crawler", "processor", "keeper")


def each_once(crawl: Crawl, wanted: Iterable[str]) -> None:
    """See that the index has these addresses, each once, and no others."""
    found, expected = Counter(entry.url for entry in crawl.export()), set(wanted)
    missing, more = expected - found.keys(), found.keys() - expected
    assert not missing, f"{len(missing)} pages were lost, such as {crawl.why(min(missing))}"
    assert not more, f"pages that do not belong here: {sorted(more)[:5]}"
    assert max(found.values()) == 1, f"twice in the index: {found.most_common(5)}"


def kills(broker: str, folder: Path, *, pages: int, kills: int, hosts: int = 20, seed: int = 1) -> None:
    """Kill keepers, crawlers and processors at random while pages are crawled: none is lost, each once in the index.

    At most 2 % of the pages are fetched twice; in a short crawl, two of each host for each kill: one that was under
    way, and one that the broker had not confirmed.
    """
    chance = random.Random(seed)
    graph = Graph(pages, links=8, size=6000, hosts=hosts)
    with SitesProcess(graph, hosts) as sites, Crawl(broker, folder) as crawl:
        crawl.start_all(keepers=2, crawlers=3, processors=2)
        crawl.add(sites.url("/p/0"))
        for number in range(kills):
            wanted = pages * (number + 1) // (kills + 2)
            eventually_blocking(lambda wanted=wanted: sites.count >= wanted, f"{wanted} requests", within=120)  # type: ignore[misc] # bound now
            crawl.check()
            role = chance.choice(_ROLES)
            crawl.kill(chance.choice([one for one, its in crawl.running.items() if its == role]))
            crawl.start(role)
        crawl.settled(documents=pages, within=600)
        each_once(crawl, (sites.url(f"/p/{n}", n % hosts) for n in range(pages)))
        fetched = Counter((entry.host, entry.target) for entry in sites.log.pages())
        twice = sum(fetched.values()) - len(fetched)
        most = pages * 0.02 if pages > 1_000 else 2 * hosts * kills
        assert twice <= most, f"{twice} of {pages} pages were fetched again"


def no_gap_below(log: Log, delays: dict[str, float], otherwise: float) -> None:
    """See that no host was asked sooner than its delay after its last answer."""
    early = {host: min(gaps) for host, gaps in log.gaps().items() if gaps and min(gaps) < delays.get(host, otherwise)}
    assert not early, f"{len(early)} hosts were asked too early, such as {sorted(early.items())[:5]}"


def manners(
    broker: str, folder: Path, *, hosts: int, each: int, crawlers: int, kills: int, delay: float, slower: float
) -> None:
    """Crawl many hosts with many crawlers, kill some and a keeper: the server's log shows no gap below the delay.

    each: pages of a host. slower: the Crawl-delay that every fourth host asks for.
    """

    def site(request: Request) -> Answer:
        number = hosts_numbers[request.host]
        if request.target == "/robots.txt":
            rules = f"User-agent: *\nCrawl-delay: {slower}\n" if number % 4 == 0 else ""
            return Answer(rules.encode(), kind="text/plain")
        if request.target != "/" and request.target not in names:
            return NOT_FOUND
        return Answer(page(request.target, names, words(f"{number} {request.target}")).encode())

    names = [f"/{n}" for n in range(each - 1)]
    chance = random.Random(hosts)
    with Sites(site, hosts) as sites, Crawl(broker, folder) as crawl:
        urls = [sites.url("/", number) for number in range(hosts)]
        hosts_numbers = {url.split("/")[2].partition(":")[0]: number for number, url in enumerate(urls)}
        crawl.start_all(keepers=2, crawlers=crawlers)
        crawl.add(*urls, delay=delay)
        for number in range(kills):
            wanted = hosts * (each + 1) * (number + 1) // (kills + 2)
            eventually_blocking(lambda wanted=wanted: len(sites.log) >= wanted, f"{wanted} requests", within=300)  # type: ignore[misc] # bound now
            role: Role = "keeper" if number % 4 == 3 else "crawler"
            crawl.kill(chance.choice([one for one, its in crawl.running.items() if its == role]))
            crawl.start(role)
        crawl.settled(documents=hosts * each, within=600)
        slow = {host: slower for host, number in hosts_numbers.items() if number % 4 == 0}
        no_gap_below(sites.log, slow, delay)
        each_once(crawl, [sites.url(target, n) for n in range(hosts) for target in ("/", *names)])


def paused(broker: str, folder: Path, *, seconds: float, delay: float = 0.5, pages: int = 12) -> None:
    """Pause a crawler in the middle of a host (SIGSTOP), let another one go on, and wake the first.

    It must not go on with a host that another crawler may have by now. seconds: how long it stands still.
    """
    with Sites(Graph(pages, links=3)) as sites, Crawl(broker, folder) as crawl:
        crawl.start("keeper")
        crawl.start("processor")
        first = crawl.start("crawler")
        crawl.add(sites.url("/p/0"), delay=delay)
        eventually_blocking(lambda: len(sites.log) >= 4, "some pages are fetched", within=30)
        first.process.send_signal(signal.SIGSTOP)
        crawl.start("crawler")
        began, awake = time.monotonic(), 0

        def time_is_up() -> bool:
            return time.monotonic() - began > seconds

        try:
            eventually_blocking(time_is_up, "the pause", within=seconds + 5)
            awake = len(sites.log)
        finally:
            first.process.send_signal(signal.SIGCONT)
        crawl.settled(documents=pages, within=180)
        no_gap_below(sites.log, {}, delay)
        each_once(crawl, (sites.url(f"/p/{n}") for n in range(pages)))
        fetched = Counter(sites.log.pages().targets())
        assert sum(fetched.values()) - len(fetched) <= 1, f"fetched again after the pause at request {awake}: {fetched}"


async def cuts(broker: str, folder: Path, *, cuts: int, delay: float = 0.3, pages: int = 30) -> None:
    """Cut the connections of all roles to the broker: no page is lost, and no host is asked by two crawlers."""
    async with FaultProxy(parse_url(broker).hosts[0][1]) as proxy:
        with Sites(Graph(pages, links=3, hosts=3), 3) as sites, Crawl(_through(broker, proxy), folder) as crawl:
            crawl.start_all(crawlers=2)
            await asyncio.to_thread(crawl.add, sites.url("/p/0"), delay=delay)
            for number in range(cuts):
                wanted = 3 + pages * (number + 1) // (cuts + 2)
                await eventually(lambda wanted=wanted: len(sites.log) >= wanted, f"{wanted} requests", within=120)  # type: ignore[misc] # bound now
                await proxy.cut()
            await asyncio.to_thread(crawl.settled, documents=pages, within=180)
            no_gap_below(sites.log, {}, delay)
            await asyncio.to_thread(each_once, crawl, [sites.url(f"/p/{n}", n % 3) for n in range(pages)])
            fetched = Counter(sites.log.pages().targets())
            assert sum(fetched.values()) - len(fetched) <= 2 * 3 * cuts, f"fetched again: {fetched.most_common(5)}"


def _through(broker: str, proxy: FaultProxy) -> str:
    return re.sub(r":\d+/", f":{proxy.port}/", broker)


def traps(broker: str, folder: Path, *, real: int) -> None:
    """Crawl a host with all traps: nearly all of its real pages, and few requests spent in the traps."""
    with SitesProcess(Trapped(real)) as sites, Crawl(broker, folder) as crawl:
        crawl.start_all()
        crawl.add(sites.url("/p/0"))
        status = crawl.settled(documents=int(0.9 * real), within=600)
        targets = sites.log.pages().targets()
        fetched = {target for target in targets if target.startswith("/p/")}
        spent = Counter(target.split("/")[1] for target in targets if not target.startswith("/p/"))
        assert len(fetched) >= 0.95 * real, f"{len(fetched)} of {real} real pages; {spent}; {status}"
        assert spent.total() <= 0.1 * len(targets), f"{spent.total()} of {len(targets)} requests: {spent}; {status}"
