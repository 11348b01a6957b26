"""The keeper's decisions: without a broker or a network, against sites that are functions, on a clock of their own."""

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from sqlalchemy import Connection

from rabbitry.apps.crawl.keeper import dispatch
from rabbitry.apps.crawl.keeper.addresses import origin_of
from rabbitry.apps.crawl.keeper.database import Database
from rabbitry.apps.crawl.keeper.inputs import Asked, Input, Page
from rabbitry.apps.crawl.keeper.keeper import Decided, Keeper
from rabbitry.apps.crawl.keeper.reading import hosts, status, why
from rabbitry.apps.crawl.keeper.robots import Robots
from rabbitry.apps.crawl.keeper.state import DONE, SENT, load
from rabbitry.apps.crawl.keeper.work import LOST
from rabbitry.apps.crawl.messages import Address, Batch, Document, Outcome, Pause, Report, Resume
from tests.apps.crawl.keeper.simulation import MISSING, Answered, Site, World, words


@pytest.fixture
def simple(tmp_path: Path) -> Iterator[Database]:
    """A database on SQLite."""
    with Database(f"sqlite:///{tmp_path / 'crawl.sqlite3'}") as opened:
        yield opened


def web(hosts: int, pages: int) -> Site:
    """Return hosts h0.test, h1.test, … of so many pages each, which lead to all of them."""

    def site(url: str) -> Answered:
        origin = origin_of(url)
        path = url[len(origin) :]
        if path == "/robots.txt":
            return MISSING
        number = 0 if path == "/" else int(path.rpartition("/")[2])
        host = int(origin.removeprefix("http://h").removesuffix(".test"))
        links = [f"{origin}/p/{(number * 3 + step) % pages}" for step in range(1, 8)]
        return Answered(words(url), [*links, f"http://h{(host + 1) % hosts}.test/p/0"])

    return site


def site_of(pages: dict[str, Answered], rest: Answered = MISSING) -> Callable[[str], Answered]:
    """Return a site of these addresses."""
    return lambda url: pages.get(url, rest)


def read_why(world: World, url: str) -> list[str]:
    """Return the words of what was decided about an address."""
    found = world.database.read_now(lambda connection: why(connection, url, world.now))
    return [decision.outcome for decision in found.decisions]


# -- all of a web, politely ------------------------------------------------------------------------------


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


def test_a_crawl_delay_of_robots_txt_holds_for_its_host_alone(simple: Database) -> None:
    inner = web(3, 10)

    def site(url: str) -> Answered:
        if url == "http://h1.test/robots.txt":
            return Answered(body="User-agent: *\nCrawl-delay: 45\n")
        return inner(url)

    world = World(simple, site)
    world.add("http://h0.test/", delay=0.5)
    world.run()
    assert len(world.index.stored) == 31
    gaps = world.gaps()
    assert gaps["http://h1.test"] >= 45 - 1e-6
    assert 0.5 - 1e-6 <= gaps["http://h0.test"] < 5


@pytest.mark.parametrize("rule", ["Disallow: /{0}/\n", "Disallow: /*x{0:04}*y\n"], ids=["plain", "wildcards"])
def test_a_robots_txt_of_many_rules_takes_little_of_a_transaction(
    simple: Database, monkeypatch: pytest.MonkeyPatch, rule: str
) -> None:
    links = [f"http://a.test/{number}/{'x' * 500}" for number in range(60)]
    rules = "User-agent: *\n" + "".join(rule.format(number) for number in range(500)) + "Disallow: /\nAllow: /$\n"
    site = site_of({"http://a.test/robots.txt": Answered(body=rules), "http://a.test/": Answered("start", links)})
    world = World(simple, site)
    asked: list[int] = []
    allows, apply = Robots.allows, world.apply

    def counted(robots: Robots, url: str) -> bool:
        asked[-1] += 1
        return allows(robots, url)

    def applied(inputs: Sequence[Input]) -> Decided:
        asked.append(0)
        return apply(inputs)

    monkeypatch.setattr(Robots, "allows", counted)
    monkeypatch.setattr(dispatch, "_MOST_HEEDED", 2_500)
    monkeypatch.setattr(world, "apply", applied)
    world.add("http://a.test/")
    world.run()
    assert world.counts()["outcome:disallowed"] == 60
    assert 0 < max(asked) <= 6


def test_a_slow_host_holds_up_nobody(simple: Database) -> None:
    inner = web(10, 10)

    def site(url: str) -> Answered:
        return Answered(body="User-agent: *\nCrawl-delay: 600\n") if url == "http://h1.test/robots.txt" else inner(url)

    world = World(simple, site)
    world.add(*(f"http://h{number}.test/" for number in range(10)), delay=1.0)
    world.run(100)
    slow = {url for url in world.requests() if url.startswith("http://h1.test")}
    assert len(slow) <= 2
    assert len(world.index.stored) == 9 * 11 + len(slow) - 1


# -- crawlers, keepers and messages that are lost --------------------------------------------------------


def test_crawlers_that_die_cost_no_page(simple: Database) -> None:
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

    world.send = lossy  # type: ignore[method-assign]
    world.add("http://h0.test/")
    world.run(200)
    assert next(lost) > 4
    assert len(world.index.stored) == 61


def test_messages_that_come_twice_change_nothing(simple: Database) -> None:
    world = World(simple, web(3, 20))
    once = world.apply

    def twice(inputs: list[object]) -> object:
        decided = once(inputs)  # type: ignore[arg-type]
        again = once(inputs)  # type: ignore[arg-type]
        decided.batches += again.batches
        return decided

    world.apply = twice  # type: ignore[assignment, method-assign]
    world.add("http://h0.test/")
    world.run()
    assert len(world.index.stored) == 61
    assert set(world.index.documents.values()) == {1}
    assert set(world.requests().values()) == {1}
    assert world.counts()["outcome:document"] == 61


def test_a_batch_that_was_never_published_is_taken_back(simple: Database) -> None:
    world = World(simple, web(1, 5))
    sends = world.send
    lost = iter([True, False, True])
    world.send = lambda batch: None if next(lost, False) else sends(batch)  # type: ignore[method-assign]
    world.add("http://h0.test/")
    for _ in range(20):
        world.run()
        world.now += 300  # past the deadline of what was lost
        world.tell([])
    assert len(world.index.stored) == 6


def test_a_keeper_that_takes_over_goes_on_where_the_other_one_was(database: Database) -> None:
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


def test_two_keepers_that_think_they_are_active_do_no_harm(simple: Database) -> None:
    world = World(simple, web(6, 20))
    keepers = [Keeper("one", world.index), Keeper("two", world.index)]
    turn = random.Random(2)
    once = world.apply

    def either(inputs: list[object]) -> object:
        world.keeper = turn.choice(keepers)
        return once(inputs)  # type: ignore[arg-type]

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
                world.keeper.apply(connection, inputs, world.now)  # type: ignore[arg-type]
                raise ZeroDivisionError

            with pytest.raises(ZeroDivisionError):
                simple.write_now(work)
            world.keeper.forget()
            world.index.documents.clear()
        return once(inputs)  # type: ignore[arg-type]

    world.apply = failing  # type: ignore[assignment, method-assign]
    world.add("http://h0.test/")
    world.run()
    assert len(world.index.stored) == 81
    assert set(world.requests().values()) == {1}


def delay(world: World, *, pages: float, reports: float) -> None:
    """Have pages and reports come so many seconds late, as those that a killed keeper had in hand."""
    later = world.later

    def late(at: float, inputs: list[Input]) -> None:
        later(at + pages * isinstance(inputs[0], Page) + reports * isinstance(inputs[0], Report), inputs)

    world.later = late  # type: ignore[method-assign]


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


def test_a_keeper_that_stood_still_awaits_what_could_not_come_meanwhile(simple: Database) -> None:
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
    assert len(kept) == 2  # the host's token is with the second one
    [address] = kept[1].addresses
    assert address.purpose == "robots"


def test_a_crawler_whose_clock_is_ahead_is_told_and_does_not_spin(
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


# -- scope -----------------------------------------------------------------------------------------------


def test_depth_and_hosts_bound_a_crawl(simple: Database) -> None:
    pages = {f"http://a.test/{number}": Answered(words(number), [f"http://a.test/{number + 1}"]) for number in range(9)}
    pages["http://a.test/0"] = Answered("start", ["http://a.test/1", "http://b.test/", "http://a.test:81/"])
    world = World(simple, site_of(pages))
    world.add("http://a.test/0", depth=3, same_host=True)
    world.run()
    assert set(world.index.stored) == {f"http://a.test/{number}" for number in range(4)}
    assert read_why(world, "http://b.test/") == ["out-of-scope"]
    assert read_why(world, "http://a.test:81/") == ["out-of-scope"]
    assert read_why(world, "http://a.test/4") == ["too-deep"]
    counts = world.counts()
    assert (counts["outcome:out-of-scope"], counts["outcome:too-deep"]) == (2, 1)


def test_allowed_domains_are_compared_by_label(simple: Database) -> None:
    links = [
        "http://example.test/", "http://www.example.test/", "http://badexample.test/", "http://example.test.evil.test/",
        "http://bücher.test/", "http://127.0.0.1/",
    ]  # fmt: skip
    world = World(simple, site_of({"http://example.test/s": Answered("start", links)}, Answered("page")))
    world.add("http://example.test/s", allow=["EXAMPLE.test", "bücher.test", "0.0.1"])
    world.run()
    fetched = {url for url in world.requests() if not url.endswith("/robots.txt")}
    assert fetched == {
        "http://example.test/s", "http://example.test/", "http://www.example.test/", "http://xn--bcher-kva.test/"
    }  # fmt: skip


def pages_of(world: World) -> int:
    """Count the requests that were no robots.txt."""
    return sum(number for url, number in world.requests().items() if not url.endswith("/robots.txt"))


def test_what_waits_for_a_crawl_with_all_its_pages_is_refused_some_addresses_at_a_time(
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


def test_very_many_rules_are_read_when_their_host_is_to_be_asked(database: Database) -> None:
    rules = "".join(f"Disallow: /private/{number}\n" for number in range(2_000))
    robots = f"User-agent: *\nCrawl-delay: 7\n{rules}Sitemap: /map.xml\n"
    pages = {
        "http://a.test/robots.txt": Answered(body=robots),
        "http://a.test/": Answered("a", ["http://a.test/private/1999/x", "http://a.test/x"]),
        "http://a.test/map.xml": Answered(links=["http://a.test/y"]),
        "http://a.test/x": Answered("x"),
        "http://a.test/y": Answered("y"),
    }
    world = World(database, site_of(pages))
    world.add("http://a.test/")
    world.tell([])
    told = database.read_now(lambda connection: why(connection, "http://a.test/private/7", world.now))
    assert told.would in ("disallowed", "queued")
    world.run()
    assert set(world.requests()) == set(pages)
    assert world.gaps()["http://a.test"] >= 7 - 1e-6
    assert world.counts()["outcome:disallowed"] == 1


def test_a_limit_holds_to_the_page(simple: Database) -> None:
    world = World(simple, web(5, 50))
    world.add("http://h0.test/", limit=37)
    world.run()
    assert len(world.index.stored) == 37
    assert pages_of(world) == 37
    assert world.counts()["state:done"] > 37
    assert world.counts()["outcome:limit"] > 0


@pytest.mark.parametrize("takes_over", [False, True], ids=["one keeper", "another keeper takes over"])
def test_a_limit_holds_where_crawlers_die_and_what_they_fetched_comes_late(
    simple: Database, *, takes_over: bool
) -> None:
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
    """Return how many pages the first crawl counts, as a keeper that takes over reads it."""
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
def test_a_limit_holds_where_many_hosts_are_due_at_once(simple: Database, limit: int) -> None:
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


def test_a_crawl_that_goes_further_fetches_anew(simple: Database) -> None:
    pages = {f"http://a.test/{number}": Answered(words(number), [f"http://a.test/{number + 1}"]) for number in range(9)}
    world = World(simple, site_of(pages))
    world.add("http://a.test/0", depth=2)
    world.run()
    assert len(world.index.stored) == 3
    world.add("http://a.test/0", depth=5)
    world.run()
    assert len(world.index.stored) == 6
    world.add("http://a.test/0", depth=5)
    world.run()
    assert world.requests()["http://a.test/0"] == 3
    assert world.requests()["http://a.test/3"] == 1


def test_a_public_address_needs_a_contact_once(simple: Database) -> None:
    world = World(simple, site_of({}, Answered("page")))
    refused = world.add("https://example.com/")
    assert "--contact" in refused.error
    assert not world.requests()
    assert not world.add("https://example.com/", contact="me@example.com").error
    assert not world.add("https://example.org/").error


def test_what_is_no_address_is_named(simple: Database) -> None:
    world = World(simple, site_of({}, Answered("page")))
    answer = world.add("http://a.test/", "ftp://a.test/", "http://", "mailto:me@a.test", "http://a.test/" + "x" * 2000)
    assert not answer.error
    outcomes = [taken.outcome for taken in answer.addresses]
    assert outcomes == ["bad-scheme", "bad-address", "bad-scheme", "too-long", "queued"]
    assert world.add("nonsense").error


@pytest.mark.parametrize("number", [-1, 10**20, 1 << 63])
@pytest.mark.parametrize("name", ["depth", "limit", "delay", "recrawl"])
def test_numbers_without_bounds_are_refused(simple: Database, name: str, number: int) -> None:
    world = World(simple, site_of({}, Answered("page")))
    assert f"{name} is " in world.add("http://a.test/", **{name: number}).error
    assert not world.add("http://a.test/").error


# -- robots.txt ------------------------------------------------------------------------------------------


def test_robots_txt_is_fetched_first_and_obeyed(simple: Database) -> None:
    links = ["http://a.test/open", "http://a.test/closed/1", "http://a.test/closed/2", "http://a.test/CLOSED"]
    pages = {
        "http://a.test/robots.txt": Answered(body="User-agent: rabbitry\nDisallow: /closed\n"),
        "http://a.test/": Answered("start", links),
    }
    world = World(simple, site_of(pages, Answered("page")))
    world.add("http://a.test/")
    world.run()
    assert world.log[0][1] == "http://a.test/robots.txt"
    assert set(world.requests()) == {
        "http://a.test/robots.txt", "http://a.test/", "http://a.test/open", "http://a.test/CLOSED"
    }  # fmt: skip
    assert read_why(world, "http://a.test/closed/1")[-1] == "disallowed"


@pytest.mark.parametrize("outcome", ["server-error", "no-connection", "too-slow"])
def test_a_robots_txt_that_does_not_come_forbids_all(simple: Database, outcome: str) -> None:
    world = World(simple, site_of({"http://a.test/robots.txt": Answered(outcome=outcome)}, Answered("page")))
    world.add(*(f"http://a.test/{number}" for number in range(500)))
    world.run()
    assert set(world.requests()) == {"http://a.test/robots.txt"}
    assert 2 <= world.requests()["http://a.test/robots.txt"] <= 6
    assert outcome in read_why(world, "http://a.test/0")
    assert world.counts()["state:done"] == 500


def test_a_robots_txt_that_comes_at_last_opens_the_host(simple: Database) -> None:
    tries = iter([Answered(outcome="server-error"), Answered(outcome="no-connection"), MISSING])

    def site(url: str) -> Answered:
        return next(tries) if url.endswith("/robots.txt") else Answered("page")

    world = World(simple, site)
    world.add("http://a.test/")
    world.run()
    assert set(world.index.stored) == {"http://a.test/"}


def test_sitemaps_of_robots_txt_are_read_within_the_scope(simple: Database) -> None:
    pages = {
        "http://a.test/robots.txt": Answered(body="Sitemap: http://a.test/all.xml\nSitemap: http://b.test/b.xml\n"),
        "http://a.test/all.xml": Answered(links=["http://a.test/part.xml", "http://b.test/part.xml"]),
        "http://a.test/part.xml": Answered(links=["http://a.test/x", "http://a.test/y", "http://b.test/x"]),
    }
    world = World(simple, site_of(pages, Answered("page")))
    world.add("http://a.test/", same_host=True)
    world.run()
    assert set(world.index.stored) == {"http://a.test/", "http://a.test/x", "http://a.test/y"}


def test_a_sitemap_that_can_not_be_read_has_its_own_outcome(simple: Database) -> None:
    pages = {
        "http://a.test/robots.txt": Answered(body="Sitemap: http://a.test/all.xml\n"),
        "http://a.test/all.xml": Answered(links=["http://a.test/x"], problem="bomb"),
    }
    world = World(simple, site_of(pages, Answered("page")))
    world.add("http://a.test/", same_host=True)
    world.run()
    assert set(world.index.stored) == {"http://a.test/", "http://a.test/x"}
    assert world.counts()["outcome:bomb"] == 1


# -- what goes wrong -------------------------------------------------------------------------------------


def test_a_dead_host_of_many_addresses_costs_a_handful_of_requests(simple: Database) -> None:
    pages = {"http://a.test/": Answered("start", [f"http://dead.test/{number}" for number in range(3_000)])}

    def site(url: str) -> Answered:
        return Answered(outcome="no-such-host") if "dead.test" in url else pages.get(url, MISSING)

    world = World(simple, site)
    world.add("http://a.test/")
    world.run()
    assert sum(number for url, number in world.requests().items() if "dead" in url) <= 6
    assert world.counts()["outcome:no-such-host"] == 3_000
    assert world.counts()["state:done"] == 3_001


def test_a_host_that_dies_later_is_given_up(simple: Database) -> None:
    inner = web(2, 300)
    world = World(simple, inner)
    world.site = lambda url: (
        Answered(outcome="no-connection") if "h1.test" in url and len(world.log) > 150 else inner(url)
    )
    world.add("http://h0.test/")
    world.run()
    assert "state:queued" not in world.counts()
    assert len([url for at, url in world.log[150:] if "h1.test" in url]) < 20


def test_an_address_that_fails_is_tried_again_and_given_up(simple: Database) -> None:
    pages = {"http://a.test/": Answered("start", ["http://a.test/x", "http://a.test/y"])}
    pages["http://a.test/x"] = Answered(outcome="server-error")
    pages["http://a.test/y"] = Answered("page")
    world = World(simple, site_of(pages))
    world.add("http://a.test/")
    world.run()
    assert world.requests()["http://a.test/x"] == 3
    assert read_why(world, "http://a.test/x")[-2:] == ["server-error", "given-up"]
    assert world.counts()["outcome:server-error"] == 1


def test_a_host_that_asks_for_it_is_left_alone(simple: Database) -> None:
    inner = web(1, 100)
    world = World(simple, inner)
    slowed = iter([False] * 20 + [True] * 3)
    world.site = lambda url: Answered(outcome="slow-down", retry_after=120.0) if next(slowed, False) else inner(url)
    world.add("http://h0.test/")
    world.run()
    assert len(world.index.stored) == 101
    times = sorted(at for at, _ in world.log)
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert len([pause for pause in pauses if 120 <= pause < 121]) == 3
    assert len([pause for pause in pauses if pause < 1]) > 40  # it came back


def test_a_host_that_always_says_503_comes_to_an_end(simple: Database) -> None:
    world = World(simple, site_of({"http://a.test/robots.txt": MISSING}, Answered(outcome="slow-down")))
    world.add(*(f"http://a.test/{number}" for number in range(100)))
    world.run(60 * 24 * 3600.0)
    assert "state:queued" not in world.counts()
    assert len(world.log) < 40
    assert world.counts()["outcome:slow-down"] == 100


def test_redirects_are_links_and_their_loops_end(simple: Database) -> None:
    pages = {
        "http://a.test/": Answered("start", ["http://a.test/one", "http://a.test/loop"]),
        "http://a.test/one": Answered(outcome="redirect", location="http://a.test/two"),
        "http://a.test/two": Answered("two"),
        "http://a.test/loop": Answered(outcome="redirect", location="http://a.test/pool"),
        "http://a.test/pool": Answered(outcome="redirect", location="http://a.test/loop"),
    }

    def site(url: str) -> Answered:
        if "/more/" in url:
            return Answered(outcome="redirect", location=f"{url}x")
        return pages.get(url, MISSING)

    world = World(simple, site)
    world.add("http://a.test/", "http://a.test/more/", depth=1)
    world.run()
    assert set(world.index.stored) == {"http://a.test/", "http://a.test/two"}
    assert set(world.requests().values()) == {1}
    assert len(world.log) < 30


def test_a_redirect_out_of_scope_is_refused(simple: Database) -> None:
    pages = {"http://a.test/": Answered(outcome="redirect", location="http://b.test/")}
    world = World(simple, site_of(pages))
    world.add("http://a.test/", same_host=True)
    world.run()
    assert read_why(world, "http://b.test/") == ["out-of-scope"]


def test_a_start_that_leads_to_its_www_brings_it_into_the_scope(simple: Database) -> None:
    pages = {
        "http://a.test/": Answered(outcome="redirect", location="https://www.a.test/"),
        "https://www.a.test/": Answered("start", ["https://www.a.test/x"]),
        "https://www.a.test/x": Answered("x"),
    }
    world = World(simple, site_of(pages))
    world.add("http://a.test/", same_host=True)
    world.run()
    assert set(world.index.stored) == {"https://www.a.test/", "https://www.a.test/x"}


@pytest.mark.parametrize("outcome", ["private", "no-contact", "bad-certificate"])
def test_what_holds_for_a_whole_host_is_asked_once(simple: Database, outcome: str) -> None:
    world = World(simple, site_of({}, Answered(outcome=outcome)))
    world.add(*(f"http://a.test/{number}" for number in range(200)))
    world.run()
    assert len(world.log) == 1
    assert world.counts()[f"outcome:{outcome}"] == 200


# -- what is in the index --------------------------------------------------------------------------------


def test_noindex_nofollow_and_canonical_are_obeyed(simple: Database) -> None:
    pages = {
        "http://a.test/": Answered("start", ["http://a.test/n", "http://a.test/f", "http://a.test/c?x=1"]),
        "http://a.test/n": Answered("n", ["http://a.test/behind"], noindex=True),
        "http://a.test/behind": Answered("behind"),
        "http://a.test/f": Answered("f", ["http://a.test/never"], nofollow=True),
        "http://a.test/c?x=1": Answered("c", canonical="http://a.test/c"),
        "http://a.test/c": Answered("c", canonical="http://a.test/c"),
    }
    world = World(simple, site_of(pages))
    world.add("http://a.test/")
    world.run()
    assert set(world.index.stored) == {f"http://a.test/{path}" for path in ("", "behind", "f", "c")}
    assert read_why(world, "http://a.test/c?x=1")[-1] == "duplicate"


def test_canonical_addresses_in_a_circle_or_elsewhere_are_ignored(simple: Database) -> None:
    pages = {
        "http://a.test/": Answered("start", ["http://a.test/x", "http://a.test/y", "http://a.test/z"]),
        "http://a.test/x": Answered("x", canonical="http://a.test/y"),
        "http://a.test/y": Answered("y", canonical="http://a.test/x"),
        "http://a.test/z": Answered("z", canonical="http://b.test/z"),
    }
    world = World(simple, site_of(pages))
    world.add("http://a.test/", same_host=True)
    world.run()
    assert len({"http://a.test/x", "http://a.test/y"} & set(world.index.stored)) == 1
    assert "http://a.test/z" in world.index.stored


def test_the_same_content_is_indexed_once_for_a_host(simple: Database) -> None:
    text = words("the same")
    world = World(simple, site_of({"http://a.test/": Answered("start", ["http://a.test/x", "http://a.test/y"])}))
    inner = world.site
    world.site = lambda url: Answered(text) if url[-1] in "xy" else inner(url)
    make = world.process
    world.process = lambda *values: _untitled(make(*values))  # type: ignore[method-assign]
    world.add("http://a.test/")
    world.run()
    assert len(world.index.stored) == 2
    assert world.counts()["outcome:duplicate"] == 1


def _untitled(document: Document) -> Document:
    return Document(**{**{name: getattr(document, name) for name in document.__struct_fields__}, "title": "t"})


def test_sessions_and_the_order_of_parameters_make_no_new_address(simple: Database) -> None:
    session = "a1b2c3d4e5f6a7b8c9d0"
    links = [
        f"http://a.test/x?PHPSESSID={session}",
        "http://a.test/x",
        "http://a.test/q?b=2&a=1",
        "http://a.test/q?a=1&b=2",
    ]
    world = World(simple, site_of({"http://a.test/": Answered("start", links)}, Answered("page")))
    world.add("http://a.test/")
    world.run()
    assert len(world.index.stored) == 3


# -- again and again -------------------------------------------------------------------------------------


def test_a_page_is_fetched_again_as_often_as_it_changes(simple: Database) -> None:
    world = World(simple, lambda url: MISSING)

    def site(url: str) -> Answered:
        if url == "http://a.test/":
            return Answered("start", ["http://a.test/still", "http://a.test/news"], etag="1")
        if url == "http://a.test/still":
            return Answered("still", etag="1")
        if url == "http://a.test/news":
            return Answered(f"news {world.now:.0f}")
        return MISSING

    world.site = site
    world.add("http://a.test/", recrawl=3600.0)
    world.run(12 * 3600.0)
    requests = world.requests()
    assert requests["http://a.test/news"] > 10 * requests["http://a.test/still"] >= 40
    assert set(world.index.documents) == {"http://a.test/", "http://a.test/still", "http://a.test/news"}
    assert world.index.documents["http://a.test/still"] == 1
    assert world.counts()["state:done"] == 3


# -- pausing, and what is said ---------------------------------------------------------------------------


def test_nothing_is_sent_while_the_crawl_is_paused(simple: Database) -> None:
    world = World(simple, web(2, 10))
    assert world.tell([Asked(Pause(), "p")]).answers["p"].said == ["paused"]
    world.add("http://h0.test/")
    world.run(1000)
    assert not world.log
    world.tell([Asked(Resume(), "r")])
    world.run()
    assert len(world.index.stored) == 21


def test_why_tells_each_decision_with_its_time_and_node(database: Database) -> None:
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


def test_pages_that_nobody_asked_for_are_indexed_and_not_followed(simple: Database) -> None:
    world = World(simple, site_of({}))
    document = Document("http://other.test/", world.now, "p", text="a page", title="a page")
    world.tell([document, Outcome("none", "http://unknown.test/", "client-error", world.now, "c")])
    assert set(world.index.stored) == {"http://other.test/"}
    assert world.counts()["state:done"] == 1
