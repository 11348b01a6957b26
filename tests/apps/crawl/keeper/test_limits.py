"""The limit of a crawl's pages holds whatever dies, fails or comes late."""

import itertools
import random

import pytest
from sqlalchemy import Connection

from rabbitry.apps.crawl.keeper.database import Database
from rabbitry.apps.crawl.keeper.keeper import Keeper
from rabbitry.apps.crawl.keeper.state import DONE, SENT, load
from rabbitry.apps.crawl.keeper.work import LOST
from rabbitry.apps.crawl.messages import Address
from tests.apps.crawl.keeper.simulation import Answered, World, delay, site_of, web, words


def pages_of(world: World) -> int:
    """Count the requests except those for robots.txt."""
    return sum(number for url, number in world.requests().items() if not url.endswith("/robots.txt"))


def test_addresses_waiting_for_a_full_crawl_are_refused_in_parts(
    simple: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rabbitry.apps.crawl.keeper.state.SWEPT", 20)
    monkeypatch.setattr("rabbitry.apps.crawl.keeper.dispatch.SWEPT", 20)
    world = World(simple, site_of({}))
    world.send = lambda batch: None  # type: ignore[method-assign] # there is no broker
    world.add(*(f"http://a{number}.test/" for number in range(45)))
    world.add(*(f"http://b{number}.test/" for number in range(45)), limit=1)
    world.add(*(f"http://c{number}.test/" for number in range(45)), limit=1)

    def fill(connection: Connection) -> None:
        connection.exec_driver_sql("UPDATE crawl_crawls SET pages = 1")

    simple.write_now(fill)
    world.keeper = Keeper("another", world.index)
    refused = [0]
    while refused[-1] < 90 and len(refused) < 20:
        world.tell([])
        refused.append(world.counts().get("outcome:limit", 0))
    assert refused[-1] == 90, "all that waits for the two, and nothing of the first one"
    assert max(after - before for before, after in itertools.pairwise(refused)) <= 20
    for _ in range(20):
        world.tell([])
    assert world.counts()["outcome:limit"] == 90


def test_a_limit_is_exact(simple: Database) -> None:
    world = World(simple, web(5, 50))
    world.add("http://h0.test/", limit=37)
    world.run()
    assert len(world.index.stored) == 37
    assert pages_of(world) == 37
    assert world.counts()["state:done"] > 37
    assert world.counts()["outcome:limit"] > 0


@pytest.mark.parametrize("takes_over", [False, True], ids=["one keeper", "another keeper takes over"])
def test_a_limit_holds_if_crawlers_die_and_their_pages_come_late(simple: Database, *, takes_over: bool) -> None:
    world = World(simple, web(5, 50))
    delay(world, pages=10, reports=0)
    world.lag = lambda url: 8.0
    chance = random.Random(5)
    world.dies = lambda: chance.random() < 0.5
    world.add("http://h0.test/", limit=37)
    for _ in range(20):
        world.run(10)
        if takes_over:
            world.keeper.forget()
    world.run()
    assert len(world.index.pages) == 37
    assert len([url for url in world.requests() if not url.endswith("/robots.txt")]) == 37


def counted(world: World) -> int:
    """Return the page count of the first crawl, as a keeper that takes over reads it."""
    return world.database.write_now(lambda connection: load(connection, 9).crawls[1].pages)


@pytest.mark.parametrize("seed", range(3))
def test_places_of_limits_are_counted_as_addresses_have_them(simple: Database, seed: int) -> None:
    world = World(simple, web(3, 15))
    delay(world, pages=3, reports=1)
    chance = random.Random(seed)
    world.lag = lambda url: 5.0
    world.dies = lambda: chance.random() < 0.3
    for number in range(3):
        world.add(f"http://h{number}.test/", limit=chance.choice([3, 10, 30]), recrawl=chance.choice([None, 300.0]))

    def places(connection: Connection) -> None:
        counted = "SELECT count(*) FROM crawl_addresses WHERE counted = ?"
        held = (
            "SELECT count(*) FROM crawl_addresses WHERE crawl = ? AND counted <> crawl"
            " AND (state = ? OR (status = ? AND state <> ?))"
        )
        crawls = connection.exec_driver_sql("SELECT id, page_limit, pages, sent FROM crawl_crawls").all()
        for identity, limit, pages, sent in crawls:
            assert connection.exec_driver_sql(counted, (identity,)).scalar_one() <= pages <= limit
            assert connection.exec_driver_sql(held, (identity, SENT, LOST, DONE)).scalar_one() == sent

    for _ in range(15):
        world.run(chance.choice([1, 10, 60]))
        simple.read_now(places)
        if chance.random() < 0.3:
            world.keeper.forget()


def test_pages_of_a_crawl_that_has_all_its_pages_are_fetched_again(simple: Database) -> None:
    world = World(simple, web(2, 30))
    world.add("http://h0.test/", limit=10, recrawl=1000.0)
    world.run(900)
    once = {url for url in world.requests() if not url.endswith("/robots.txt")}
    assert len(once) == 10
    world.run(3000)
    again = {url: number for url, number in world.requests().items() if not url.endswith("/robots.txt")}
    assert again.keys() == once
    assert min(again.values()) >= 2
    assert counted(world) == 10
    assert world.counts()["outcome:document"] == 10


def test_a_page_that_fails_in_between_counts_once_for_the_limit(simple: Database) -> None:
    fails = False

    def site(url: str) -> Answered:
        if fails and url.endswith("/1"):
            return Answered(outcome="server-error")
        return pages(url)

    pages = site_of(
        {"http://a.test/": Answered("start", [f"http://a.test/{number}" for number in range(9)])}
        | {f"http://a.test/{number}": Answered(words(number)) for number in range(9)}
    )
    world = World(simple, site)
    world.add("http://a.test/", limit=5, recrawl=1000.0)
    world.run(900)
    assert counted(world) == 5
    fails = True
    world.run(150)
    fails = False
    world.run(5000)
    assert counted(world) == 5
    assert len({url for url in world.requests() if not url.endswith("/robots.txt")}) == 5


def test_a_changed_page_of_a_crawl_that_has_all_its_pages_is_fetched_again_early(simple: Database) -> None:
    changed: list[tuple[str, float]] = []

    def site(url: str) -> Answered:
        if url == "http://a.test/":
            return Answered(words("start"), ["http://a.test/1", "http://a.test/2"], modifications=changed)
        return Answered("", outcome="client-error") if url.endswith("/robots.txt") else Answered(words(url))

    world = World(simple, site)
    world.add("http://a.test/", limit=2, recrawl=1000.0)
    world.run(990)
    assert world.requests()["http://a.test/1"] == 1
    changed.append(("http://a.test/1", world.now))
    world.tell([world.process(Address("http://a.test/"), site("http://a.test/"), world.now)])
    world.run(5)
    assert world.requests()["http://a.test/1"] == 2


def test_a_limit_holds_for_pages_that_an_earlier_crawl_fetched(simple: Database) -> None:
    world = World(simple, web(1, 30))
    world.add("http://h0.test/", depth=1)
    world.run()
    before = pages_of(world)
    world.add("http://h0.test/", limit=5)
    world.run()
    assert pages_of(world) - before == 5


@pytest.mark.parametrize("limit", [1, 30, 61])
def test_a_limit_holds_if_many_hosts_are_due_at_once(simple: Database, limit: int) -> None:
    world = World(simple, web(60, 10))
    world.add(*(f"http://h{number}.test/" for number in range(60)), limit=limit)
    world.run()
    assert pages_of(world) == limit


def test_a_limit_holds_among_pages_that_may_be_traps(simple: Database) -> None:
    links = [f"http://a.test/day/{number}" for number in range(200)]
    world = World(simple, site_of({"http://a.test/": Answered("start", links)}, Answered("the same words " * 30)))
    world.add("http://a.test/", limit=50)
    world.run()
    assert pages_of(world) <= 50
