"""The schema of the store, and the checksums of its records."""

from __future__ import annotations

import struct
from typing import Final
from urllib.parse import quote
from zlib import crc32

VERSION: Final = 2
APPLICATION: Final = 0x57415252
"""SQLite's application_id for Rabbitry's store, by which `file` recognizes it too."""
IN_USE: Final = 0
COMPLETE: Final = 1
INCOMPLETE: Final = 2
"""States of a store: in use, or left by a crash; closed in order; closed in order without some of the last changes."""
SHARED: Final = 4
"""Bit of an entry's flags: other entries refer to its body too."""
BODY_KEY: Final = struct.Struct(">Q")
ENTRY_KEY: Final = struct.Struct(">QHQQdQ")


def record_key(*parts: str) -> str:
    """Join names into a record's key; names may be any bytes (see decode_text)."""
    return "/".join(quote(part, safe="", errors="surrogateescape") for part in parts)


def record_checksum(kind: str, key: str, value: bytes) -> int:
    """Return the checksum of a record."""
    return crc32(value, crc32(f"{kind}/{key}".encode()))


SCHEMA: Final = """
CREATE TABLE records (kind TEXT, key TEXT, value BLOB, crc INTEGER, PRIMARY KEY (kind, key)) WITHOUT ROWID;
CREATE TABLE bodies (id INTEGER PRIMARY KEY, refs INTEGER, content BLOB, crc INTEGER);
CREATE TABLE entries (
    queue INTEGER, priority INTEGER, position INTEGER, body INTEGER, flags INTEGER, expires REAL, size INTEGER,
    crc INTEGER, PRIMARY KEY (queue, priority, position)) WITHOUT ROWID;
CREATE TABLE state (clean INTEGER);
INSERT INTO state VALUES (1);
"""
FROM_VERSION_1: Final = """
ALTER TABLE bodies RENAME TO old;
CREATE TABLE bodies (id INTEGER PRIMARY KEY, refs INTEGER, content BLOB, crc INTEGER);
INSERT INTO bodies SELECT id, refs, CAST(destination || header || body AS BLOB), crc FROM old;
DROP TABLE old;
"""
"""Version 1 had three columns for the content, which is one now; its checksum is that of all three."""
