"""Late and repeated messages: pages after their documents, reports, and deliveries of a killed keeper."""

import pytest

from rabbitry.apps.crawl.keeper.database import Database
from rabbitry.apps.crawl.messages import Batch, Outcome, Report
from tests.apps.crawl.keeper.simulation import World, delay, web


@pytest.mark.parametrize("reports", [0.0, 1.0])
def test_a_page_that_comes_long_after_its_document_is_not_fetched_again(simple: Database, reports: float) -> None:
    world = World(simple, web(2, 10))
    delay(world, pages=60, reports=reports)
    world.add("http://h0.test/")
    world.run()
    assert set(world.requests().values()) == {1}
    assert len(world.index.stored) == 21
    assert set(world.index.pages.values()) == {1}
    assert len(world.index.pages) == 21
    assert world.counts()["state:done"] == 21
    assert world.counts()["outcome:document"] == 21


def test_pages_that_come_long_after_their_documents_count_for_the_limit(simple: Database) -> None:
    world = World(simple, web(2, 15))
    delay(world, pages=60, reports=1)
    world.add("http://h0.test/", limit=20)
    world.run()
    assert sum(not url.endswith("/robots.txt") for url in world.requests()) == 20
    assert len(world.index.pages) == 20


def test_a_page_that_comes_long_after_its_document_is_fetched_again_when_its_time_comes(simple: Database) -> None:
    world = World(simple, web(1, 5))
    delay(world, pages=60, reports=0)
    world.add("http://h0.test/", recrawl=10_000.0)
    world.run(9_000)
    assert set(world.requests().values()) == {1}
    world.run(15_000)
    pages = {url: times for url, times in world.requests().items() if not url.endswith("/robots.txt")}
    assert set(pages.values()) == {2}


def test_nothing_is_fetched_again_while_messages_of_a_killed_keeper_come_again(simple: Database) -> None:
    world = World(simple, web(1, 3))
    kept: list[Batch] = []
    world.send = kept.append  # type: ignore[method-assign, assignment]
    world.add("http://h0.test/")
    [robots] = kept
    [asked] = robots.addresses
    world.tell([Outcome(robots.id, asked.url, "client-error", world.now, "c", status=404)])
    world.tell([Report(robots.id, robots.origin, "c", world.now, 0.0)])
    batch = kept[-1]
    world.tell([Report(batch.id, batch.origin, "c", world.now, 0.0, ["http://h0.test/"], "interrupted")])
    for _ in range(10):
        world.now += 10
        simple.write_now(lambda connection: world.keeper.apply(connection, [], world.now, comes_again=True))
        world.tell([])
    assert len(kept) == 2
    for _ in range(16):
        world.now += 1
        world.tell([])
    assert len(kept) == 3


def test_a_paused_keeper_awaits_messages_that_could_not_arrive(simple: Database) -> None:
    world = World(simple, web(1, 3))
    kept: list[Batch] = []
    world.send = kept.append  # type: ignore[method-assign, assignment]
    world.add("http://h0.test/")
    [robots] = kept
    [asked] = robots.addresses
    world.tell([Outcome(robots.id, asked.url, "client-error", world.now, "c", status=404)])
    world.tell([Report(robots.id, robots.origin, "c", world.now, 0.0)])
    batch = kept[-1]
    world.tell([Report(batch.id, batch.origin, "c", world.now, 0.0, ["http://h0.test/"], "interrupted")])
    simple.write_now(lambda connection: world.keeper.apply(connection, [], world.now, comes_again=True))
    world.now += 100
    for _ in range(10):
        world.now += 1
        world.tell([])
    assert len(kept) == 2
    for _ in range(10):
        world.now += 1
        world.tell([])
    assert len(kept) == 3


def test_a_late_report_releases_nothing_but_its_pages_count(simple: Database) -> None:
    world = World(simple, web(1, 3))
    kept: list[Batch] = []
    world.send = kept.append  # type: ignore[method-assign, assignment]
    world.add("http://h0.test/")
    [robots] = kept
    world.now += 1000
    world.tell([])
    assert len(kept) == 2
    world.tell([Report(robots.id, robots.origin, "c", world.now, 0.0)])
    assert len(kept) == 2  # the second batch holds the host's token
    [address] = kept[1].addresses
    assert address.purpose == "robots"


def test_a_crawler_whose_clock_is_ahead_is_logged_and_does_not_spin(
    simple: Database, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(simple, web(1, 3))
    kept: list[Batch] = []
    world.send = kept.append  # type: ignore[method-assign, assignment]
    world.add("http://h0.test/", delay=0)
    [robots] = kept
    left = [address.url for address in robots.addresses]
    world.tell([Report(robots.id, robots.origin, "c0ffee", world.now + 100, 0.0, left, "late")])
    world.now += 2
    world.tell([])
    assert len(kept) == 1
    world.now += 4
    world.tell([])
    assert len(kept) == 2
    assert "clock of crawler c0ffee is 100 s ahead" in caplog.text
