"""Whole crawls of web sites on 127.0.0.0/8, each role a process; `tests/faults` has the long forms."""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
import trustme

from rabbitry.apps.crawl.answers import Status
from tests.support import crawl_scenes
from tests.support.brokers import ON_EMBEDDED, ON_RABBITMQ
from tests.support.commands import run
from tests.support.crawl_zoo import Zoo, zoo
from tests.support.crawling import Crawl, Role
from tests.support.pages import Graph
from tests.support.sites import Sites, host
from tests.support.waiting import eventually_blocking

pytestmark = pytest.mark.timeout(400)


_MOST_MEMORY: Final[dict[Role, int]] = {"crawler": 200, "processor": 300, "keeper": 200}
"""MiB of a process of each role."""


@dataclass
class Crawled:
    """The results of a crawl of all kinds of sites."""

    zoo: Zoo
    sites: Sites
    crawl: Crawl
    status: Status


@pytest.fixture(scope="module")
def crawled(shared_broker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crawled]:
    """A finished crawl of all kinds of sites."""
    animals = zoo()
    with contextlib.ExitStack() as stack:
        sites = stack.enter_context(Sites(animals.site(), len(animals.sites)))
        crawl = stack.enter_context(Crawl(shared_broker, tmp_path_factory.mktemp("zoo")))
        crawl.start_all()
        crawl.add(*(sites.url(target, number) for number, target in animals.starts))
        missing = animals.elsewhere | {
            sites.url(target, number): outcomes for (number, target), outcomes in animals.outcomes.items()
        }

        def all_there() -> bool:
            crawl.check()
            for url in [url for url, wanted in missing.items() if wanted & set(crawl.outcomes(url))]:
                del missing[url]
            asked = {entry.host for entry in sites.log}
            return not missing and asked >= {host(number) for number in animals.sites}

        try:
            eventually_blocking(all_there, "all outcomes", within=250)
        except AssertionError as error:
            told = {url: [(one.outcome, one.detail) for one in crawl.why(url).decisions] for url in missing}
            raise AssertionError(f"{error}; missing: {told}; {crawl.status()}") from error
        yield Crawled(animals, sites, crawl, crawl.status())


def test_each_address_has_the_outcome_that_it_should(crawled: Crawled) -> None:
    wrong = {}
    for (number, target), wanted in crawled.zoo.outcomes.items():
        url = crawled.sites.url(target, number)
        if not wanted & set(found := crawled.crawl.outcomes(url)):
            wrong[url] = (found, wanted)
    assert not wrong, f"{len(wrong)}: {wrong}"


def test_addresses_elsewhere_are_refused(crawled: Crawled) -> None:
    wrong = {}
    for url, wanted in crawled.zoo.elsewhere.items():
        if not wanted & set(found := crawled.crawl.outcomes(url)):
            wrong[url] = (found, wanted)
    assert not wrong, f"{len(wrong)}: {wrong}"


def test_forbidden_addresses_were_never_requested(crawled: Crawled) -> None:
    asked = {(entry.host, entry.target) for entry in crawled.sites.log}
    assert not {(host(number), target) for number, target in crawled.zoo.never} & asked


def test_robots_txt_is_fetched_first_and_once(crawled: Crawled) -> None:
    for number in crawled.zoo.sites:
        targets = crawled.sites.log.of(host(number)).targets()
        assert targets[0] == "/robots.txt", (number, targets[:5])
        if all(entry.status == 200 for entry in crawled.sites.log.of(host(number))):
            assert targets.count("/robots.txt") == 1


def test_pages_in_circles_are_fetched_once(crawled: Crawled) -> None:
    targets = crawled.sites.log.of(host(0)).targets()
    assert sorted(targets) == sorted(["/robots.txt", "/", *(f"/{n}" for n in range(5))])


def test_retry_after_is_kept(crawled: Crawled) -> None:
    busy = [number for (number, _), outcomes in crawled.zoo.outcomes.items() if outcomes == {"slow-down"}]
    [number] = busy
    assert crawled.sites.log.of(host(number)).targets() == ["/robots.txt", "/"]
    for entry in crawled.sites.log:
        if entry.status in (429, 503) and entry.host != host(number):
            seconds = 2 if entry.status == 429 else 3
            later = [one for one in crawled.sites.log.of(entry.host) if one.began > entry.ended]
            assert all(one.began - entry.ended >= seconds for one in later)


def test_the_user_agent_names_us(crawled: Crawled) -> None:
    agents = {entry.agent for entry in crawled.sites.log}
    assert len(agents) == 1
    assert "rabbitry" in agents.pop().lower()


def test_bad_input_is_counted(crawled: Crawled) -> None:
    counted = crawled.status.outcomes
    for outcome in (
        *("document", "sitemap", "redirect", "disallowed", "private", "not-text", "client-error", "server-error"),
        *("bad-answer", "header-too-large", "bad-scheme", "no-such-host", "no-connection", "too-long", "too-large"),
        *("bad-address", "bomb", "broken-encoding", "too-slow", "slow-down", "unreadable"),
    ):
        assert counted.get(outcome, 0) > 0, (outcome, counted)


def test_status_has_what_compression_saved(crawled: Crawled) -> None:
    assert 0 < crawled.status.carried < crawled.status.size
    shown = run("crawl", "status", "--database", crawled.crawl.database).stdout
    assert re.search(r"\(\d+% saved by compression\)", shown), shown


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells a process's peak memory")
def test_bad_input_takes_bounded_memory(crawled: Crawled) -> None:
    # A sitemap of 50 MB, bombs of 100 and 200 MB, and bodies without end were among it.
    peaks = {role: crawled.crawl.peak_memory(role) >> 20 for role in _MOST_MEMORY}
    assert all(0 < peak < _MOST_MEMORY[role] for role, peak in peaks.items()), peaks


def test_every_role_still_runs(crawled: Crawled) -> None:
    crawled.crawl.check()


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("ftp://127.0.0.1/x", "'ftp' can't be crawled"),
        ("http://", "is not an address"),
        ("http://[::1", "is not an address"),
        ("javascript:alert(1)", "'javascript' can't be crawled"),
        ("no address at all", "is not an address"),
        ("http://127.0.0.1/" + "x" * 100_000, "an address must have at most"),
    ],
)
def test_a_bad_address_is_refused_at_once(url: str, why: str) -> None:
    done = run("crawl", "add", url, "--broker", "amqp://127.0.0.1:1/")
    assert done.returncode == 2
    assert why in done.stderr


def test_a_certificate_that_does_not_verify_is_an_outcome(crawled: Crawled) -> None:
    with Sites(Graph(3), authority=trustme.CA()) as sites:
        crawled.crawl.add(sites.url("/p/0"))
        eventually_blocking(
            lambda: "bad-certificate" in crawled.crawl.outcomes(sites.url("/p/0")),
            "the outcome",
            within=90,
        )
        assert crawled.crawl.status().outcomes["bad-certificate"] == 1
        assert not sites.log


def test_slow_hosts_delay_no_other(crawled: Crawled) -> None:
    # Their requests end with the crawler's time limit. By then each other host had a request.
    for number in crawled.zoo.slow:
        ended = min(entry.ended for entry in crawled.sites.log.of(host(number)) if entry.target == "/")
        asked = {entry.host for entry in crawled.sites.log if entry.began < ended}
        assert asked == {host(other) for other in crawled.zoo.sites}


@ON_EMBEDDED
def test_killed_roles_lose_no_page(broker_url: str, tmp_path: Path) -> None:
    crawl_scenes.kills(broker_url, tmp_path, pages=150, kills=3, hosts=5)


@ON_RABBITMQ
def test_no_host_is_requested_before_its_delay_is_over(broker_url: str, tmp_path: Path) -> None:
    crawl_scenes.manners(broker_url, tmp_path, hosts=12, each=3, crawlers=3, kills=4, delay=0.5, slower=1)


@ON_EMBEDDED
def test_a_paused_crawler_requests_nothing_more(broker_url: str, tmp_path: Path) -> None:
    crawl_scenes.paused(broker_url, tmp_path, seconds=4)


@ON_RABBITMQ
async def test_lost_connections_lose_no_page_and_no_manners(broker_url: str, tmp_path: Path) -> None:
    await crawl_scenes.cuts(broker_url, tmp_path, cuts=2)


@pytest.mark.faults  # tests/apps/crawl/keeper/test_traps.py has the short form
def test_traps_take_few_requests(broker_url: str, tmp_path: Path) -> None:
    crawl_scenes.traps(broker_url, tmp_path, real=300)


_REBINDING = """
import itertools, socket
lookups, ask = itertools.count(), socket.getaddrinfo
def getaddrinfo(host, port, *rest, **more):
    if host in (b"rebinding.example", "rebinding.example"):
        host = "127.1.0.1" if next(lookups) == 0 else "127.2.0.1"
    return ask(host, port, *rest, **more)
socket.getaddrinfo = getaddrinfo
"""


@ON_RABBITMQ
def test_a_name_that_later_resolves_differently_has_no_effect(broker_url: str, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(_REBINDING)
    with (
        Sites(Graph(10, links=3), addresses=["127.2.0.1"]) as sites,
        Crawl(broker_url, tmp_path, more={"PYTHONPATH": str(tmp_path)}) as crawl,
    ):
        crawl.start("keeper")
        crawl.start("processor")
        crawl.start("crawler", private="127.1.0.0/16", anew=True)
        url = f"http://rebinding.example:{sites.port}/p/0"
        crawl.add(url)
        eventually_blocking(lambda: "private" in crawl.outcomes(url), "the outcome", within=120)
        assert {entry.address for entry in sites.log} == {"127.1.0.1"}
        assert sites.log.targets() == ["/robots.txt"]
