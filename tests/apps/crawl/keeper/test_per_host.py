"""Several batches of a host at once (`--per-host`)."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from rabbitry.apps.crawl.keeper.database import Database
from rabbitry.apps.crawl.keeper.keeper import Keeper
from rabbitry.apps.crawl.keeper.reading import hosts, status, why
from tests.apps.crawl.keeper.simulation import MISSING, Answered, World, words

A = "http://a.test"
PAGES = 60


def crawled(database: Database, robots: Answered = MISSING, *, dies: Callable[[], bool] = lambda: False) -> World:
    """Crawl a site with a delay of a second, three batches at once."""
    links = [f"{A}/{number}" for number in range(PAGES)]

    def site(url: str) -> Answered:
        return robots if url.endswith("robots.txt") else Answered(words(url), links)

    world = World(database, site, dies=dies)
    world.keeper = Keeper("one", world.index, per_host=3)
    world.add(A, delay=1.0)
    world.run()
    return world


@pytest.fixture
def simple(tmp_path: Path) -> Database:
    """The URL of a database on SQLite."""
    return Database(f"sqlite:///{tmp_path / 'crawl.sqlite3'}")


def test_the_given_number_of_batches_is_out_and_each_page_fetched_once(simple: Database) -> None:
    with simple as database:
        world = crawled(database)
        times = sorted(at for at, _ in world.log)
        assert max(sum(at <= one < at + 0.99 for one in times) for at in times) == 3
        assert set(world.requests().values()) == {1}
        assert len(world.index.stored) == PAGES + 1
        (host,) = database.read_now(lambda connection: hosts(connection, 10)).hosts
        assert (host.queued, host.sent, host.done, host.is_out) == (0, 0, PAGES + 1, False)
        assert database.read_now(lambda connection: status(connection, world.now)).addresses["done"] == PAGES + 1
        told = database.read_now(lambda connection: why(connection, f"{A}/7", world.now))
        assert [one.outcome for one in told.decisions] == ["queued", "sent", "page", "document"]


def test_robots_txt_is_fetched_once_before_all_else(simple: Database) -> None:
    with simple as database:
        world = crawled(database)
        assert [url for _, url in world.log].index(f"{A}/robots.txt") == 0
        assert world.requests()[f"{A}/robots.txt"] == 1


def test_a_crawl_delay_holds_for_all_crawlers_together(simple: Database) -> None:
    with simple as database:
        world = crawled(database, Answered(body="User-agent: *\nCrawl-delay: 5\nDisallow: /x"))
        assert world.gaps()[A] >= 5.0 - 1e-6
        assert len(world.index.stored) == PAGES + 1


def test_dying_crawlers_lose_no_page(simple: Database) -> None:
    chance = random.Random(3)
    with simple as database:
        world = crawled(database, dies=lambda: chance.random() < 0.3)
        assert len(world.index.stored) == PAGES + 1
        assert database.read_now(lambda connection: hosts(connection, 10)).hosts[0].is_out is False
