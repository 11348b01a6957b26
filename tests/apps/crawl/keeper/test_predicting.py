"""Predictions for addresses that no page has linked to yet."""

from rabbitry.apps.crawl.keeper.database import Database
from rabbitry.apps.crawl.keeper.reading import why
from tests.apps.crawl.keeper.simulation import MISSING, Answered, World


def would(world: World, url: str) -> tuple[str, str]:
    """Return the state of an address, and the predicted one."""
    found = world.database.read_now(lambda connection: why(connection, url, world.now))
    return found.state, found.would


def test_the_outcome_of_an_unknown_address_is_predicted(database: Database) -> None:
    pages = {
        "http://a.test/robots.txt": Answered(body="User-agent: *\nDisallow: /closed\n"),
        "http://a.test/": Answered("start"),
    }
    world = World(database, lambda url: pages.get(url, MISSING))
    assert would(world, "http://a.test/x") == ("unknown", "out-of-scope")
    world.add("http://a.test/", same_host=True)
    world.run()
    expected = {
        "http://a.test/x": "queued",
        "http://a.test/closed/x": "disallowed",
        "http://b.test/": "out-of-scope",
        "http://a.test/a/b/a/b/a/b/a/b/a/b/a/b": "trap",
        "ftp://a.test/": "bad-scheme",
        "": "bad-address",
        "http://a.test/" + "x" * 3_000: "too-long",
    }
    for url, word in expected.items():
        assert would(world, url) == ("unknown", word), url
    assert would(world, "http://a.test/") == ("done", "")
    world.add("http://b.test/", same_host=True, limit=1)
    assert would(world, "http://b.test/x") == ("unknown", "queued")


def test_a_crawl_that_is_full_takes_nothing_more(database: Database) -> None:
    world = World(database, lambda url: MISSING if url.endswith("robots.txt") else Answered(url, [f"{url}x"]))
    world.add("http://a.test/", limit=2)
    world.run()
    assert would(world, "http://a.test/other") == ("unknown", "limit")
