"""The statements that record a hop, made once.

SQLAlchemy takes longer to build a statement than SQLite to run it: half of the CPU time of a submission's records went
into that, see `make bench-grading`.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final, NamedTuple

from sqlalchemy import Insert, Select, and_, bindparam, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite

from rabbitry.apps.grading.records.schema import handed_in, history, kept_files, submissions

CHANGING: Final = ("status", "step", "mark", "out_of", "feedback", "updated_at")
"""Columns of a submission that its next hop changes."""
_CONFIRMED: Final = ("student", "module", "name", *CHANGING, "confirmed_by")
_OF_HOP: Final = ("submission", "step")
_mine = submissions.c.id == bindparam("mine")
_is_open = submissions.c.confirmed_by.is_(None)

_known = [submissions.c[name] for name in ("confirmed_by", "reopened_at", "step", "submitted_at", "sha256")]
_first = history.alias()
KNOWN: Final[Select[Any]] = select(
    submissions.c.id,
    *_known,
    select(_first.c.at)
    .where(_first.c.submission == submissions.c.id, _first.c.step == 1)
    .scalar_subquery()
    .label("first_at"),
).where(submissions.c.id.in_(bindparam("mine", expanding=True)))
"""What is recorded of the submissions `mine`, a list. first_at: the time of its first hop, if that is recorded."""
LOCKED: Final = select(*_known).where(_mine).with_for_update()
"""What is recorded of the submission `mine`, to confirm it; locks its row."""
TAKEN_AT: Final = select(submissions.c.submitted_at).where(_mine)
EARLIER: Final = (
    update(submissions)
    .where(_mine, submissions.c.submitted_at > bindparam("taken"))
    .values(submitted_at=bindparam("taken"))
)
"""Sets an earlier time of submission."""
NEWER: Final = (
    update(submissions)
    .where(_mine, _is_open, submissions.c.step < bindparam("to_step"))
    .values({name: bindparam(f"to_{name}") for name in CHANGING})
)
"""Sets what a later hop changed, with the parameters `to_…`."""
KEPT: Final = (
    update(submissions)
    .where(_mine, submissions.c.sha256.is_(None))
    .values(sha256=bindparam("to_sha256"), size=bindparam("to_size"))
)
CONFIRM: Final = (
    update(submissions).where(_mine, _is_open).values({name: bindparam(f"to_{name}") for name in _CONFIRMED})
)
SIGNED: Final = select(history.c.step, history.c.role, history.c.status).where(
    history.c.submission == bindparam("mine"), history.c.step > bindparam("since"), history.c.signer.is_not(None)
)
"""The signed hops of the submission `mine` after a step."""
REOPENED: Final = select(*(history.c[name] for name in ("role", "status", "at", "remark"))).where(
    history.c.submission == bindparam("mine"), history.c.step == bindparam("since")
)
"""The hop of a step of the submission `mine`."""
FORGET: Final = delete(history).where(history.c.submission == bindparam("mine"), history.c.step > bindparam("since"))


class Inserts(NamedTuple):
    """Inserts of a database's own kind.

    hop: an earlier time of the first hop replaces a later one. whole_hop: it replaces what was recorded of its step.
    """

    hop: Insert
    whole_hop: Insert
    submission: Insert
    handed_in: Insert
    kept_file: Insert


@cache
def inserts(dialect: str) -> Inserts:
    """Return the inserts for `postgresql` or `sqlite`: both have `on conflict`, standard SQL does not."""
    into = postgresql.insert if dialect == "postgresql" else sqlite.insert
    hop = into(history)
    return Inserts(
        hop.on_conflict_do_update(
            index_elements=list(_OF_HOP),
            set_={"at": hop.excluded.at},
            where=and_(history.c.step == 1, hop.excluded.at < history.c.at),
        ),
        hop.on_conflict_do_update(
            index_elements=list(_OF_HOP),
            set_={one.name: hop.excluded[one.name] for one in history.c if one.name not in _OF_HOP},
        ),
        into(submissions).on_conflict_do_nothing(),
        into(handed_in).on_conflict_do_nothing(),
        into(kept_files).on_conflict_do_nothing(),
    )


def to(values: dict[str, object]) -> dict[str, object]:
    """Return values as the parameters `to_…` of a statement."""
    return {f"to_{name}": value for name, value in values.items()}
