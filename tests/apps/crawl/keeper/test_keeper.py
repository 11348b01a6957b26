"""The whole keeper on simulated sites and a simulated clock, without a broker or a network."""

import itertools
import random

import pytest

from rabbitry.apps.crawl.keeper.database import Database
from rabbitry.apps.crawl.keeper.inputs import Asked
from rabbitry.apps.crawl.keeper.keeper import Keeper
from rabbitry.apps.crawl.keeper.reading import hosts, status, why
from rabbitry.apps.crawl.messages import Batch, Document, Outcome, Pause, Report, Resume
from tests.apps.crawl.keeper.simulation import Answered, World, site_of, web


def test_each_page_of_a_web_is_fetched_and_indexed_once(database: Database) -> None:
    world = World(database, web(8, 30))
    world.add("http://h0.test/")
    world.run()
    assert len(world.index.stored) == 8 * 30 + 1
    assert set(world.index.documents.values()) == {1}
    assert set(world.requests().values()) == {1}
    assert world.most_out == 1
    assert world.counts()["state:done"] == 8 * 30 + 1
    assert world.counts()["outcome:document"] == 8 * 30 + 1
    assert not {name for name in world.counts() if name in ("state:queued", "state:sent")}


def test_a_host_is_asked_no_faster_than_its_delay(simple: Database) -> None:
    world = World(simple, web(5, 20))
    world.add("http://h0.test/", delay=1.0)
    world.run()
    assert len(world.index.stored) == 101
    assert min(world.gaps().values()) >= 1.0 - 1e-6


def test_a_slow_host_delays_no_other(simple: Database) -> None:
    inner = web(10, 10)

    def site(url: str) -> Answered:
        return Answered(body="User-agent: *\nCrawl-delay: 600\n") if url == "http://h1.test/robots.txt" else inner(url)

    world = World(simple, site)
    world.add(*(f"http://h{number}.test/" for number in range(10)), delay=1.0)
    world.run(100)
    slow = {url for url in world.requests() if url.startswith("http://h1.test")}
    assert len(slow) <= 2
    assert len(world.index.stored) == 9 * 11 + len(slow) - 1


def test_dying_crawlers_lose_no_page(simple: Database) -> None:
    chance = random.Random(5)
    world = World(simple, web(6, 40), dies=lambda: chance.random() < 0.3)
    world.add("http://h0.test/")
    world.run()
    assert len(world.index.stored) == 241
    assert set(world.requests().values()) == {1}
    assert world.most_out == 1


def test_a_host_of_which_batches_are_lost_goes_on_at_once(simple: Database) -> None:
    world = World(simple, web(1, 60))
    send, lost = world.send, itertools.count()

    def lossy(batch: Batch) -> None:
        if len(batch.addresses) > 1 and next(lost) < 4:
            left = [address.url for address in batch.addresses]
            world.later(world.now + 1, [Report(batch.id, batch.origin, "c", world.now + 1, 0.0, left, "interrupted")])
        else:
            send(batch)

    world.send = lossy  # type: ignore[method-assign] # the stand-in of this test
    world.add("http://h0.test/")
    world.run(200)
    assert next(lost) > 4
    assert len(world.index.stored) == 61


def test_messages_that_come_twice_change_nothing(simple: Database) -> None:
    world = World(simple, web(3, 20))
    once = world.apply

    def twice(inputs: list[object]) -> object:
        decided = once(inputs)  # type: ignore[arg-type] # checked by what it is passed to
        again = once(inputs)  # type: ignore[arg-type] # checked by what it is passed to
        decided.batches += again.batches
        return decided

    world.apply = twice  # type: ignore[assignment, method-assign]
    world.add("http://h0.test/")
    world.run()
    assert len(world.index.stored) == 61
    assert set(world.index.documents.values()) == {1}
    assert set(world.requests().values()) == {1}
    assert world.counts()["outcome:document"] == 61


def test_a_batch_that_was_never_published_is_withdrawn(simple: Database) -> None:
    world = World(simple, web(1, 5))
    sends = world.send
    lost = iter([True, False, True])
    world.send = lambda batch: None if next(lost, False) else sends(batch)  # type: ignore[method-assign] # the stand-in of this test
    world.add("http://h0.test/")
    for _ in range(20):
        world.run()
        world.now += 300  # past the deadline of the lost batch
        world.tell([])
    assert len(world.index.stored) == 6


def test_a_keeper_that_takes_over_continues_the_crawl(database: Database) -> None:
    world = World(database, web(6, 20))
    world.add("http://h0.test/")
    for number in range(200):
        world.run(most=number * 3)
        world.keeper = Keeper(f"keeper {number}", world.index)
        if not world.out and world.keeper.next_due() == float("inf"):
            break
    world.run()
    assert len(world.index.stored) == 121
    assert set(world.requests().values()) == {1}
    assert world.most_out == 1


def test_two_keepers_that_believe_to_be_active_do_no_harm(simple: Database) -> None:
    world = World(simple, web(6, 20))
    keepers = [Keeper("one", world.index), Keeper("two", world.index)]
    turn = random.Random(2)
    once = world.apply

    def either(inputs: list[object]) -> object:
        world.keeper = turn.choice(keepers)
        return once(inputs)  # type: ignore[arg-type] # checked by what it is passed to

    world.apply = either  # type: ignore[assignment, method-assign]
    world.add("http://h0.test/")
    world.run()
    assert len(world.index.stored) == 121
    assert set(world.requests().values()) == {1}
    assert world.most_out == 1


def test_a_transaction_that_fails_changes_nothing(simple: Database) -> None:
    world = World(simple, web(4, 20))
    once = world.apply
    fails = random.Random(4)

    def failing(inputs: list[object]) -> object:
        if fails.random() < 0.5:

            def work(connection: object) -> None:
                world.keeper.apply(connection, inputs, world.now)  # type: ignore[arg-type] # checked by what it is passed to
                raise ZeroDivisionError

            with pytest.raises(ZeroDivisionError):
                simple.write_now(work)
            world.keeper.forget()
            world.index.documents.clear()
        return once(inputs)  # type: ignore[arg-type] # checked by what it is passed to

    world.apply = failing  # type: ignore[assignment, method-assign]
    world.add("http://h0.test/")
    world.run()
    assert len(world.index.stored) == 81
    assert set(world.requests().values()) == {1}


def test_nothing_is_sent_while_the_crawl_is_paused(simple: Database) -> None:
    world = World(simple, web(2, 10))
    assert world.tell([Asked(Pause(), "p")]).answers["p"].said == ["paused"]
    world.add("http://h0.test/")
    world.run(1000)
    assert not world.log
    world.tell([Asked(Resume(), "r")])
    world.run()
    assert len(world.index.stored) == 21


def test_why_shows_each_decision_with_its_time_and_node(database: Database) -> None:
    pages = {"http://a.test/": Answered("start", ["http://a.test/x"]), "http://a.test/x": Answered("x")}
    world = World(database, site_of(pages))
    world.add("http://a.test/")
    world.run()
    found = database.read_now(lambda connection: why(connection, "HTTP://a.test:80/./x#part", world.now))
    assert found.url == "http://a.test/x"
    assert [decision.outcome for decision in found.decisions] == ["queued", "sent", "page", "document"]
    assert [decision.node for decision in found.decisions] == ["keeper", "keeper one", "crawler c", "processor p"]
    assert [decision.at for decision in found.decisions] == sorted(decision.at for decision in found.decisions)
    assert (found.state, found.found_on, found.depth) == ("done", "http://a.test/", 1)
    unknown = database.read_now(lambda connection: why(connection, "http://a.test/never", world.now))
    assert (unknown.state, unknown.decisions) == ("unknown", [])
    bad = database.read_now(lambda connection: why(connection, "ftp://a.test/", world.now))
    assert bad.would == "bad-scheme"


def test_status_and_hosts_follow_the_crawl(database: Database) -> None:
    world = World(database, web(3, 10))
    world.add("http://h0.test/", delay=1.0)
    world.run(15)
    found = database.read_now(lambda connection: status(connection, world.now))
    assert found.pages > 0
    assert sum(found.addresses.values()) >= found.pages
    world.run()
    found = database.read_now(lambda connection: status(connection, world.now))
    assert found.addresses == {"queued": 0, "sent": 0, "done": 31}
    assert found.outcomes == {"document": 31}
    assert (found.pages, found.hosts, found.hosts_out, found.is_paused) == (31, 3, 0, False)
    listed = database.read_now(lambda connection: hosts(connection, 2))
    assert (len(listed.hosts), listed.total) == (2, 3)
    assert {host.delay for host in listed.hosts} == {1.0}


def test_unrequested_pages_are_indexed_but_not_followed(simple: Database) -> None:
    world = World(simple, site_of({}))
    document = Document("http://other.test/", world.now, "p", text="a page", title="a page")
    world.tell([document, Outcome("none", "http://unknown.test/", "client-error", world.now, "c")])
    assert set(world.index.stored) == {"http://other.test/"}
    assert world.counts()["state:done"] == 1
