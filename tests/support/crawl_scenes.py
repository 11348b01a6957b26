"""Crawls during which something is killed or paused, or that meet traps, short or long; each checks its result."""

from __future__ import annotations

import asyncio
import itertools
import random
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from rabbitry.amqp.client import parse_url
from tests.support.commands import Service
from tests.support.crawling import Crawl, Role
from tests.support.embedded import BrokerProcess
from tests.support.pages import Graph, Trapped, page, words
from tests.support.proxy import FaultProxy
from tests.support.rabbitmq import RabbitMQ
from tests.support.sites import NOT_FOUND, Answer, Entry, Log, Request, Sites, SitesProcess
from tests.support.waiting import eventually, eventually_blocking

_LONG: Final = 1800.0
"""Seconds for anything, on a busy machine; the tests' own limits end them sooner."""
_ROLES: Final[tuple[Role, ...]] = ("crawler", "processor", "keeper")
_UNCONFIRMED: Final = 10.0
"""Seconds for which a fetched page may be unconfirmed. A crawler fetches no more after 2 s; the machine may be busy."""
_MOST_AGAIN: Final = 0.02
"""The share of the pages that may be fetched twice."""
_MOST_LOST: Final = 0.15
"""The same if all hosts lose at once what is under way or unconfirmed: 427 of 5,000 were seen, at a load of 17."""


def checked(
    scene: str,
    crawl: Crawl,
    sites: Sites | SitesProcess,
    wanted: Iterable[str],
    *,
    most_twice: float,
    delay: float = 0.0,
    slower: Mapping[str, float] | None = None,
) -> None:
    """See that no page is lost or twice in the index, few were fetched twice, and each host was left its delay.

    Prints what was seen. most_twice: requests for pages that had been asked for before. delay: seconds between two
    requests to a host, at least; slower: where it is another one, by host.
    """
    pages, log = set(wanted), sites.log
    each_once(crawl, pages)
    fetched = Counter((entry.host, entry.target) for entry in log.pages())
    twice = fetched.total() - len(fetched)
    smallest = f", smallest gap {min(itertools.chain(*log.gaps().values())):.3f} s" if delay else ""
    print(f"{scene}: {len(pages)} pages, none lost, {twice} fetched twice{smallest}", file=sys.stderr)
    again = [f"http://{host}:{sites.port}{target}" for (host, target), times in fetched.items() if times > 1]
    assert twice <= most_twice, f"{twice} of {len(pages)} pages were fetched again, such as {crawl.why(again[0])}"
    if delay:
        no_gap_below(log, slower or {}, delay)


def each_once(crawl: Crawl, wanted: Iterable[str]) -> None:
    """See that the index has these addresses, each once, and no others."""
    found, expected = Counter(entry.url for entry in crawl.export()), set(wanted)
    missing, more = expected - found.keys(), found.keys() - expected
    assert not missing, f"{len(missing)} pages were lost, such as {crawl.why(min(missing))}"
    assert not more, f"pages that do not belong here: {sorted(more)[:5]}"
    assert max(found.values()) == 1, f"twice in the index: {found.most_common(5)}"


def kills(broker: str, folder: Path, *, pages: int, kills: int, hosts: int = 20, seed: int = 1) -> None:
    """Kill keepers, crawlers and processors at random while pages are crawled: of three, one of each role.

    A keeper killed between its commit and the publishing of batches leaves their hosts alone for two minutes: a short
    crawl then takes three.
    """
    chance = random.Random(seed)
    roles = itertools.chain.from_iterable(chance.sample(_ROLES, len(_ROLES)) for _ in range(kills))

    def kill_one(crawl: Crawl) -> None:
        role = next(roles)
        crawl.kill(chance.choice(crawl.of(role)))
        crawl.start(role)

    with Crawl(broker, folder) as crawl:
        crawl.start_all(keepers=2, crawlers=3, processors=2)
        _disturb("kills", crawl, Graph(pages, links=8, size=6000, hosts=hosts), [kill_one] * kills)


def comings_and_goings(broker: str, folder: Path, *, pages: int, changes: int, hosts: int = 20) -> None:
    """Start and stop (SIGTERM) crawlers, processors and keepers while pages are crawled, from none of a kind to four.

    Nobody is told of it.
    """
    chance = random.Random(changes)

    def change(crawl: Crawl) -> None:
        role = chance.choice(_ROLES)
        there = crawl.of(role)
        if there and (len(there) == 4 or chance.random() < 0.5):
            one = chance.choice(there)
            one.wait_for(rf"{role} \w+")  # before it has started, a signal ends it at once
            assert crawl.stop(one) == 0, one.output
        else:
            crawl.start(role)
        for role in _ROLES:  # the last of its kind is followed by another one, but leaves a gap
            if not crawl.of(role):
                crawl.start(role)

    with Crawl(broker, folder) as crawl:
        crawl.start_all()
        _disturb("comings and goings", crawl, Graph(pages, links=8, size=6000, hosts=hosts), [change] * changes)


def killed_runs(broker: str, folder: Path, *, pages: int, kills: int, hosts: int = 20) -> None:
    """Kill `crawl run`, all roles in one process, and start it again on the same database."""

    def kill(crawl: Crawl) -> None:
        [one] = crawl.of("run")
        crawl.kill(one)
        crawl.start("run")

    with Crawl(broker, folder) as crawl:
        crawl.start("run")
        graph = Graph(pages, links=8, size=6000, hosts=hosts)
        _disturb("crawl run killed", crawl, graph, [kill] * kills, hits_all=True)


def killed_brokers(broker: BrokerProcess | RabbitMQ, folder: Path, *, pages: int, kills: int, hosts: int = 20) -> None:
    """Kill the broker, which keeps its data, or shut it down, in turns, and start it again."""

    def kill(crawl: Crawl) -> None:
        broker.kill()
        broker.start()

    def restart(crawl: Crawl) -> None:
        broker.stop()
        broker.start()

    with Crawl(broker.url, folder) as crawl:
        crawl.start_all(keepers=2, crawlers=2, processors=2)
        graph = Graph(pages, links=8, size=6000, hosts=hosts)
        turns = [kill if number % 2 == 0 else restart for number in range(kills)]
        _disturb("broker killed", crawl, graph, turns, hits_all=True)


def paused_keepers(
    broker: str, folder: Path, database: str | None = None, *, pages: int, pauses: int, hosts: int = 5, delay: float
) -> None:
    """Pause the active keeper (SIGSTOP) until another one has taken over, and wake it while that one works.

    The delay of each host shows that none was in the hands of two crawlers.
    """

    def pause(crawl: Crawl) -> None:
        one = _stopped_keeper(crawl)
        try:
            eventually_blocking(lambda: crawl.active_keeper() is not one, "another keeper", within=_LONG)
            began = crawl.status().documents
            eventually_blocking(
                lambda: crawl.status().documents > began + hosts, "documents of the other", within=_LONG
            )
        finally:
            one.process.send_signal(signal.SIGCONT)

    with Crawl(f"{broker}?heartbeat=2", folder, database) as crawl:
        crawl.start_all(keepers=2, crawlers=2)
        graph = Graph(pages, links=8, hosts=hosts)
        _disturb("keepers paused", crawl, graph, [pause] * pauses, delay=delay)


def _stopped_keeper(crawl: Crawl) -> Service:
    """Stop the active keeper (SIGSTOP), but not while it writes to SQLite, which would lock out all others."""
    while True:
        one = eventually_blocking(crawl.active_keeper, "an active keeper", within=_LONG)
        assert one is not None
        one.process.send_signal(signal.SIGSTOP)
        if not crawl.is_locked():
            return one
        one.process.send_signal(signal.SIGCONT)


def _disturb(
    scene: str,
    crawl: Crawl,
    graph: Graph,
    happenings: Sequence[Callable[[Crawl], None]],
    *,
    delay: float = 0.0,
    hits_all: bool = False,
) -> None:
    """Crawl a graph, whose roles run already; things happen one after the other while it is on its way.

    No page is lost, each is once in the index, and no host is asked before its delay is over. At most 2 % of the pages
    are fetched twice; in a short crawl two of each host for each happening: one that was under way, and one that the
    broker had not confirmed. hits_all: each happening costs all hosts at once what is under way over four connections,
    and as much that waits to be published or confirmed for each of these: on a busy machine that is more than one.
    These may be more than 2 % of the pages, but only those fetched just before something happened.
    """
    happened: list[tuple[float, float]] = []
    with SitesProcess(graph, graph.hosts) as sites:
        crawl.add(sites.url("/p/0"), delay=delay)
        for number, happen in enumerate(happenings):
            wanted = graph.count * (number + 1) // (len(happenings) + 2)
            eventually_blocking(lambda wanted=wanted: sites.count >= wanted, f"{wanted} requests", within=_LONG)  # type: ignore[misc] # bound now
            crawl.check()
            began = time.monotonic()
            happen(crawl)
            happened.append((began, time.monotonic()))
        crawl.settled(documents=graph.count, within=_LONG)
        pages = graph.count
        each = 16 if hits_all else 2
        most = float(each * graph.hosts * len(happenings))
        if pages > 1_000:
            most = min(most, pages * _MOST_LOST) if hits_all else pages * _MOST_AGAIN
        checked(
            scene,
            crawl,
            sites,
            (sites.url(f"/p/{n}", n % graph.hosts) for n in range(pages)),
            most_twice=most,
            delay=delay,
        )
        if hits_all:
            others = not_lost(sites.log, happened)
            assert len(others) <= pages * _MOST_AGAIN, (
                f"{len(others)} were fetched again without a reason: {others[:5]}"
            )


def not_lost(log: Log, happened: Sequence[tuple[float, float]]) -> list[str]:
    """Return the pages that were requested again although nothing that happened can have lost their earlier answer.

    happened: when each thing began and ended, by time.monotonic(). It can have lost the answers to requests that were
    under way meanwhile, or answered at most _UNCONFIRMED seconds before.
    """
    latest: dict[tuple[str, str], Entry] = {}
    found: list[str] = []
    for entry in sorted(log.pages()):
        before = latest.get((entry.host, entry.target))
        latest[entry.host, entry.target] = entry
        if before is not None and not any(
            before.began <= end and before.ended >= start - _UNCONFIRMED for start, end in happened
        ):
            found.append(f"{entry.host}{entry.target}")
    return found


def no_gap_below(log: Log, delays: Mapping[str, float], otherwise: float) -> None:
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
            eventually_blocking(lambda wanted=wanted: len(sites.log) >= wanted, f"{wanted} requests", within=_LONG)  # type: ignore[misc] # bound now
            role: Role = "keeper" if number % 4 == 3 else "crawler"
            crawl.kill(chance.choice([one for one, its in crawl.running.items() if its == role]))
            crawl.start(role)
        crawl.settled(documents=hosts * each, within=_LONG)
        slow = {host: slower for host, number in hosts_numbers.items() if number % 4 == 0}
        wanted_pages = [sites.url(target, n) for n in range(hosts) for target in ("/", *names)]
        most = 2 * (kills + 1) * -(-hosts // crawlers)  # of each host that a crawler may have in hand
        checked("manners", crawl, sites, wanted_pages, most_twice=most, delay=delay, slower=slow)


def paused(broker: str, folder: Path, *, seconds: float, delay: float = 0.5, pages: int = 12) -> None:
    """Pause a crawler in the middle of a host (SIGSTOP), let another one go on, and wake the first.

    It must not go on with a host that another crawler may have by now. seconds: how long it stands still.
    """
    with Sites(Graph(pages, links=3)) as sites, Crawl(broker, folder) as crawl:
        crawl.start("keeper")
        crawl.start("processor")
        first = crawl.start("crawler")
        crawl.add(sites.url("/p/0"), delay=delay)
        eventually_blocking(lambda: len(sites.log) >= 4, "some pages are fetched", within=_LONG)
        first.process.send_signal(signal.SIGSTOP)
        crawl.start("crawler")
        began, asleep = time.monotonic(), len(sites.log)

        def time_is_up() -> bool:
            return time.monotonic() - began > seconds

        try:
            eventually_blocking(time_is_up, "the pause", within=seconds + 5)
        finally:
            first.process.send_signal(signal.SIGCONT)
        crawl.settled(documents=pages, within=_LONG)
        wanted = (sites.url(f"/p/{n}") for n in range(pages))
        checked(f"crawler paused at request {asleep}", crawl, sites, wanted, most_twice=1, delay=delay)


async def cuts(broker: str, folder: Path, *, cuts: int, delay: float = 0.3, pages: int = 30) -> None:
    """Cut the connections of all roles to the broker: no page is lost, and no host is asked by two crawlers."""
    async with FaultProxy(parse_url(broker).hosts[0][1]) as proxy:
        with Sites(Graph(pages, links=3, hosts=3), 3) as sites, Crawl(_through(broker, proxy), folder) as crawl:
            crawl.start_all(crawlers=2)
            await asyncio.to_thread(crawl.add, sites.url("/p/0"), delay=delay)
            for number in range(cuts):
                wanted = 3 + pages * (number + 1) // (cuts + 2)
                await eventually(lambda wanted=wanted: len(sites.log) >= wanted, f"{wanted} requests", within=_LONG)  # type: ignore[misc] # bound now
                await proxy.cut()
            await asyncio.to_thread(crawl.settled, documents=pages, within=_LONG)
            wanted_pages = [sites.url(f"/p/{n}", n % 3) for n in range(pages)]
            most = 2 * 3 * cuts
            await asyncio.to_thread(checked, "cuts", crawl, sites, wanted_pages, most_twice=most, delay=delay)


def _through(broker: str, proxy: FaultProxy) -> str:
    return re.sub(r":\d+/", f":{proxy.port}/", broker)


def traps(broker: str, folder: Path, *, real: int) -> None:
    """Crawl a host with all traps: nearly all of its real pages, and few requests spent in the traps."""
    with SitesProcess(Trapped(real)) as sites, Crawl(broker, folder) as crawl:
        crawl.start_all()
        crawl.add(sites.url("/p/0"))
        status = crawl.settled(documents=int(0.9 * real), within=_LONG)
        targets = sites.log.pages().targets()
        fetched = {target for target in targets if target.startswith("/p/")}
        spent = Counter(target.split("/")[1] for target in targets if not target.startswith("/p/"))
        assert len(fetched) >= 0.95 * real, f"{len(fetched)} of {real} real pages; {spent}; {status}"
        print(
            f"traps: {len(fetched)} of {real} real pages, {spent.total()} of {len(targets)} requests in traps",
            file=sys.stderr,
        )
        assert spent.total() <= 0.1 * len(targets), f"{spent.total()} of {len(targets)} requests: {spent}; {status}"
