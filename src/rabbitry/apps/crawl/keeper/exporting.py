"""Reading the index from beginning to end, a few documents at a time."""

from __future__ import annotations

from typing import Any, Final

import msgspec
import zstandard
from sqlalchemy import BindParameter, Connection, bindparam
from sqlalchemy import text as sql

from rabbitry.apps.crawl.answers import Entry, Exported
from rabbitry.apps.crawl.keeper import index

AT_ONCE: Final = 200
"""Documents in one answer."""
BUDGET: Final = 4_000_000
"""Bytes of one answer; a single document may exceed it."""
LARGEST_BODY: Final = 16_000_000
"""Bytes of a page, compressed. Crawlers send no larger ones."""


def export(connection: Connection, after: int, *, bodies: bool) -> Exported:
    """Return the documents after a cursor, in its order; documents changed meanwhile keep their place.

    after: 0 at first. Only the first answer counts the documents.
    """
    sizes = connection.execute(_SIZES, {"after": after, "most": AT_ONCE}).all()
    ids: list[int] = []
    total = 0
    for row in sizes:
        total += row.text + (row.body * 4 // 3 if bodies else 0)  # JSON has bodies in base64
        if ids and total > BUDGET:
            break
        ids.append(row.id)
    count = index.count(connection) if after == 0 else 0
    if not ids:
        return Exported([], None, count)
    rows = connection.execute(_WITH_BODIES if bodies else _WITHOUT, {"ids": ids})
    is_end = len(ids) == len(sizes) < AT_ONCE
    return Exported([_entry(row) for row in rows], None if is_end else ids[-1], count)


def _entry(row: Any) -> Entry:
    data = index.decode_data(row.data)
    text = zstandard.ZstdDecompressor().decompress(row.text).decode()
    return Entry(
        url=row.url,
        final_url=data.final_url or row.url,
        title=row.title,
        status=row.status,
        fetched_at=row.fetched_at,
        text=text,
        language=data.language,
        encoding=data.encoding,
        content_type=row.content_type or "",
        keywords=data.keywords,
        links=data.links,
        canonical=data.canonical,
        fingerprint=data.fingerprint,
        crawler=data.crawler,
        processor=data.processor,
        headers=_decode_headers(row.headers) if row.headers else {},
        body=None if row.body is None else bytes(row.body),
    )


_decode_headers: Final = msgspec.json.Decoder(dict[str, str]).decode
_SIZES: Final = sql(
    "SELECT d.id, d.size AS text, coalesce(length(b.body), 0) AS body"
    " FROM index_documents d LEFT JOIN index_bodies b ON b.id = d.id WHERE d.id > :after ORDER BY d.id LIMIT :most"
)
_COLUMNS: Final = "SELECT d.id, p.url, d.title, d.status, d.fetched_at, d.text, d.data, b.content_type"
_TABLES: Final = (
    " FROM index_documents d JOIN index_pages p ON p.id = d.id LEFT JOIN index_bodies b ON b.id = d.id"
    " WHERE d.id IN :ids ORDER BY d.id"
)
_IDS: Final[BindParameter[int]] = bindparam("ids", expanding=True)
_WITHOUT: Final = sql(f"{_COLUMNS}, NULL AS headers, NULL AS body {_TABLES}").bindparams(_IDS)
_WITH_BODIES: Final = sql(
    f"{_COLUMNS}, b.headers, CASE WHEN length(b.body) <= {LARGEST_BODY} THEN b.body END AS body {_TABLES}"
).bindparams(_IDS)
