"""The tables. Times are in UTC as ISO 8601 text of equal length, which sorts by time."""

from __future__ import annotations

import time
from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    func,
    literal,
)
from sqlalchemy.dialects import postgresql, sqlite

metadata: Final = MetaData()

submissions: Final = Table(
    "submissions",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("student", String(200), nullable=False),
    Column("module", String(200), nullable=False),
    Column("name", Text, nullable=False),
    Column("status", String(200), nullable=False),
    Column("step", Integer, nullable=False),
    Column("mark", Float),
    Column("out_of", Float),
    Column("feedback", Text),
    Column("submitted_at", String(40), nullable=False),
    Column("updated_at", String(40), nullable=False),
    # The message that led to the confirmation: if it comes again, its result is published again.
    Column("confirmed_by", String(300)),
    # Of the file as it was handed in, if it is kept.
    Column("sha256", String(64)),
    Column("size", Integer),
    # The step of the latest hop that reopened it to be marked again: what has fewer hops is of an earlier round.
    Column("reopened_at", Integer, nullable=False, server_default="0"),
    Index("submissions_of_student", "student", "module", "submitted_at"),
    # In the order of the lists, read backwards. The last one has the status, so that it counts a module alone.
    Index("submissions_by_update", "updated_at", "id"),
    Index("submissions_by_status", "status", "updated_at", "id"),
    Index("submissions_of_module", "module", "updated_at", "id", "status"),
    # For the statistics and marking again, which go through a module student by student.
    Index("submissions_by_student", "module", "student", "id"),
    # PostgreSQL finds beginnings by these, whatever its locale. SQLite searches the indexes that it has.
    *(
        Index(f"submissions_{name}_begins", name, postgresql_ops={name: "text_pattern_ops"}).ddl_if("postgresql")
        for name in ("id", "student")
    ),
)

history: Final = Table(
    "history",
    metadata,
    Column("submission", String(64), primary_key=True),
    Column("step", Integer, primary_key=True, autoincrement=False),
    Column("role", String(200), nullable=False),
    Column("status", String(200), nullable=False),
    Column("who", Text, nullable=False),
    Column("place", Text, nullable=False),
    Column("at", String(40), nullable=False),
    Column("mark", Float),
    Column("out_of", Float),
    Column("feedback", Text),
    Column("remark", Text),
    # The name of the key that signed it, and why it is not taken as signed; both null where the course checks nothing.
    Column("signer", Text),
    Column("doubt", Text),
    # The comments on lines of the file, as JSON; null if there are none.
    Column("comments", Text),
    # Of several demonstrators who did not see each other's, as JSON; null if one person decided.
    Column("marks", Text),
)

acceptances: Final = Table(
    "acceptances",
    metadata,
    # Submissions that can count although the deadlines forbid it.
    Column("submission", String(64), primary_key=True),
    Column("who", Text, nullable=False),
    Column("at", String(40), nullable=False),
    Column("remark", Text, nullable=False),
)

withdrawals: Final = Table(
    "withdrawals",
    metadata,
    # Acceptances that were withdrawn: who accepted the submission, when and why, and who withdrew that.
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("submission", String(64), nullable=False),
    Column("who", Text, nullable=False),
    Column("at", String(40), nullable=False),
    Column("remark", Text, nullable=False),
    Column("withdrawn_by", Text, nullable=False),
    Column("withdrawn_at", String(40), nullable=False),
    Column("reason", Text, nullable=False),
    Index("withdrawals_of_submission", "submission"),
)

releases: Final = Table(
    "releases",
    metadata,
    # When the results of a module are released: its last row holds, the others tell what held before.
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("module", String(200), nullable=False),
    Column("until", String(40), nullable=False),
    Column("who", Text, nullable=False),
    Column("at", String(40), nullable=False),
    Column("remark", Text, nullable=False),
    Index("releases_of_module", "module", "id"),
)

held_results: Final = Table(
    "held_results",
    metadata,
    # Results that are published once those of their module are released.
    Column("submission", String(64), primary_key=True),
    Column("module", String(200), nullable=False),
    Column("exchange", String(255), nullable=False),
    Column("body", LargeBinary, nullable=False),
)

inbox: Final = Table(
    "inbox",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("role", String(20), nullable=False),
    Column("submission", String(64), nullable=False),
    Column("step", Integer, nullable=False),
    Column("student", String(200), nullable=False),
    Column("module", String(200), nullable=False),
    Column("exchange", String(255), nullable=False),
    Column("message", String(300), nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("arrived_at", String(40), nullable=False),
    UniqueConstraint("role", "submission", "step", name="inbox_once"),
)

decisions: Final = Table(
    "decisions",
    metadata,
    Column("item", Integer, ForeignKey("inbox.id"), primary_key=True, autoincrement=False),
    Column("action", String(20), nullable=False),
    Column("who", Text, nullable=False),
    Column("at", String(40), nullable=False),
    Column("mark", Float),
    Column("out_of", Float),
    Column("text", Text),
)

judgements: Final = Table(
    "judgements",
    metadata,
    # Of demonstrators who mark the same submission without seeing each other's, until all of them make the decision.
    Column("item", Integer, ForeignKey("inbox.id"), primary_key=True, autoincrement=False),
    Column("who", String(200), primary_key=True),
    Column("at", String(40), nullable=False),
    Column("mark", Float, nullable=False),
    Column("out_of", Float),
    Column("feedback", Text),
    # The points by the criteria of a rubric, and the comments on lines, as JSON.
    Column("criteria", Text, nullable=False, server_default="[]"),
    Column("comments", Text, nullable=False),
)

outbox: Final = Table(
    "outbox",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("role", String(20), nullable=False),
    Column("exchange", String(255), nullable=False),
    Column("key", String(255), nullable=False),
    Column("required", Integer, nullable=False),
    Column("message", String(64), nullable=False, unique=True),
    Column("submission", String(64), nullable=False),
    Column("type", String(40), nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("created_at", String(40), nullable=False),
    # Unix time until which the entry is claimed for publishing; 0 if it never was, and can still be taken back.
    Column("claimed_until", Float, nullable=False, server_default="0"),
    # The inbox entry that was decided; null for other messages. It is held until then (Unix time) for a change of mind.
    Column("item", Integer),
    Column("held_until", Float, nullable=False, server_default="0"),
    Index("outbox_of_item", "item"),
)


handed_in: Final = Table(
    "handed_in",
    metadata,
    Column("submission", String(64), primary_key=True),
    # The message's fields but for the solution, which is a kept file, and for those that roles write.
    Column("fields", LargeBinary, nullable=False),
)

kept_files: Final = Table(
    "kept_files",
    metadata,
    # The files in the place of files, and the bytes that each takes there.
    Column("sha256", String(64), primary_key=True),
    Column("packed", BigInteger, nullable=False),
)

regrades: Final = Table(
    "regrades",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("selection", Text, nullable=False),
    Column("who", Text, nullable=False),
    Column("remark", Text, nullable=False),
    Column("begun_at", String(40), nullable=False),
    Column("ended_at", String(40)),
    # Whether a coordinator does it, because it was begun on the page; else the command that began it does.
    Column("by_coordinator", Integer, nullable=False, server_default="0"),
)

regraded: Final = Table(
    "regraded",
    metadata,
    Column("regrade", Integer, ForeignKey("regrades.id"), primary_key=True, autoincrement=False),
    Column("submission", String(64), primary_key=True),
    # 0: still to do. 1: it was submitted again. 2: its file can't be had. 3: it was not confirmed any more.
    Column("is_done", Integer, nullable=False, server_default="0"),
)

requests: Final = Table(
    "requests",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("submission", String(64), nullable=False),
    # The message that asked: one that comes again is not another request.
    Column("message", String(300), nullable=False, unique=True),
    Column("reason", Text, nullable=False),
    Column("asked_at", String(40), nullable=False),
    # Null until a demonstrator or an assistant has answered.
    Column("answer", String(20)),
    Column("role", String(20)),
    Column("who", Text),
    Column("remark", Text),
    Column("answered_at", String(40)),
    Index("requests_of_submission", "submission"),
)

settings: Final = Table(
    "settings",
    metadata,
    Column("name", String(40), primary_key=True),
    Column("value", Text, nullable=False),
)


def insert_into(connection: Connection, table: Table) -> postgresql.Insert | sqlite.Insert:
    """Return an insert that supports `on conflict`: both databases have it, standard SQL does not."""
    return postgresql.insert(table) if connection.dialect.name == "postgresql" else sqlite.insert(table)


def clock(connection: Connection) -> ColumnElement[float]:
    """Return the Unix time by the clock that all who share the records have, for use in a statement.

    It is PostgreSQL's own. A SQLite file is on one machine, and so are all who share it.
    """
    if connection.dialect.name != "postgresql":
        return literal(time.time())
    return func.extract("epoch", func.statement_timestamp()).cast(Float)


def is_number(number: int) -> bool:
    """Return whether a number can be that of an entry. SQLite refuses larger ones, with an error of Python's."""
    return 0 < number < 1 << 63


def text(value: object, limit: int = 10_000) -> str:
    """Return text received over the wire in a form that both databases can store.

    It has no zero byte, is valid UTF-8 (an AMQP name may be other bytes), and has at most `limit` characters.
    """
    found = value if isinstance(value, str) else "" if value is None else str(value)
    return found.replace("\0", "\ufffd").encode(errors="replace").decode()[:limit]
