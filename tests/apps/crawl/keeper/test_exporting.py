"""Exporting the index in bounded parts, whatever it holds."""

from functools import partial

import zstandard

from rabbitry.apps.crawl.answers import Entry
from rabbitry.apps.crawl.keeper import exporting, index
from rabbitry.apps.crawl.keeper.database import Database
from rabbitry.apps.crawl.keeper.exporting import export
from rabbitry.apps.crawl.keeper.inputs import Page
from rabbitry.apps.crawl.messages import Document


def everything(database: Database, *, bodies: bool = False) -> list[list[Entry]]:
    """Export the whole index, part by part."""
    parts = []
    after: int | None = 0
    while after is not None:
        exported = database.read_now(partial(export, after=after, bodies=bodies))
        parts.append(exported.entries)
        after = exported.after
    return parts


def document(number: int, text: str = "text", at: float = 1.0) -> Document:
    """Make a document."""
    return Document(f"http://a.example/{number}", at, "p", fetched_at=at, text=text)


def test_an_empty_index_is_one_empty_part(database: Database) -> None:
    assert everything(database) == [[]]


def test_each_document_comes_once_whatever_the_parts(database: Database) -> None:
    numbers = range(2 * exporting.AT_ONCE)
    database.write_now(partial(index.store, documents=map(document, numbers)))
    parts = everything(database)
    assert [len(part) for part in parts] == [exporting.AT_ONCE, exporting.AT_ONCE, 0]
    assert [entry.url for part in parts for entry in part] == [f"http://a.example/{number}" for number in numbers]


def test_a_part_is_bounded_by_what_the_texts_are_decompressed(database: Database) -> None:
    text = "a" * (exporting.BUDGET // 2 - 10)
    database.write_now(partial(index.store, documents=[document(number, text) for number in range(5)]))
    assert [len(part) for part in everything(database)] == [2, 2, 1]


def test_a_document_larger_than_a_part_goes_alone(database: Database) -> None:
    texts = ["small", "é" * (index.LONGEST_TEXT + 5), "small"]
    documents = [document(number, text) for number, text in enumerate(texts)]
    database.write_now(partial(index.store, documents=documents))
    parts = everything(database)
    assert [len(part) for part in parts] == [1, 1, 1]
    assert len(parts[1][0].text) == index.LONGEST_TEXT


def test_bodies_are_exported_only_on_request(database: Database) -> None:
    body = zstandard.compress(b"<p>" * 100)
    pages = [
        Page(url="http://a.example/0", fetched_at=1.0, body=body, content_type="text/html", headers={"etag": "x"}),
        Page(url="http://a.example/1", fetched_at=1.0, body=b"x" * (exporting.LARGEST_BODY + 1)),
        Page(url="http://a.example/none", fetched_at=1.0, body=body),
    ]
    database.write_now(partial(index.store, documents=map(document, range(3))))
    database.write_now(partial(index.store_pages, pages=pages))
    found = [entry for part in everything(database, bodies=True) for entry in part]
    assert [entry.body for entry in found] == [body, None, None]
    assert (found[0].headers, found[0].content_type) == ({"etag": "x"}, "text/html")
    assert all(entry.body is None for part in everything(database) for entry in part)


def test_documents_that_change_during_an_export_come_once(database: Database) -> None:
    database.write_now(partial(index.store, documents=map(document, range(4))))
    first = database.read_now(partial(export, after=0, bodies=False))
    assert first.after is None
    half = first.entries[1]
    database.write_now(partial(index.store, documents=[document(0, "new", 2.0), document(9, "more", 2.0)]))
    rest = database.read_now(partial(export, after=2, bodies=False))
    assert half.url == "http://a.example/1"
    assert [entry.url[-1] for entry in rest.entries] == ["2", "3", "9"]
