"""The long forms of `tests/apps/crawl/test_whole.py`: 10,000 pages, 50 kills, 200 hosts, a pause past the deadline."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import crawl_scenes, postgresql, programs
from tests.support.crawling import Crawl
from tests.support.embedded import BrokerProcess
from tests.support.pages import Graph, drop
from tests.support.postgresql import PostgreSQL
from tests.support.rabbitmq import RabbitMQ
from tests.support.sites import Answer, Request, Sites, SitesProcess, host
from tests.support.waiting import eventually_blocking


@pytest.fixture(params=["embedded", "rabbitmq"])
def own_broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BrokerProcess | RabbitMQ]:
    """A broker that keeps its data, for tests that kill and restart it."""
    if request.param == "rabbitmq":
        yield request.getfixturevalue("own_rabbitmq")
    else:
        with BrokerProcess("--data", str(tmp_path / "broker")) as process:
            yield process


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """URL of an empty database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'crawl.db'}"
    else:
        programs.require(postgresql.why_missing())
        with PostgreSQL() as server:
            yield server.create_database()


pytestmark = [pytest.mark.faults, pytest.mark.timeout(3600)]


def test_ten_thousand_pages_are_each_once_in_the_index(broker_url: str, tmp_path: Path) -> None:
    with SitesProcess(Graph(10_000, links=20, size=8000, hosts=50), 50) as sites, Crawl(broker_url, tmp_path) as crawl:
        crawl.start_all()
        crawl.add(sites.url("/p/0"))
        crawl.settled(documents=10_000, within=3000)
        wanted = (sites.url(f"/p/{n}", n % 50) for n in range(10_000))
        crawl_scenes.checked("ten thousand pages", crawl, sites, wanted, most_twice=0)
        assert len(sites.log) == 10_050


def test_fifty_kills_in_ten_thousand_pages_lose_none(broker_url: str, tmp_path: Path) -> None:
    crawl_scenes.kills(broker_url, tmp_path, pages=10_000, kills=50)


def test_roles_that_come_and_go_lose_no_page(broker_url: str, tmp_path: Path) -> None:
    crawl_scenes.comings_and_goings(broker_url, tmp_path, pages=5_000, changes=30)


def test_a_crawl_restarted_on_its_database_continues(broker_url: str, tmp_path: Path) -> None:
    crawl_scenes.killed_runs(broker_url, tmp_path, pages=3_000, kills=8)


def test_a_broker_that_is_killed_loses_no_page(own_broker: BrokerProcess | RabbitMQ, tmp_path: Path) -> None:
    crawl_scenes.killed_brokers(own_broker, tmp_path, pages=5_000, kills=10)


def test_a_paused_keeper_gives_no_host_to_two_crawlers(broker_url: str, database: str, tmp_path: Path) -> None:
    crawl_scenes.paused_keepers(broker_url, tmp_path, database, pages=1_000, pauses=6, delay=0.3)


def test_eight_crawlers_keep_the_delay_of_two_hundred_hosts(broker_url: str, tmp_path: Path) -> None:
    crawl_scenes.manners(broker_url, tmp_path, hosts=200, each=15, crawlers=8, kills=20, delay=1, slower=2)


def test_a_crawler_paused_past_its_deadline_requests_nothing_more(broker_url: str, tmp_path: Path) -> None:
    crawl_scenes.paused(broker_url, tmp_path, seconds=150, delay=1, pages=100)


def test_traps_take_a_tenth_of_the_requests_of_a_large_site(broker_url: str, tmp_path: Path) -> None:
    crawl_scenes.traps(broker_url, tmp_path, real=5000)


def test_twenty_thousand_dead_hosts_do_not_delay_another_crawl(broker_url: str, tmp_path: Path) -> None:
    dead, pages = 20_000, 500
    listed = tmp_path / "dead.txt"
    with (
        SitesProcess(Graph(pages, links=8, size=6000, hosts=5), 5) as sites,
        Crawl(broker_url, tmp_path) as crawl,
        socket.socket() as unheard,
    ):
        unheard.bind(("0.0.0.0", 0))  # the port is taken, but not listening
        port = unheard.getsockname()[1]
        listed.write_text("".join(f"http://127.77.{n // 250}.{n % 250 + 1}:{port}/\n" for n in range(dead)))
        crawl.start_all()
        crawl.add(file=str(listed))
        crawl.add(sites.url("/p/0"))
        eventually_blocking(lambda: crawl.status().documents == pages, "the other crawl", within=1800)
        assert crawl.status().outcomes.get("no-connection", 0) < dead, "it waited for all of them"
        eventually_blocking(
            lambda: crawl.status().outcomes.get("no-connection", 0) == dead, "all were tried", within=1800
        )
        crawl.check()
        crawl_scenes.each_once(crawl, {sites.url(f"/p/{n}", n % 5) for n in range(pages)})


def test_a_page_sent_byte_by_byte_is_too_slow(broker_url: str, tmp_path: Path) -> None:
    def site(request: Request) -> Answer:
        return Answer(status=404) if request.target == "/robots.txt" else drop()

    with Sites(site) as sites, Crawl(broker_url, tmp_path) as crawl:
        crawl.start_all()
        crawl.add(sites.url("/"))
        eventually_blocking(
            lambda: "too-slow" in crawl.outcomes(sites.url("/")),
            "the outcome", within=600,
        )  # fmt: skip
        assert sites.log.pages().of(host(0))
