"""The tables of the index, for SQLite and PostgreSQL.

index_pages: one row for each address that has or had a document or a body. key: a hash of the address. gone_at: when it
was removed, so that an older document that comes late stays out.
index_documents: the data extracted from the page. text: zstd; size: its uncompressed bytes. data: JSON of the fields
that are neither searched nor sorted.
index_bodies: the body that the server sent, zstd.
index_words: title, text and hosts as words. SQLite: a contentless FTS5 table, because index_documents stores the text
compressed. PostgreSQL: a column with a GIN index.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection

_SQLITE: Final = (
    "CREATE TABLE index_pages (id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, url TEXT NOT NULL,"
    " gone_at REAL NOT NULL DEFAULT 0)",
    "CREATE TABLE index_documents (id INTEGER PRIMARY KEY, fetched_at REAL NOT NULL, status INTEGER NOT NULL,"
    " title TEXT NOT NULL, text BLOB NOT NULL, size INTEGER NOT NULL, data TEXT NOT NULL)",
    # Counting reads this index, which has a hundredth of the table's size.
    "CREATE INDEX index_documents_fetched ON index_documents (fetched_at)",
    "CREATE TABLE index_bodies (id INTEGER PRIMARY KEY, fetched_at REAL NOT NULL, content_type TEXT NOT NULL,"
    " headers TEXT NOT NULL, body BLOB NOT NULL)",
    "CREATE VIRTUAL TABLE index_words USING fts5 (title, text, hosts, content='',"
    ' tokenize="unicode61 remove_diacritics 2")',
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
    """Create the tables of the index; called by the schema's migration."""
    for statement in _SQLITE if connection.dialect.name == "sqlite" else _POSTGRESQL:
        connection.exec_driver_sql(statement)
