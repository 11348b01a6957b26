"""Documents that wait in the database when a transaction has no room for them."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

import rabbitry
from rabbitry import Properties
from rabbitry.apps.crawl import names
from rabbitry.apps.crawl.answers import AskStatus, Status
from rabbitry.apps.crawl.asking import Asking
from rabbitry.apps.crawl.keeper import costs
from rabbitry.apps.crawl.keeper.database import Database
from rabbitry.apps.crawl.keeper.documents import Documents
from rabbitry.apps.crawl.keeper.inputs import Asked, Page
from rabbitry.apps.crawl.keeper.keeper import Keeper
from rabbitry.apps.crawl.keeper.taking import MOST_LINKS
from rabbitry.apps.crawl.messages import Add, Document, Link, Pause
from rabbitry.exceptions import RequestTimeout
from tests.apps.crawl.keeper.simulation import MISSING, Answered, FakeIndex, World, web, words
from tests.apps.crawl.keeper.test_role import keeping
from tests.support.waiting import eventually, eventually_awaited

START = "http://a.test/"
NOW = 1_000_000.0


def sitemap(part: int, links: int = 1_000) -> Document:
    """Return a document of a long sitemap."""
    found = [Link(f"http://a.test/{part}/{number}") for number in range(links)]
    return Document(START, NOW, "p", "c", NOW, links=found, is_sitemap=True)


def page(number: int, text: str = "") -> Document:
    """Return the document of a page."""
    return Document(f"http://a.test/page/{number}", NOW, "p", "c", NOW, title=f"page {number}", text=text)


@pytest.fixture
def world(database: Database) -> World:
    """A keeper that crawls START, whose batches nobody takes."""
    found = World(database, lambda url: MISSING)
    found.send = lambda batch: None  # type: ignore[method-assign] # there is no broker
    found.add(START)
    return found


def links(world: World) -> int:
    """Return the number of known addresses except START."""
    counts = world.counts()
    return sum(counts.get(f"state:{state}", 0) for state in ("queued", "sent", "done")) - 1


async def told(asking: Asking) -> Status:
    """Return a keeper's status; empty while it does not answer questions yet."""
    try:
        return await asking.find(AskStatus(), Status)
    except RequestTimeout:
        return Status(0.0)


@pytest.mark.parametrize("limit", [1, 25, 60])
def test_a_crawl_whose_transactions_have_little_room_finds_the_same(database: Database, limit: int) -> None:
    pages = web(3, 12)
    mapped = [f"http://h0.test/p/{number}" for number in range(12)]

    def site(url: str) -> Answered:
        if url.endswith("/robots.txt"):
            return Answered(body="Sitemap: /map.xml", outcome="page")
        return Answered(links=mapped) if url.endswith("/map.xml") else pages(url)

    world = World(database, site, limit=limit)
    world.add("http://h0.test/")
    world.run()
    assert set(world.index.documents) == {
        "http://h0.test/",
        *(f"http://h{h}.test/p/{n}" for h in range(3) for n in range(12)),
    }
    assert set(world.index.documents.values()) == {1}
    assert set(world.requests().values()) == {1}
    assert world.counts().get("backlog", 0) == 0


def test_a_long_sitemap_takes_many_transactions_and_each_address_is_found_once(world: World) -> None:
    world.limit = 1_500
    inputs = [sitemap(part, 500) for part in range(16)]
    decided = world.apply(inputs)
    assert decided.taken == 16, "all of it is in the database"
    waited = []
    while world.counts().get("backlog", 0):
        waited.append(links(world))
        world.keeper = Keeper("another", world.index)  # the state in memory is not needed
        world.apply([])
    assert waited == sorted(set(waited)), "each transaction goes on"
    most = max(after - before for before, after in zip([0, *waited], waited, strict=False))
    assert most <= 1_500 + 2 * 500, "and takes no more than it has room for"
    assert links(world) == 8_000
    world.apply(inputs[:4])
    assert links(world) == 8_000


def test_a_command_among_sitemaps_is_applied_with_the_first_of_them(world: World) -> None:
    world.limit = 1_000
    decided = world.apply([*(sitemap(part, 400) for part in range(9)), Asked(Pause(), "m1"), sitemap(9, 400)])
    assert decided.answers["m1"].said == ["paused"]
    assert decided.taken == 11
    assert 0 < links(world) < 4_000


def test_one_document_with_very_many_links_is_divided(world: World) -> None:
    world.limit = 1
    world.apply([sitemap(0, 2 * MOST_LINKS + 1)])
    assert links(world) == 2 * MOST_LINKS, "one part as a new message, one as the first that waits"
    world.apply([])
    assert links(world) == 2 * MOST_LINKS + 1
    many = msgspec.structs.replace(sitemap(1, MOST_LINKS + 7), is_sitemap=False)
    world.apply([many])
    assert links(world) == 3 * MOST_LINKS + 1, "a page has no more than that"


def test_other_messages_without_room_are_left_to_the_caller(database: Database) -> None:
    keeper = Keeper("one", FakeIndex())
    inputs = [Page(url=f"http://a.test/{number}", fetched_at=NOW, body=b"zstd") for number in range(9)]
    decided = database.write_now(lambda connection: keeper.apply(connection, inputs, NOW, limit=25))
    assert 0 < decided.taken < 9
    decided = database.write_now(lambda connection: keeper.apply(connection, inputs, NOW, limit=0))
    assert decided.taken == 1, "one has room whatever it is"


def test_pages_do_not_wait_for_sitemaps_and_sitemaps_not_for_ever(world: World) -> None:
    world.limit = 1
    world.apply([sitemap(part, 10) for part in range(20)])
    world.apply([page(number) for number in range(10)])
    before = world.counts()["backlog"]
    for _ in range(8):
        world.apply([page(100)])  # new ones come first, and use all the room
    taken = before - world.counts()["backlog"]
    assert taken == 8, "one of a sitemap in each transaction"
    for _ in range(40):
        world.apply([])
    assert world.counts().get("backlog", 0) == 0
    assert len(world.index.documents) == 11


def test_no_batch_is_sent_while_very_many_pages_wait(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rabbitry.apps.crawl.keeper.keeper.MOST_WAITING", 20)
    world = World(database, lambda url: MISSING, limit=1)
    world.apply([page(number, words(number, 3)) for number in range(24)])
    assert not world.apply([Asked(Add([START], delay=0.0), "m1")]).batches
    world.limit = costs.LIMIT
    batches = [batch for _ in range(3) for batch in world.apply([]).batches]
    assert [batch.origin for batch in batches] == ["http://a.test"]
    assert len(world.index.documents) == 24


async def test_a_faulty_waiting_document_returns_to_the_broker_and_fails_alone(
    broker_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    take = Documents.take

    def fail(documents: Documents, document: Document) -> None:
        if document.url.endswith("/2"):
            raise ZeroDivisionError
        take(documents, document)

    with Database(f"sqlite:///{tmp_path / 'crawl.sqlite3'}") as database:
        world = World(database, lambda url: MISSING)
        world.limit = 1
        world.apply([page(number, words(number)) for number in range(9)])
        assert world.counts()["backlog"] == 8
    monkeypatch.setattr(Documents, "take", fail)
    async with keeping(broker_url, tmp_path), Asking(broker_url) as asking:

        async def done() -> bool:
            status = await told(asking)
            return (status.documents, status.backlog) == (7, 0)

        await eventually_awaited(done, "the others are in the index", within=60)
        # From here on it is retried like any failed message, and ends as a dead letter.
        await eventually(lambda: "stage 'keeper', attempt 1: ZeroDivisionError" in caplog.text, "it fails alone")


async def test_a_command_among_very_many_links_is_answered_and_all_links_are_found(
    broker_url: str, database_url: str, tmp_path: Path
) -> None:
    async with (
        keeping(broker_url, tmp_path, database_url),
        Asking(broker_url) as asking,
        rabbitry.connect(broker_url) as connection,
    ):
        assert not (await asking.tell(Add([START], delay=0.0))).error
        channel = await connection.channel()
        for part in range(40):
            await channel.send(
                msgspec.json.encode(sitemap(part, 500)), exchange=names.EXCHANGE, routing_key=names.KEEPER_KEY,
                properties=Properties(type="Document", content_type="application/json"),
            )  # fmt: skip
        await channel.wait_for_confirms()
        assert (await asking.tell(Pause())).said == ["paused"]

        async def done() -> bool:
            status = await told(asking)
            return (sum(status.addresses.values()), status.backlog) == (20_001, 0)

        await eventually_awaited(done, "all links are found", within=60)
