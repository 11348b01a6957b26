"""How the keeper handles hosts: robots.txt, sitemaps, failures, pauses and redirects."""

import itertools
from collections.abc import Sequence

import pytest

from rabbitry.apps.crawl.keeper import dispatch
from rabbitry.apps.crawl.keeper.database import Database
from rabbitry.apps.crawl.keeper.inputs import Input
from rabbitry.apps.crawl.keeper.keeper import Decided
from rabbitry.apps.crawl.keeper.reading import hosts, why
from rabbitry.apps.crawl.keeper.robots import Robots
from tests.apps.crawl.keeper.simulation import MISSING, Answered, World, read_why, site_of, web


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


def test_a_large_robots_txt_is_parsed_when_its_host_is_due(database: Database) -> None:
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
def test_an_unreachable_robots_txt_forbids_all(simple: Database, outcome: str) -> None:
    world = World(simple, site_of({"http://a.test/robots.txt": Answered(outcome=outcome)}, Answered("page")))
    world.add(*(f"http://a.test/{number}" for number in range(500)))
    world.run(5)
    waits_for = simple.read_now(lambda connection: why(connection, "http://a.test/0", world.now)).detail
    assert waits_for == f"robots.txt can't be fetched ({outcome}, tried 1 time): nothing is allowed until it is"
    world.run()
    assert set(world.requests()) == {"http://a.test/robots.txt"}
    assert 2 <= world.requests()["http://a.test/robots.txt"] <= 6
    assert outcome in read_why(world, "http://a.test/0")
    assert world.counts()["state:done"] == 500


def test_a_robots_txt_that_arrives_late_opens_the_host(simple: Database) -> None:
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

    def found_on(url: str) -> str:
        return simple.read_now(lambda connection: why(connection, url, world.now)).found_on

    assert found_on("http://a.test/all.xml") == "http://a.test/robots.txt"
    assert found_on("http://a.test/part.xml") == "http://a.test/all.xml"
    assert found_on("http://a.test/x") == "http://a.test/part.xml"


def test_sitemaps_are_read_again_for_a_crawl_that_goes_further(simple: Database) -> None:
    pages = {
        "http://a.test/robots.txt": Answered(body="Sitemap: http://a.test/all.xml\n"),
        "http://a.test/all.xml": Answered(links=["http://a.test/x"]),
    }
    world = World(simple, site_of(pages, Answered("page")))
    world.add("http://a.test/", depth=0)
    world.run(600.0)
    assert set(world.index.stored) == {"http://a.test/"}
    world.add("http://a.test/")
    world.run(600.0)
    assert set(world.index.stored) == {"http://a.test/", "http://a.test/x"}
    world.add("http://a.test/")  # it goes no further
    world.run(600.0)
    assert world.requests() == {
        "http://a.test/robots.txt": 1, "http://a.test/all.xml": 2, "http://a.test/x": 1, "http://a.test/": 3
    }  # fmt: skip


def test_a_missing_robots_txt_is_no_problem_of_its_host(simple: Database) -> None:
    world = World(simple, site_of({"http://a.test/robots.txt": MISSING}, Answered("page")))
    world.add("http://a.test/")
    world.run()
    [host] = simple.read_now(lambda connection: hosts(connection, 10)).hosts
    assert [decision.outcome for decision in host.last] == ["page", "robots"]
    assert host.robots == "robots"


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


def test_a_host_that_asks_to_wait_is_left_alone(simple: Database) -> None:
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


def test_a_host_that_always_answers_503_is_given_up(simple: Database) -> None:
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


def test_a_start_redirected_to_www_extends_the_scope(simple: Database) -> None:
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
def test_outcomes_of_a_whole_host_need_one_request(simple: Database, outcome: str) -> None:
    world = World(simple, site_of({}, Answered(outcome=outcome)))
    world.add(*(f"http://a.test/{number}" for number in range(200)))
    world.run()
    assert len(world.log) == 1
    assert world.counts()[f"outcome:{outcome}"] == 200


@pytest.mark.parametrize("outcome", ["page", "server-error"])
def test_http_and_https_of_a_host_have_rules_of_their_own(simple: Database, outcome: str) -> None:
    rules = "Sitemap: /map.xml\nUser-agent: *\nDisallow: /open\n"
    site = site_of({
        "http://a.test/robots.txt": Answered(body="User-agent: *\nDisallow: /closed\n"),
        "http://a.test/": Answered("start", ["https://a.test/closed", "http://a.test/closed"]),
        "https://a.test/robots.txt": Answered(outcome=outcome, body=rules),
        "https://a.test/closed": Answered("closed"),
    })  # fmt: skip
    world = World(simple, site)
    world.add("http://a.test/")
    world.run(most=3)
    assert world.log[-1][1] == "https://a.test/robots.txt"
    # These come before the addresses of https, whose rules are on their way.
    world.add(*(f"http://a.test/open/{number}" for number in range(1_100)))
    world.run(1_000.0)
    assert "sent" in read_why(world, "http://a.test/open/0")
    assert read_why(world, "http://a.test/open/0")[-1] == "client-error"
    assert read_why(world, "http://a.test/closed")[-1] == "disallowed"
    of_https = read_why(world, "https://a.test/closed")
    if outcome == "page":
        assert of_https[-1] == "document"
        found = world.database.read_now(lambda connection: why(connection, "https://a.test/map.xml", world.now))
        assert found.found_on == "https://a.test/robots.txt"
    else:
        assert "server-error" in of_https
        assert "server-error" not in read_why(world, "http://a.test/open/0")


@pytest.mark.parametrize(("of_http", "of_https"), [(7, 2), (2, 7)])
def test_the_longer_delay_of_both_schemes_holds(simple: Database, of_http: int, of_https: int) -> None:
    links = [f"{scheme}://a.test/{number}" for number in range(4) for scheme in ("http", "https")]
    site = site_of({
        "http://a.test/robots.txt": Answered(body=f"User-agent: *\nCrawl-delay: {of_http}\nDisallow: /x\n"),
        "https://a.test/robots.txt": Answered(body=f"User-agent: *\nCrawl-delay: {of_https}\nDisallow: /x\n"),
        "http://a.test/": Answered("start", links),
    }, Answered("page"))  # fmt: skip
    world = World(simple, site)
    world.add("http://a.test/")
    world.run()
    times = sorted(at for at, _ in world.log)
    known = next(at for at, url in world.log if url == "https://a.test/robots.txt")
    assert len(times) == 11
    assert all(later - at >= 7.0 for at, later in itertools.pairwise(times) if at >= known)
