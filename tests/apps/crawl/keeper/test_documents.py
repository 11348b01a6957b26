"""How the keeper handles documents: robots rules of pages, canonical addresses, copies and changes."""

from itertools import count

from rabbitry.apps.crawl.keeper.addresses import parse
from rabbitry.apps.crawl.keeper.database import Database
from rabbitry.apps.crawl.messages import Document
from tests.apps.crawl.keeper.simulation import MISSING, Answered, World, read_why, site_of, words


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
    world.process = lambda *values: _untitled(make(*values))  # type: ignore[method-assign] # the stand-in of this test
    world.add("http://a.test/")
    world.run()
    assert len(world.index.stored) == 2
    assert world.counts()["outcome:duplicate"] == 1


def test_the_same_content_is_indexed_for_each_host(simple: Database) -> None:
    begin = parse("http://a.test/").key >> 44
    hosts = (f"b{number}.test" for number in count())
    other = next(host for host in hosts if parse(f"http://{host}/").key >> 44 == begin)
    world = World(simple, lambda url: MISSING if url.endswith("robots.txt") else Answered(words("the same")))
    make = world.process
    world.process = lambda *values: _untitled(make(*values))  # type: ignore[method-assign] # the stand-in of this test
    world.add("http://a.test/", f"http://{other}/")
    world.run()
    assert set(world.index.stored) == {"http://a.test/", f"http://{other}/"}


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
