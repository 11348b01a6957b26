"""The store of done keys, in SQLite or PostgreSQL."""

from __future__ import annotations

import time
from typing import Any, Final

import sqlalchemy as sa

from rabbitry.flow._stores.once_claim import Claim, kept
from rabbitry.flow._stores.sql import Tables, purge

_PURGED_EACH: Final = 100
"""One of so many claims deletes keys whose window is over, more than came since."""

_metadata = sa.MetaData()
_once = sa.Table(
    "rabbitry_once",
    _metadata,
    sa.Column("scope", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("owner", sa.Text, nullable=False),  # the id of the message that has claimed the key
    sa.Column("run", sa.Text, nullable=False),
    sa.Column("lease", sa.Float),  # until when the claim holds; NULL if the key is done
    sa.Column("kept_until", sa.Float, nullable=False, index=True),
)


class SqlStore:
    """See `OnceStore`."""

    def __init__(self, url: str, scope: str, window: float) -> None:
        self._scope = scope
        self._window = window
        self._tables = Tables(url, "the store of done keys", _metadata)
        self._claims = 0

    def claim(self, key: str, owner: str, run: str, lease: float, *, keeps_owner: bool = False) -> Claim:
        """See `OnceStore`."""
        now = time.time()
        claimed: dict[str, Any] = {
            "owner": owner,
            "run": run,
            "lease": now + lease,
            "kept_until": now + max(lease, self._window),
        }
        with self._tables.transaction() as transaction:
            self._purge(transaction, now)
            values = {"scope": self._scope, "key": kept(key), **claimed}
            insert = self._tables.insert(_once).values(values).on_conflict_do_nothing().returning(_once.c.key)
            row = None
            while row is None:  # PostgreSQL: another transaction may delete the row between the two statements
                if transaction.execute(insert).first() is not None:
                    return Claim("mine", owner)
                row = transaction.execute(sa.select(_once).where(self._is(key)).with_for_update()).first()
            if row.kept_until >= now:
                if row.lease is None:
                    return Claim("done", row.owner)
                if row.lease >= now and (row.owner != owner or row.run == run):
                    return Claim("busy", row.owner)
                if keeps_owner:
                    claimed["owner"] = row.owner
            transaction.execute(sa.update(_once).where(self._is(key)).values(claimed))
            return Claim("mine", claimed["owner"])

    def done(self, key: str, owner: str) -> None:
        """See `OnceStore`."""
        done = {"owner": owner, "run": "", "lease": None, "kept_until": time.time() + self._window}
        values = {"scope": self._scope, "key": kept(key), **done}
        with self._tables.transaction() as transaction:
            insert = self._tables.insert(_once).values(values)
            transaction.execute(insert.on_conflict_do_update(index_elements=["scope", "key"], set_=done))

    def hold(self, key: str, owner: str, run: str) -> None:
        """See `OnceStore`."""
        until = time.time() + self._window
        with self._tables.transaction() as transaction:
            claimed = sa.update(_once).where(self._is_claim(key, owner, run))
            transaction.execute(claimed.values(lease=until, kept_until=until))

    def release(self, key: str, owner: str, run: str) -> None:
        """See `OnceStore`."""
        with self._tables.transaction() as transaction:
            transaction.execute(sa.delete(_once).where(self._is_claim(key, owner, run)))

    def close(self) -> None:
        """Close the connections."""
        self._tables.close()

    def _is(self, key: str) -> sa.ColumnElement[bool]:
        return (_once.c.scope == self._scope) & (_once.c.key == kept(key))

    def _is_claim(self, key: str, owner: str, run: str) -> sa.ColumnElement[bool]:
        return self._is(key) & (_once.c.owner == owner) & (_once.c.run == run) & _once.c.lease.is_not(None)

    def _purge(self, transaction: sa.Connection, now: float) -> None:
        if self._claims % _PURGED_EACH == 0:
            purge(transaction, _once, now)
        self._claims += 1
