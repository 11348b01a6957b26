"""SQL statements over sets of rows, written once for SQLite and PostgreSQL.

Statements have `?` for a parameter, `{set}` for a set of 64-bit numbers, and `{keys}` for a set of bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Row

_encode = msgspec.json.Encoder().encode
_KEYS: Final = 64
"""Keys of one statement for SQLite, which has no arrays: with the same number each time, it is prepared once."""


def rows(connection: Connection, statement: str, *values: object) -> Sequence[Row[*tuple[Any, ...]]]:
    """Return the rows of a query."""
    return connection.exec_driver_sql(_written(statement, connection.dialect.name), values).all()


def rows_among(connection: Connection, statement: str, numbers: Iterable[int]) -> Sequence[Row[*tuple[Any, ...]]]:
    """Return the rows of a query with a set."""
    wanted = sorted(numbers)
    if not wanted:
        return []
    is_sqlite = connection.dialect.name == "sqlite"
    value: object = _encode(wanted).decode() if is_sqlite else wanted
    return connection.exec_driver_sql(_written(statement, connection.dialect.name), (value,)).all()


def rows_of_keys(connection: Connection, statement: str, keys: Sequence[bytes]) -> list[Row[*tuple[Any, ...]]]:
    """Return the rows of a query with a set of bytes."""
    written = _written(statement, connection.dialect.name)
    if connection.dialect.name != "sqlite":
        return list(connection.exec_driver_sql(written, (list(keys),)).all()) if keys else []
    found: list[Row[*tuple[Any, ...]]] = []
    for start in range(0, len(keys), _KEYS):
        some = tuple(keys[start : start + _KEYS])
        found += connection.exec_driver_sql(written, some + some[:1] * (_KEYS - len(some))).all()
    return found


def change(connection: Connection, statement: str, *values: object) -> int:
    """Change rows; return their number."""
    return connection.exec_driver_sql(_written(statement, connection.dialect.name), values).rowcount


def change_many(connection: Connection, statement: str, values: Sequence[tuple[object, ...]]) -> None:
    """Change rows with one statement for each tuple of values; the driver sends them together."""
    if values:
        connection.exec_driver_sql(_written(statement, connection.dialect.name), list(values))


@lru_cache(200)
def _written(statement: str, dialect: str) -> str:
    if dialect == "sqlite":
        keys = f"({', '.join('?' * _KEYS)})"
        return statement.replace("{set}", "(SELECT value FROM json_each(?))").replace("{keys}", keys)
    written = statement.replace("?", "%s").replace("{set}", "(SELECT unnest(%s::bigint[]))")
    return written.replace("{keys}", "(SELECT unnest(%s::bytea[]))")
