"""Traps: sites with endless families of addresses, and how the keeper tells them from real pages."""

import functools
import html
import random
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qsl, urljoin, urlsplit

import pytest
from sqlalchemy import Connection

from rabbitry.apps.crawl.keeper import traps
from rabbitry.apps.crawl.keeper.database import Database
from rabbitry.apps.crawl.keeper.traps import Shapes, grows, shapes_of
from tests.apps.crawl.keeper.simulation import MISSING, Answered, World, words
from tests.support.pages import Trapped
from tests.support.sites import Request, Site

SITE = "http://shop.test"
REAL = 500
FRAME = "all pages of this shop have the same frame around them with a menu and a footer "


def real_pages() -> list[str]:
    """Return the paths of the pages with content of their own."""
    articles = [f"/articles/{word}-{number}" for number, word in enumerate(words("slugs", REAL // 2).split())]
    products = [f"/product/{number}" for number in range(REAL // 4)]
    lists = [f"/list?page={number}" for number in range(REAL - len(articles) - len(products))]
    return [*articles, *products, *lists]


PAGES = real_pages()


def real(path: str) -> Answered:
    """Return a real page: its own text within the shop's frame, and links to some others."""
    number = PAGES.index(path)
    links = [f"{SITE}{PAGES[(number * 7 + step) % REAL]}" for step in range(1, 9)]
    return Answered(f"{FRAME}{words(path, 120)}", [*links, f"{SITE}/calendar/2026/11", f"{SITE}/shop?sort=price"])


Trap = Callable[[str], Answered | None]


def calendar(path: str) -> Answered | None:
    """Return a page of a calendar that never ends in either direction."""
    if not path.startswith("/calendar/"):
        return None
    year, month = map(int, path.split("/")[2:4])
    months = [year * 12 + month - 1 + step for step in (-12, -1, 1, 12)]
    links = [f"{SITE}/calendar/{number // 12}/{number % 12 + 1:02}" for number in months]
    return Answered(f"{FRAME}{words('calendar', 200)} no events in {month} {year}", links)


def facets(path: str) -> Answered | None:
    """Return a list that links to each order and each combination of filters."""
    parts = urlsplit(path)
    if parts.path != "/shop":
        return None
    chosen = dict(parse_qsl(parts.query))
    names = ["color", "size", "brand", "sort", "view", "material", "stock", "price"]
    links = []
    for name in names:
        for value in ("one", "two", "three"):
            query = "&".join(f"{key}={text}" for key, text in (chosen | {name: value}).items())
            links.append(f"{SITE}/shop?{query}")
    return Answered(f"{FRAME}{words('facets', 80)} {' '.join(sorted(chosen.values()))}", links)


def sessions(path: str) -> Answered | None:
    """Return a page whose links to the help pages have a new session id in the path."""
    if not path.startswith("/s/"):
        return None
    chosen = random.Random(path)
    links = [f"{SITE}/s/{chosen.getrandbits(64):016x}/help/{topic}" for topic in range(5)]
    return Answered(f"{FRAME}{words('help' + path[-1], 80)}", links)


def growing(path: str) -> Answered | None:
    """Return a page with relative links instead of absolute ones, so that paths grow."""
    if not path.startswith("/more"):
        return None
    return Answered(f"{FRAME}{words('more', 80)}", [f"{SITE}{path}/more", f"{SITE}{path}/about/more"])


def soft_404(path: str) -> Answered | None:
    """Return a soft 404: status 200 and an error text, with links to others like it."""
    if not path.startswith("/old/"):
        return None
    links = [f"{SITE}/old/{word}" for word in words(path, 6).split()]
    return Answered(f"{FRAME}{words('not found', 60)}", links)


TRAPS: dict[str, tuple[Trap, str]] = {
    "calendar": (calendar, "/calendar/2026/11"),
    "facets": (facets, "/shop?sort=price"),
    "sessions": (sessions, "/s/00112233445566aa/help/1"),
    "growing": (growing, "/more"),
    "soft 404": (soft_404, "/old/start"),
}


def crawled(folder: Path, traps: list[str]) -> Counter[str]:
    """Crawl the shop with these traps; return the number of fetched pages of each kind."""
    kinds: Counter[str] = Counter()

    def site(url: str) -> Answered:
        path = url.removeprefix(SITE)
        if path == "/":
            return Answered("start", [f"{SITE}{PAGES[0]}", *(f"{SITE}{TRAPS[name][1]}" for name in traps)])
        if path in PAGES:
            kinds["real"] += 1
            return real(path)
        for name in traps:
            found = TRAPS[name][0](path)
            if found is not None:
                kinds[name] += 1
                return found
        return MISSING

    with Database(f"sqlite:///{folder / 'crawl.sqlite3'}") as database:
        world = World(database, site)
        world.add(f"{SITE}/")
        world.run(most=6 * REAL)
        assert world.counts().get("state:queued", 0) == 0, "it never ended"
    return kinds


@pytest.mark.faults  # the test below has them all at once
@pytest.mark.parametrize("name", TRAPS)
def test_a_trap_costs_few_fetches_and_no_page(tmp_path: Path, name: str) -> None:
    kinds = crawled(tmp_path, [name])
    assert kinds["real"] >= 0.95 * REAL
    assert kinds[name] <= 0.1 * kinds.total()


def test_all_traps_at_once_cost_few_fetches_and_no_page(tmp_path: Path) -> None:
    kinds = crawled(tmp_path, list(TRAPS))
    assert kinds["real"] >= 0.95 * REAL
    assert kinds.total() - kinds["real"] <= 0.1 * kinds.total()


def parsed(site: Site, url: str) -> Answered:
    """Return the answer of a test server's site as a processor reads it."""
    answer = site(Request("GET", url.removeprefix(SITE), "shop.test", "127.0.0.1", SITE, {}))
    if answer.status != 200:
        return MISSING
    body = answer.body.decode()
    links = [urljoin(url, html.unescape(link)) for link in re.findall(r'href="([^"]*)"', body)]
    return Answered(re.sub(r"<a [^>]*>[^<]*</a>|<[^>]*>", " ", body), links)


def in_any_order() -> Callable[[str], float]:
    """Deliver documents within a minute, at random times."""
    chance = random.Random("lags")
    return lambda _: chance.uniform(0.0, 60.0)


@pytest.mark.parametrize(
    "lag",
    [in_any_order(), lambda url: 50.0 if "/p/" in url else 0.2, lambda url: 0.2 if "/p/" in url else 50.0],
    ids=["any order", "real pages last", "traps last"],
)
def test_a_trap_costs_as_little_however_late_documents_come(tmp_path: Path, lag: Callable[[str], float]) -> None:
    pages = 60
    with Database(f"sqlite:///{tmp_path / 'crawl.sqlite3'}") as database:
        world = World(database, functools.partial(parsed, Trapped(pages)), lag=lag)
        world.add(f"{SITE}/p/0")
        world.run(most=20 * pages)
        assert world.counts().get("state:queued", 0) == 0, "it never ended"
    requests = world.requests()
    spent = sum(times for url, times in requests.items() if "/p/" not in url) - requests[f"{SITE}/robots.txt"]
    assert sum("/p/" in url for url in requests) == pages
    assert spent <= 12 * len(TRAPS), requests  # a tenth of a site of 540 pages


def test_a_site_whose_pages_all_look_alike_is_not_a_trap(tmp_path: Path) -> None:
    def site(url: str) -> Answered:
        number = int(url.rpartition("/")[2] or 0) if "/p/" in url else 0
        links = [f"{SITE}/p/{(number * 3 + step) % 500}" for step in range(5)]
        return MISSING if url.endswith("robots.txt") else Answered(f"{FRAME}{words('filler', 100)}", links)

    with Database(f"sqlite:///{tmp_path / 'crawl.sqlite3'}") as database:
        world = World(database, site)
        world.add(f"{SITE}/")
        world.run()
        assert len(world.index.stored) == 501


def test_shapes_stay_in_memory_until_the_end_of_the_transaction_that_loaded_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traps, "_MOST_CACHED", 3)
    with Database(f"sqlite:///{tmp_path / 'crawl.sqlite3'}") as database:
        shapes = Shapes()

        def work(connection: Connection) -> None:
            shapes.load(connection, [(1, "a.test", "http://a.test/x/1")])
            (first, *_) = shapes.of(1, "http://a.test/x/1")
            first.sent = 7
            shapes.change(first)
            for number in range(9):
                shapes.load(connection, [(1, "a.test", f"http://a.test/{number}/other/{number}")])
            assert shapes.of(1, "http://a.test/x/1")[0] is first
            shapes.flush(connection)
            assert len(shapes._known) == 3
            shapes.load(connection, [(1, "a.test", "http://a.test/x/1")])
            assert shapes.of(1, "http://a.test/x/1")[0].sent == 7

        database.write_now(work)


def test_addresses_are_folded_to_shapes() -> None:
    assert shapes_of("http://a.test/calendar/2026/11")[:2] == ("/calendar/#", "/calendar/")
    assert shapes_of("http://a.test/shop?size=4&color=red")[:2] == ("/shop?color&size", "/shop?")
    assert shapes_of("http://a.test/s/0123456789abcdef/x")[0] == "/s/*/x"
    assert shapes_of("http://a.test/")[-1] == ""
    assert shapes_of("http://a.test/item17.html")[0] == "/item#.html"


@pytest.mark.parametrize(
    ("path", "is_growing"),
    [
        ("/a/b/c/d", False),
        ("/a/b/a/b/a/b", True),
        ("/more/more/more", True),
        ("/2026/11/11/11/11", False),
        ("/" + "/".join("abcdefghijklmnopqrstuvwxyz"), True),
        ("/", False),
    ],
)
def test_paths_that_grow_are_known_by_their_segments(path: str, is_growing: bool) -> None:
    assert grows(f"http://a.test{path}") is is_growing


def test_the_sitemaps_of_a_host_that_a_link_leads_to_are_all_read_at_once(tmp_path: Path) -> None:
    maps = [f"http://b.test/map-{number}.xml" for number in range(20)]

    def site(url: str) -> Answered:
        if url == "http://a.test/":
            return Answered("start", ["http://b.test/"])
        if url == "http://b.test/robots.txt":
            return Answered(body="Sitemap: http://b.test/index.xml")
        if url == "http://b.test/index.xml":
            return Answered(links=maps)
        return Answered() if url in (*maps, "http://b.test/") else MISSING

    with Database(f"sqlite:///{tmp_path / 'crawl.sqlite3'}") as database:
        world = World(database, site)
        world.add("http://a.test/")
        world.run(30.0)
        assert {url for url in world.requests() if "/map-" in url} == set(maps)


def test_a_page_that_was_judged_counts_no_more_when_a_crawler_dies_with_it(tmp_path: Path) -> None:
    def counted(database: Database) -> list[tuple[int, int]]:
        return database.read_now(
            lambda connection: [
                (int(sent), int(answered))
                for sent, answered in connection.exec_driver_sql("SELECT sent, answered FROM crawl_shapes")
            ]
        )

    with Database(f"sqlite:///{tmp_path / 'crawl.sqlite3'}") as database:
        world = World(database, lambda url: MISSING if url.endswith("robots.txt") else Answered("start"))
        world.add("http://a.test/", recrawl=3600.0)
        world.run(1800.0)
        before = counted(database)
        world.dies = lambda: True
        world.run(2 * 3600.0)
        assert counted(database) == before == [(1, 1), (1, 1)]


def test_many_hosts_do_not_wait_for_answers_of_each_other(tmp_path: Path) -> None:
    def site(url: str) -> Answered:
        links = [urljoin(url, f"/{number}") for number in range(15)]
        return MISSING if url.endswith("robots.txt") else Answered(words(url), links)

    with Database(f"sqlite:///{tmp_path / 'crawl.sqlite3'}") as database:
        world = World(database, site, crawlers=300)
        world.add(*(f"http://h{number}.test/" for number in range(300)), delay=0.1)
        world.run(seconds=traps.PATIENCE / 2)
    assert set(Counter(urlsplit(url).hostname for _, url in world.log).values()) == {17}
