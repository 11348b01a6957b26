"""The judgements of demonstrators who mark the same submission without seeing each other's, until all of them are in.

All functions take a connection and run in its transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, delete, select

from rabbitry.apps.grading.blind import Blind
from rabbitry.apps.grading.comments import COMMENTS, as_sent, comments_of
from rabbitry.apps.grading.message import Decision, now, points
from rabbitry.apps.grading.personal import PersonalMark, points_as_sent, points_of
from rabbitry.apps.grading.records.schema import inbox, insert_into, judgements, text
from rabbitry.exceptions import UsageError


def judge(connection: Connection, item: int, decision: Decision, blind: Blind) -> Decision | None:
    """Record a person's judgement, in place of an earlier one of theirs unless marks are final.

    No error tells whether others have given a mark, or which, but for their maximum.

    Args:
        connection: An open connection.
        item: The number of the inbox entry.
        decision: The judgement.
        blind: How many have to judge, and the rule.

    Returns:
        The decision of all of them; None if others have still to judge.

    Raises:
        UsageError: It has no mark, another maximum than the others' judgements, or too much text; or this person has
            judged before, and marks are final.
    """
    if decision.mark is None:
        raise UsageError(f"no mark: {blind.people} demonstrators mark each submission of this module")
    blind.check_size(decision)
    # PostgreSQL lets others commit between two statements: of two people who judge at once, the later one counts both.
    connection.execute(select(inbox.c.id).where(inbox.c.id == item).with_for_update())
    who = text(decision.who, 200)
    before = _of(connection, item)
    others = [one for one in before if one.who != who]
    if blind.is_final and len(others) < len(before):
        # Who tried one mark after the other would find the others' by the one with which the decision is made.
        raise UsageError("you have marked this submission already, and a mark of this module is final once it is given")
    if others and others[0].out_of != decision.out_of:
        most = others[0].out_of
        named = "no maximum" if most is None else f"the maximum {points(most)}"
        raise UsageError(f"the others who mark this submission gave {named}: give the same")
    mine = PersonalMark(who, decision.mark, decision.out_of, decision.feedback, decision.criteria, decision.comments)
    values = {
        "at": now(),
        "mark": mine.mark,
        "out_of": mine.out_of,
        "feedback": mine.feedback,
        "criteria": _encode(points_as_sent(mine.criteria)),
        "comments": _encode(as_sent(mine.comments)),
    }
    insert = insert_into(connection, judgements).values(item=item, who=who, **values)
    connection.execute(insert.on_conflict_do_update(index_elements=["item", "who"], set_=values))
    given = [*others, mine]
    return None if blind.missing([one.mark for one in given]) else blind.joint(given)


def take_back(connection: Connection, item: int, who: str) -> None:
    """Remove a person's judgement: the decision that it completed was taken back."""
    connection.execute(delete(judgements).where(judgements.c.item == item, judgements.c.who == who))


def marked(connection: Connection, items: Sequence[int], who: str | None) -> set[int]:
    """Return the inbox entries, of those given, that a person has judged; none if it is unknown who asks.

    Nobody is told how many others have: of two who mark, a third one would learn that their marks differ.
    """
    if who is None:
        return set()
    mine = judgements.c.item.in_(items), judgements.c.who == text(who, 200)
    return set(connection.execute(select(judgements.c.item).where(*mine)).scalars())


def _of(connection: Connection, item: int) -> list[PersonalMark]:
    query = select(judgements).where(judgements.c.item == item).order_by(judgements.c.at, judgements.c.who)
    return [_mark(row) for row in connection.execute(query)]


def _mark(row: Row[Any]) -> PersonalMark:
    comments = comments_of({COMMENTS: msgspec.json.decode(row.comments)})
    criteria = points_of(msgspec.json.decode(row.criteria))
    return PersonalMark(row.who, row.mark, row.out_of, row.feedback, criteria, comments)


def _encode(value: object) -> str:
    return msgspec.json.encode(value).decode()
