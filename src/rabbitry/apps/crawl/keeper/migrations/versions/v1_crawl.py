"""The first tables. Times are Unix timestamps. Outcomes are stored as numbers (`outcomes.py`)."""

from __future__ import annotations

import secrets

import sqlalchemy as sa
from alembic import op

from rabbitry.apps.crawl.keeper import index_tables

revision = "1"
down_revision = None
branch_labels = None
depends_on = None

_LARGE = sa.BigInteger().with_variant(sa.Integer, "sqlite")
"""64 bits; in SQLite it is the row id if it is the primary key."""


def _number(name: str, default: int | None = 0) -> sa.Column[int]:
    return sa.Column(name, _LARGE, nullable=default is None, server_default=None if default is None else str(default))


def _real(name: str, default: float | None = 0) -> sa.Column[float]:
    # Double precision: the 24 bits of a PostgreSQL `real` resolve today's timestamps to two minutes.
    return sa.Column(
        name, sa.Double, nullable=default is None, server_default=None if default is None else str(default)
    )


def _text(name: str, default: str | None = "") -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=default is None, server_default=default)


def upgrade() -> None:
    """Create the tables."""
    _create_crawls()
    _create_hosts()
    _create_addresses()
    _create_batches()
    _create_traps()
    _create_counters()
    index_tables.create(op.get_bind())


def _create_crawls() -> None:
    # The active keeper: a keeper that becomes active raises the epoch, and each transaction of the previous one fails.
    # crawl: a random id; the ids of batches begin with it, so that a keeper recognizes messages of another database.
    op.create_table(
        "crawl_keeper",
        sa.Column("id", _LARGE, primary_key=True, autoincrement=False),
        _number("epoch"),
        _text("keeper"),
        _real("since"),
        _number("is_paused"),
        _text("crawl"),
    )
    op.execute(f"INSERT INTO crawl_keeper (id, crawl) VALUES (1, '{secrets.token_hex(4)}')")  # noqa: S608 - hex digits
    # One row for each `add`, whose message may come twice. hosts, allow: JSON lists; null if that limit was not set.
    op.create_table(
        "crawl_crawls",
        sa.Column("id", _LARGE, primary_key=True, autoincrement=False),
        _real("at"),
        _text("urls"),
        _number("depth", None),
        _text("hosts", None),
        _text("allow", None),
        _number("page_limit", None),
        _text("contact", None),
        _real("delay", None),
        _real("recrawl", None),
        _number("pages"),
        _number("sent"),
        sa.Column("message", sa.String(255), nullable=False, unique=True),
    )


def _create_hosts() -> None:
    # The frontier's unit: a host name, with a port unless that is the default of http or https.
    # delay: as set by `add`; robots_delay: from robots.txt. backoff: the delay after failures or 429 and 503.
    # outcomes: the latest ones, newest last.
    op.create_table(
        "crawl_hosts",
        sa.Column("id", _LARGE, primary_key=True, autoincrement=False),
        sa.Column("name", sa.Text, nullable=False, unique=True),
        _real("delay"),
        _real("robots_delay"),
        _real("due"),
        _real("served_at"),
        _number("waiting"),
        _number("later"),
        _number("sent"),
        _number("failures"),
        _real("backoff"),
        _number("pages"),
        _number("problems"),
        _number("size"),
        _number("wire"),
        _text("outcomes"),
    )
    # state: see `robots.py`. tries: failed attempts in a row.
    op.create_table(
        "crawl_robots",
        sa.Column("origin", sa.Text, primary_key=True),
        _number("host"),
        _number("state"),
        _number("outcome"),
        _real("at"),
        _real("until"),
        _number("tries"),
        _real("delay"),
        _text("detail"),
        _text("body"),
    )


def _create_addresses() -> None:
    # Each address ever found: the key is a hash with the host in its upper bits. ref: the row of crawl_addresses; below
    # 0: refused, with reason and time (`outcomes.py`). New ones are first in the log (`seen.py`): entries has keys and
    # refs in turn, 8 bytes each.
    op.create_table(
        "crawl_seen",
        sa.Column("key", _LARGE, primary_key=True, autoincrement=False),
        _number("ref"),
    )
    op.create_table(
        "crawl_seen_log",
        sa.Column("id", _LARGE, primary_key=True, autoincrement=False),
        sa.Column("entries", sa.LargeBinary, nullable=False),
    )
    # Addresses that wait, are out, or were fetched. counted: the crawl that counts it as a page. trail: the decisions
    # with their time and node (`trail.py`).
    op.create_table(
        "crawl_addresses",
        sa.Column("id", _LARGE, primary_key=True, autoincrement=False),
        _number("key"),
        _text("url"),
        _number("host"),
        _number("crawl"),
        _number("depth"),
        _number("purpose"),
        _number("counted"),
        _number("state"),
        _number("tries"),
        _number("losses"),
        _number("hops"),
        _number("source"),
        _real("found_at"),
        _number("outcome"),
        _number("status"),
        _real("outcome_at"),
        _text("etag", None),
        _text("modified", None),
        _number("content"),
        _real("pause"),
        _text("trail"),
    )
    # State 0: waiting.
    waits = sa.text("state = 0")
    op.create_index(
        "crawl_addresses_waiting",
        "crawl_addresses",
        ["host", "depth", "id"],
        sqlite_where=waits,
        postgresql_where=waits,
    )
    # When addresses that were tried or fetched are due again.
    op.create_table(
        "crawl_later",
        sa.Column("address", _LARGE, primary_key=True, autoincrement=False),
        _real("due"),
    )
    op.create_index("crawl_later_due", "crawl_later", ["due"])


def _create_batches() -> None:
    # addresses: a JSON list of the rows not reported yet; robots: the origin whose robots.txt it fetches.
    op.create_table(
        "crawl_batches",
        sa.Column("id", sa.String(40), primary_key=True),
        _number("host"),
        _text("origin"),
        _text("robots"),
        _real("sent_at"),
        _real("deadline"),
        _text("addresses"),
    )
    op.create_index("crawl_batches_deadline", "crawl_batches", ["deadline"])


def _create_traps() -> None:
    # Families of addresses of a host (`traps.py`). prints: fingerprints of some of its documents, 8 bytes each.
    op.create_table(
        "crawl_shapes",
        sa.Column("key", _LARGE, primary_key=True, autoincrement=False),
        _number("host"),
        _text("shape"),
        _number("sent"),
        _number("answered"),
        _number("documents"),
        _number("repeats"),
        _number("streak"),
        sa.Column("prints", sa.LargeBinary, nullable=True),
    )
    # The first address with a content: another one on the same host with the same content is its duplicate.
    op.create_table(
        "crawl_contents",
        sa.Column("key", _LARGE, primary_key=True, autoincrement=False),
        _number("address"),
    )


def _create_counters() -> None:
    op.create_table(
        "crawl_counts",
        sa.Column("name", sa.String(60), primary_key=True),
        _number("number"),
    )
    # Work done in each slot of 10 s, for the rates of the last minutes.
    op.create_table(
        "crawl_pace",
        sa.Column("slot", _LARGE, primary_key=True, autoincrement=False),
        _number("pages"),
        _number("documents"),
        _number("size"),
        _number("wire"),
    )
