"""The tables of the index, for SQLite and PostgreSQL.

index_pages: one row for each address that has a document, a body, or had one. key: a hash of the address. gone_at: when
it was removed, so that an older document that comes late stays out.
index_documents: what was made of the page. text: zstd; size: its bytes before. data: JSON of what is neither searched
nor sorted.
index_bodies: what the server sent, zstd.
index_words: title, text and hosts as words. SQLite: FTS5 without a content of its own, since index_documents keeps the
text compressed. PostgreSQL: a column with a GIN index.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection

_SQLITE: Final = (
    "CREATE TABLE index_pages (id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, url TEXT NOT NULL,"
    " gone_at REAL NOT NULL DEFAULT 0)",
    "CREATE TABLE index_documents (id INTEGER PRIMARY KEY, fetched_at REAL NOT NULL, status INTEGER NOT NULL,"
    " title TEXT NOT NULL, text BLOB NOT NULL, size INTEGER NOT NULL, data TEXT NOT NULL)",
    # Counting walks this index, which is a hundredth of the table.
    "CREATE INDEX index_documents_fetched ON index_documents (fetched_at)",
    "CREATE TABLE index_bodies (id INTEGER PRIMARY KEY, fetched_at REAL NOT NULL, content_type TEXT NOT NULL,"
    " headers TEXT NOT NULL, body BLOB NOT NULL)",
    "CREATE VIRTUAL TABLE index_words USING fts5 (title, text, hosts, content='',"
    ' tokenize="unicode61 remove_diacritics 2")',
    # Segments of the same age that are merged at once. With 4, the default, a document of 47,000 letters costs a
    # quarter more CPU, since its words are written more often. A search costs the same with both (`make bench-crawl`).
    "INSERT INTO index_words (index_words, rank) VALUES ('automerge', 8)",
)
_POSTGRESQL: Final = (
    "CREATE TABLE index_pages (id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, key BYTEA NOT NULL UNIQUE,"
    " url TEXT NOT NULL, gone_at DOUBLE PRECISION NOT NULL DEFAULT 0)",
    "CREATE TABLE index_documents (id BIGINT PRIMARY KEY, fetched_at DOUBLE PRECISION NOT NULL,"
    " status INTEGER NOT NULL, title TEXT NOT NULL, text BYTEA NOT NULL, size INTEGER NOT NULL, data TEXT NOT NULL,"
    " words TSVECTOR NOT NULL)",
    "CREATE INDEX index_documents_fetched ON index_documents (fetched_at)",
    "CREATE INDEX index_documents_words ON index_documents USING GIN (words)",
    "CREATE TABLE index_bodies (id BIGINT PRIMARY KEY, fetched_at DOUBLE PRECISION NOT NULL,"
    " content_type TEXT NOT NULL, headers TEXT NOT NULL, body BYTEA NOT NULL)",
)


def create(connection: Connection) -> None:
    """Create the tables of the index; the migration that makes the schema calls this."""
    for statement in _SQLITE if connection.dialect.name == "sqlite" else _POSTGRESQL:
        connection.exec_driver_sql(statement)
