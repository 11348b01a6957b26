"""Documents that wait in the database because a transaction had no room for them.

The document of a sitemap may have a thousand new links, and hundreds of such documents arrive at once. The keeper
still takes them from the broker, because reports and commands come over the same queue and would wait behind them.
Documents of pages and of sitemaps wait separately, so that a site with millions of addresses does not delay the pages
of others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
import zstandard
from sqlalchemy import Connection

from rabbitry.apps.crawl.keeper import sets
from rabbitry.apps.crawl.messages import Document

AT_ONCE: Final = 8
"""Documents read together."""

_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Document).decode


class Backlog:
    """The waiting documents of one kind. Its memory can be read again from the database."""

    def __init__(self, *, of_sitemaps: bool) -> None:
        """Create it, empty. of_sitemaps: whether it holds the documents of sitemaps, or those of pages."""
        self._of_sitemaps = int(of_sitemaps)
        self._last = 0
        """The newest row."""
        self._done = 0
        """All rows up to this one are removed."""

    def load(self, connection: Connection) -> None:
        """Read the range of rows."""
        statement = "SELECT min(id) AS first, max(id) AS last FROM crawl_backlog WHERE of_sitemaps = ?"
        row = sets.rows(connection, statement, self._of_sitemaps)[0]
        if row.first is not None:
            self._done, self._last = row.first - 1, row.last

    def __len__(self) -> int:
        """Return the number of waiting documents."""
        return self._last - self._done

    def put(self, connection: Connection, documents: Sequence[Document]) -> None:
        """Append documents to the backlog."""
        compress = zstandard.ZstdCompressor(level=1).compress
        values = [
            (self._of_sitemaps, self._last + place, compress(_encode(one))) for place, one in enumerate(documents, 1)
        ]
        sets.change_many(connection, "INSERT INTO crawl_backlog (of_sitemaps, id, document) VALUES (?, ?, ?)", values)
        self._last += len(values)

    def first(self, connection: Connection, most: int = AT_ONCE) -> list[Document]:
        """Return the documents that have waited longest."""
        found = sets.rows(
            connection,
            "SELECT document FROM crawl_backlog WHERE of_sitemaps = ? AND id > ? ORDER BY id LIMIT ?",
            self._of_sitemaps,
            self._done,
            most,
        )
        decompress = zstandard.ZstdDecompressor().decompress
        return [_decode(decompress(row.document)) for row in found]

    def remove(self, connection: Connection, count: int) -> None:
        """Remove that many documents, those that have waited longest."""
        done = self._done + count
        sets.change(
            connection,
            "DELETE FROM crawl_backlog WHERE of_sitemaps = ? AND id > ? AND id <= ?",
            self._of_sitemaps,
            self._done,
            done,
        )
        self._done = done
