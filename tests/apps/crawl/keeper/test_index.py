"""The index keeps the latest fetch of each address, even if documents come twice, late or out of order."""

import random
from functools import partial

import zstandard
from sqlalchemy import Connection, text

from rabbitry.apps.crawl.keeper import index
from rabbitry.apps.crawl.keeper.database import Database
from rabbitry.apps.crawl.keeper.inputs import Page
from rabbitry.apps.crawl.keeper.searching import search
from rabbitry.apps.crawl.messages import Document

URL = "http://www.example.org/a"


def document(at: float, words: str, url: str = URL, title: str = "") -> Document:
    """Make a document of a page fetched at a time."""
    return Document(url, at + 1, "b2", "c1", at, title=title, text=words)


def page(at: float, what: bytes, url: str = URL) -> Page:
    """Make a page as a crawler publishes it."""
    return Page(url=url, fetched_at=at, content_type="text/html", body=zstandard.compress(what))


def put(database: Database, *documents: Document) -> None:
    """Store documents in a transaction."""
    database.write_now(partial(index.store, documents=documents))


def urls(database: Database, words: str) -> list[str]:
    """Return the addresses that a search finds, best first."""
    return [hit.url for hit in database.read_now(partial(search, typed=words)).hits]


def test_a_later_document_replaces_an_earlier_one_and_its_words(database: Database) -> None:
    put(database, document(10, "apples and pears"))
    put(database, document(20, "plums"))
    assert urls(database, "apples") == []
    assert urls(database, "plums") == [URL]
    assert database.read_now(index.count) == 1


def test_a_text_of_very_many_long_words_is_stored(database: Database) -> None:
    chance = random.Random(1)
    letters = [chr(code) for code in range(0xAC00, 0xD7A4)]  # of Korean, each of up to three in normal form
    words = ["".join(chance.choices(letters, k=4)) for _ in range(40_000)]
    put(database, document(10, " ".join(words)))
    assert urls(database, words[0]) == [URL]


def test_an_older_document_that_comes_late_changes_nothing(database: Database) -> None:
    put(database, document(20, "plums"))
    put(database, document(10, "apples"), document(20, "cherries"))
    assert (urls(database, "apples"), urls(database, "cherries"), urls(database, "plums")) == ([], [], [URL])


def test_of_one_transaction_the_latest_document_stays(database: Database) -> None:
    put(database, document(20, "plums"), document(30, "cherries"), document(10, "apples"))
    assert (urls(database, "plums"), urls(database, "cherries")) == ([], [URL])


def test_a_removed_document_stays_away_until_a_later_fetch(database: Database) -> None:
    put(database, document(10, "apples"), document(10, "apples too", "http://example.org/b"))
    database.write_now(partial(index.store_pages, pages=[page(10, b"<p>apples")]))
    database.write_now(partial(index.remove, gone={URL: 20.0, "http://nobody.example/": 20.0}))
    assert urls(database, "apples") == ["http://example.org/b"]
    put(database, document(15, "late apples"), document(20, "the same apples"))
    database.write_now(partial(index.store_pages, pages=[page(15, b"late")]))
    assert urls(database, "apples") == ["http://example.org/b"]
    assert database.read_now(_bodies) == []
    put(database, document(21, "new apples"))
    assert urls(database, "new") == [URL]


def test_a_removal_older_than_the_document_changes_nothing(database: Database) -> None:
    put(database, document(20, "plums"))
    database.write_now(partial(index.remove, gone={URL: 19.0}))
    assert urls(database, "plums") == [URL]


def test_a_page_that_was_fetched_after_the_removal_is_kept(database: Database) -> None:
    database.write_now(partial(index.store_pages, pages=[page(30, b"new")]))
    database.write_now(partial(index.remove, gone={URL: 20.0}))
    assert database.read_now(_bodies) == [b"new"]


def test_the_latest_body_is_kept_whatever_the_order(database: Database) -> None:
    for times in ((10, 30), (20,), (30,)):
        pages = [page(at, b"%d" % at) for at in times]
        database.write_now(partial(index.store_pages, pages=pages))
    assert database.read_now(_bodies) == [b"30"]


def test_text_is_stored_without_characters_that_databases_refuse(database: Database) -> None:
    put(database, document(10, "zero\0one \ud800 \U0001f600 two", title="\0title"))
    assert urls(database, "zero one two title") == [URL]
    put(database, document(20, "plums"))
    assert urls(database, "zero") == []


def test_a_text_of_megabytes_is_found_by_its_beginning(database: Database) -> None:
    many = " ".join(chr(0x20000 + number) for number in range(40_000)) * 30
    for at in (10.0, 20.0):
        put(database, document(at, f"start {at:g} {many}", title="word " * 100_000))
    assert urls(database, "start 20") == [URL]
    assert urls(database, "start 10") == []


def test_a_document_without_an_address_or_with_none_that_parses_costs_nothing(database: Database) -> None:
    put(database, document(10, "first", ""), document(10, "second", "http://[::"), document(10, "third", "a\0b"))
    assert urls(database, "second") == ["http://[::"]


def test_the_host_of_an_odd_address_is_taken_out_as_it_was_put_in(database: Database) -> None:
    odd = ["http://a\0b.example/", "http://\ud800.example/", "http://\u00c4.example:1/", "http://A..example/\ud800"]
    put(database, *(document(10, "apples", url) for url in odd))
    assert len(urls(database, "site:example")) == len(odd)
    put(database, *(document(20, "pears", url) for url in odd))
    assert urls(database, "apples site:example") == []
    database.write_now(partial(index.remove, gone=dict.fromkeys(odd, 30.0)))
    assert database.read_now(partial(search, typed="site:example")).total == 0


def test_the_words_are_those_of_the_latest_documents_after_a_thousand_changes(database: Database) -> None:
    chance = random.Random(7)
    latest: dict[str, tuple[float, str]] = {}
    for _ in range(40):
        some = []
        for _ in range(25):
            url = f"http://h{chance.randrange(5)}.example/{chance.randrange(30)}"
            at, word = float(chance.randrange(1, 100)), f"w{chance.randrange(10)}"
            some.append(document(at, word, url))
            if at > latest.get(url, (0.0, ""))[0]:
                latest[url] = (at, word)
        put(database, *some)
    for number in range(10):
        found = database.read_now(partial(search, typed=f"w{number}", limit=100))
        assert {hit.url for hit in found.hits} == {url for url, (_, word) in latest.items() if word == f"w{number}"}
    assert database.read_now(index.count) == len(latest)
    database.write_now(partial(index.remove, gone=dict.fromkeys(latest, 1_000.0)))
    assert all(urls(database, f"w{number}") == [] for number in range(10))
    if "sqlite" in str(database):
        database.write_now(_check_words)


def _bodies(connection: Connection) -> list[bytes]:
    return [zstandard.decompress(row[0]) for row in connection.execute(text("SELECT body FROM index_bodies"))]


def _check_words(connection: Connection) -> None:
    connection.exec_driver_sql("INSERT INTO index_words (index_words) VALUES ('integrity-check')")
