"""Reading a store's records (exchanges, queues, bindings, users, policies) with their checksums."""

from __future__ import annotations

import struct
from sqlite3 import Connection

from rabbitry.amqp.protocol.tables import Table, decode_table
from rabbitry.broker._store.batch import Unusable
from rabbitry.broker._store.mark import IDENTITY
from rabbitry.broker._store.schema import record_checksum
from rabbitry.exceptions import RabbitryError


def read_records(connection: Connection) -> tuple[dict[tuple[str, str], Table], list[Unusable]]:
    """Return the records by kind and key, and the unusable ones."""
    records: dict[tuple[str, str], Table] = {}
    damaged: list[Unusable] = []
    for kind, key, value, crc in connection.execute("SELECT kind, key, value, crc FROM records"):
        if (kind, key) == IDENTITY:
            continue
        if not isinstance(value, bytes) or record_checksum(str(kind), str(key), value) != crc:
            damaged.append(Unusable(str(kind), str(key), "its checksum is wrong"))
            continue
        try:
            records[kind, key] = decode_table(value)[0]
        except (RabbitryError, ValueError, IndexError, struct.error) as error:
            damaged.append(Unusable(kind, key, str(error)))
    return records, damaged
