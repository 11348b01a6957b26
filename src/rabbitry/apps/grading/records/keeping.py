"""The bytes that the kept files take, as they are recorded with the submissions."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from sqlalchemy import Connection, delete, func, select

from rabbitry.apps.grading.records.schema import insert_into, kept_files, submissions

_FEW: Final = 400
"""Hashes in one statement; databases bound the parameters."""


def used(connection: Connection) -> int:
    """Return the bytes of all kept files, compressed."""
    return int(connection.execute(select(func.coalesce(func.sum(kept_files.c.packed), 0))).scalar_one())


def is_expected(connection: Connection) -> bool:
    """Return whether a submission's file was kept."""
    kept = select(submissions.c.id).where(submissions.c.sha256.is_not(None)).limit(1)
    return connection.execute(kept).first() is not None


def recorded(connection: Connection, first: str) -> set[str]:
    """Return the hashes of the files that are recorded. first: the first two digits of the hashes."""
    # A range, since SQLite searches no index for LIKE.
    mine = kept_files.c.sha256 >= first, kept_files.c.sha256 < f"{first}g"
    return {*connection.execute(select(kept_files.c.sha256).where(*mine)).scalars()}


def agree(connection: Connection, found: Mapping[str, int], gone: Collection[str]) -> None:
    """Record files that were found in their place, and no longer those that are gone.

    found: the bytes by hash. Those that are recorded stay as they are.
    """
    if found:
        rows = [{"sha256": sha256, "packed": packed} for sha256, packed in found.items()]
        connection.execute(insert_into(connection, kept_files).on_conflict_do_nothing(), rows)
    hashes = sorted(gone)
    for begin in range(0, len(hashes), _FEW):
        connection.execute(delete(kept_files).where(kept_files.c.sha256.in_(hashes[begin : begin + _FEW])))
