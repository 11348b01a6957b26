"""The scope of a crawl: depth, hosts and domains; refused addresses and numbers."""

import re

import pytest

from rabbitry.apps.crawl.keeper.addresses import BadAddress
from rabbitry.apps.crawl.keeper.database import Database
from rabbitry.apps.crawl.keeper.scope import domain
from tests.apps.crawl.keeper.simulation import Answered, World, read_why, site_of, words


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


@pytest.mark.parametrize(
    "text",
    ["", ".", "bad domain", "https://example.org", "example.org/path", "me@example.org", "example.org?x", "a#b", "a:b"],
)
def test_a_text_that_is_no_domain_is_refused_as_one(text: str) -> None:
    with pytest.raises(BadAddress, match=f"^{re.escape(repr(text))} is not a domain: write e.g. example.org$"):
        domain(text)


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
    for contact in ("bla", "me@example.com\r\nX: y", "https://example.com/" + "a" * 200):
        assert "must be a mail address" in world.add("https://example.com/", contact=contact).error
    assert not world.requests()
    assert not world.add("https://example.com/", contact="me@example.com").error
    assert not world.add("https://example.org/").error


def test_malformed_addresses_are_refused_with_the_reason(simple: Database) -> None:
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
