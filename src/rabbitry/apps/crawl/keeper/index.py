"""The index: documents and the pages that they were made from; for each address its latest fetch.

All functions are idempotent: a repeated message changes nothing, nor does one that is older than the stored data. They
work on sets of rows within the caller's transaction.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple, TypeVar

import msgspec
import zstandard
from sqlalchemy import Connection, TextClause, bindparam
from sqlalchemy import text as sql

from rabbitry.apps.crawl.keeper import sets
from rabbitry.apps.crawl.keeper.index_text import SEARCHED, clean, host_words, plain_words, spaced, within_vector
from rabbitry.apps.crawl.keeper.inputs import Page
from rabbitry.apps.crawl.messages import Document

T = TypeVar("T")
_AT_ONCE: Final = 1_000
"""Rows in one statement."""
LONGEST_TEXT: Final = 8_000_000
LONGEST_TITLE: Final = 2_000
"""Characters stored. Processors read pages of up to 4 MB; other programs may send anything."""
_MOST_KEYWORDS: Final = 100
_LONGEST_KEYWORD: Final = 200


class Data(msgspec.Struct, frozen=True, omit_defaults=True):
    """The parts of a document that are stored, but neither searched nor sorted."""

    final_url: str = ""
    language: str = ""
    encoding: str = ""
    keywords: list[str] = []
    links: int = 0
    canonical: str | None = None
    fingerprint: int = 0
    crawler: str = ""
    processor: str = ""
    is_spaced: bool = False
    """Whether the words were stored with `spaced`, and must be removed like that."""


decode_data: Final = msgspec.json.Decoder(Data).decode


class _Row(NamedTuple):
    id: int
    gone_at: float
    document_at: float | None


# -- changing --------------------------------------------------------------------------------------------


def store(connection: Connection, documents: Iterable[Document]) -> None:
    """Store documents in the index, replacing older ones of the same addresses.

    A document changes nothing if its page was fetched before the stored one, or before its address was removed. The
    caller leaves out documents of sitemaps and those with a problem, which have no text.
    """
    latest: dict[bytes, Document] = {}
    for document in documents:
        key = _key(document.url)
        known = latest.get(key)
        if known is None or fetched_at(document) > fetched_at(known):
            latest[key] = document
    for some in _parts(list(latest.items())):
        _store(connection, dict(some))


def _store(connection: Connection, latest: dict[bytes, Document]) -> None:
    rows = _rows(connection, {key: document.url for key, document in latest.items()})
    wanted = sorted(
        (row.id, latest[key], row.document_at is not None)
        for key, row in rows.items()
        if fetched_at(latest[key]) > max(row.gone_at, row.document_at or 0.0)
    )
    if not wanted:
        return
    _forget_words(connection, [identity for identity, _, is_known in wanted if is_known])
    compress = zstandard.ZstdCompressor(level=1).compress
    encode = msgspec.json.Encoder().encode
    is_sqlite = connection.dialect.name == "sqlite"
    values: list[tuple[object, ...]] = []
    words: list[tuple[int, str, str, str]] = []
    for identity, document, _ in wanted:
        title, text = clean(document.title[:LONGEST_TITLE]), clean(document.text[:LONGEST_TEXT])
        encoded = text.encode()
        hosts = host_words(clean(document.url))  # as stored: removing the words needs the same address
        searched = spaced(title), spaced(text[:SEARCHED])
        is_spaced = searched != (title, text[:SEARCHED])
        data = clean(encode(_data(document, is_spaced=is_spaced)).decode())
        row = (identity, fetched_at(document), document.status, title, compress(encoded), len(encoded), data)
        if is_sqlite:
            values.append(row)
            words.append((identity, *searched, hosts))
        else:
            values.append((*row, plain_words(searched[0]), within_vector(plain_words(searched[1])), hosts))
    sets.change_many(connection, _PUT_SQLITE if is_sqlite else _PUT_POSTGRESQL, values)
    if is_sqlite:
        sets.change_many(connection, _PUT_WORDS, words)


def store_pages(connection: Connection, pages: Iterable[Page]) -> None:
    """Store pages' bodies, replacing older ones of the same addresses; an older page changes nothing."""
    latest: dict[bytes, Page] = {}
    for page in pages:
        key = _key(page.url)
        known = latest.get(key)
        if known is None or page.fetched_at > known.fetched_at:
            latest[key] = page
    encode = msgspec.json.Encoder().encode
    for some in _parts(list(latest.items())):
        rows = _rows(connection, {key: page.url for key, page in some})
        values = [
            (rows[key].id, page.fetched_at, clean(page.content_type), clean(encode(page.headers).decode()), page.body)
            for key, page in some
            if page.fetched_at > rows[key].gone_at
        ]
        sets.change_many(connection, _PUT_BODY, values)


def remove(connection: Connection, gone: Mapping[str, float]) -> None:
    """Remove addresses from the index: they are gone, or ask not to be indexed.

    gone: when that was detected, for a document `fetched_at(document)`. Later fetches stay; earlier ones that come late
    stay out.
    """
    for some in _parts([(_key(url), at) for url, at in gone.items()]):
        times = dict(some)
        older = [
            (row.id, times[key], row.document_at is not None)
            for key, row in _find(connection, list(times)).items()
            if row.gone_at < times[key] and (row.document_at or 0.0) <= times[key]
        ]
        if not older:
            continue
        ids = [identity for identity, _, _ in older]
        _forget_words(connection, [identity for identity, _, has_document in older if has_document])
        connection.execute(_DROP_DOCUMENT, {"ids": ids})
        values = [{"id": identity, "at": at} for identity, at, _ in older]
        connection.execute(_DROP_BODY, values)
        connection.execute(_SET_GONE, values)


def fetched_at(document: Document) -> float:
    """Return the time by which documents are compared; pages of other programs may have no fetch time."""
    return document.fetched_at or document.at


def count(connection: Connection) -> int:
    """Return the number of documents."""
    found: int = connection.execute(sql("SELECT count(*) FROM index_documents")).scalar_one()
    return found


# -- rows ------------------------------------------------------------------------------------------------


def _key(url: str) -> bytes:
    return hashlib.blake2b(url.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _data(document: Document, *, is_spaced: bool) -> Data:
    return Data(
        final_url=document.final_url,
        language=document.language,
        encoding=document.encoding,
        keywords=[word[:_LONGEST_KEYWORD] for word in document.keywords[:_MOST_KEYWORDS]],
        links=len(document.links) + document.cut,
        canonical=document.canonical,
        fingerprint=document.fingerprint,
        crawler=document.crawler,
        processor=document.processor,
        is_spaced=is_spaced,
    )


def _rows(connection: Connection, urls: dict[bytes, str]) -> dict[bytes, _Row]:
    """Return each address's row by its key; create missing rows."""
    rows = _find(connection, list(urls))
    new = [key for key in urls if key not in rows]
    if new:
        sets.change_many(connection, _ADD_PAGE, [(key, clean(urls[key])) for key in new])
        rows |= _find(connection, new)
    return rows


def _find(connection: Connection, keys: Sequence[bytes]) -> dict[bytes, _Row]:
    rows = sets.rows_of_keys(connection, _FIND, keys)
    return {bytes(key): _Row(identity, gone_at, document_at) for key, identity, gone_at, document_at in rows}


def _forget_words(connection: Connection, ids: Sequence[int]) -> None:
    """Remove documents' words from SQLite's index, which must be given them as they were inserted."""
    if not ids or connection.dialect.name != "sqlite":
        return
    decompress = zstandard.ZstdDecompressor().decompress
    words = []
    for row in connection.execute(_OLD_WORDS, {"ids": list(ids)}):
        searched = row.title, decompress(row.text).decode()[:SEARCHED]
        if decode_data(row.data).is_spaced:
            searched = spaced(searched[0]), spaced(searched[1])
        words.append((row.id, *searched, host_words(row.url)))
    connection.exec_driver_sql(_FORGET_WORDS, words)


def _parts(items: list[T]) -> Iterable[list[T]]:
    return (items[start : start + _AT_ONCE] for start in range(0, len(items), _AT_ONCE))


def _with(name: str, statement: str) -> TextClause:
    return sql(statement).bindparams(bindparam(name, expanding=True))


_FIND: Final = (
    "SELECT p.key, p.id, p.gone_at, d.fetched_at"
    " FROM index_pages p LEFT JOIN index_documents d ON d.id = p.id WHERE p.key IN {keys}"
)
_ADD_PAGE: Final = "INSERT INTO index_pages (key, url) VALUES (?, ?) ON CONFLICT (key) DO NOTHING"
_PUT_SQLITE: Final = (
    "INSERT INTO index_documents (id, fetched_at, status, title, text, size, data) VALUES (?, ?, ?, ?, ?, ?, ?)"
    " ON CONFLICT (id) DO UPDATE SET fetched_at = excluded.fetched_at, status = excluded.status,"
    " title = excluded.title, text = excluded.text, size = excluded.size, data = excluded.data"
)
_PUT_POSTGRESQL: Final = (
    "INSERT INTO index_documents (id, fetched_at, status, title, text, size, data, words) VALUES (?, ?, ?, ?, ?, ?, ?,"
    " setweight(to_tsvector('simple', ?::text), 'A') || setweight(to_tsvector('simple', ?::text), 'B')"
    " || setweight(to_tsvector('simple', ?::text), 'D'))"
    " ON CONFLICT (id) DO UPDATE SET fetched_at = excluded.fetched_at, status = excluded.status,"
    " title = excluded.title, text = excluded.text, size = excluded.size, data = excluded.data, words = excluded.words"
)
_PUT_WORDS: Final = "INSERT INTO index_words (rowid, title, text, hosts) VALUES (?, ?, ?, ?)"
_FORGET_WORDS: Final = "INSERT INTO index_words (index_words, rowid, title, text, hosts) VALUES ('delete', ?, ?, ?, ?)"
_OLD_WORDS: Final = _with(
    "ids",
    "SELECT d.id, d.title, d.text, d.data, p.url FROM index_documents d JOIN index_pages p ON p.id = d.id"
    " WHERE d.id IN :ids ORDER BY d.id",
)
_PUT_BODY: Final = (
    "INSERT INTO index_bodies (id, fetched_at, content_type, headers, body) VALUES (?, ?, ?, ?, ?)"
    " ON CONFLICT (id) DO UPDATE SET fetched_at = excluded.fetched_at, content_type = excluded.content_type,"
    " headers = excluded.headers, body = excluded.body WHERE excluded.fetched_at > index_bodies.fetched_at"
)
_DROP_DOCUMENT: Final = _with("ids", "DELETE FROM index_documents WHERE id IN :ids")
_DROP_BODY: Final = sql("DELETE FROM index_bodies WHERE id = :id AND fetched_at <= :at")
_SET_GONE: Final = sql("UPDATE index_pages SET gone_at = :at WHERE id = :id")
