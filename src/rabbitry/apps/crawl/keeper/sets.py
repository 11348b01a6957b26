"""SQL statements over sets of rows, written once for SQLite and PostgreSQL.

Statements have `?` for a parameter, and `{set}` for a set of 64-bit numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

import msgspec
from sqlalchemy import Connection, Row

_encode = msgspec.json.Encoder().encode


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
        return statement.replace("{set}", "(SELECT value FROM json_each(?))")
    return statement.replace("?", "%s").replace("{set}", "(SELECT unnest(%s::bigint[]))")
