"""The judgements of demonstrators who mark the same submission without seeing each other's, until all of them are in.

All functions take a connection and run in its transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Connection, Row, delete, select

from rabbitry.apps.grading.blind import Blind
from rabbitry.apps.grading.comments import COMMENTS, as_sent, comments_of
from rabbitry.apps.grading.message import Decision, now, points
from rabbitry.apps.grading.records.schema import inbox, insert_into, judgements, text
from rabbitry.exceptions import UsageError


class Given(NamedTuple):
    """The judgements of an inbox entry. number: how many there are. is_mine: whether one is the asker's."""

    number: int = 0
    is_mine: bool = False


def judge(connection: Connection, item: int, decision: Decision, blind: Blind) -> Decision | None:
    """Record a person's judgement, in place of an earlier one of theirs.

    Args:
        connection: An open connection.
        item: The number of the inbox entry.
        decision: The judgement.
        blind: How many have to judge, and the rule.

    Returns:
        The decision of all of them; None if others have still to judge.

    Raises:
        UsageError: It has no mark, or another maximum than the others' judgements; or all have judged, their marks
            differ by too much, and this person is one of them.
    """
    if decision.mark is None:
        raise UsageError(f"no mark: {blind.people} demonstrators mark each submission of this module")
    # PostgreSQL lets others commit between two statements: of two people who judge at once, the later one counts both.
    connection.execute(select(inbox.c.id).where(inbox.c.id == item).with_for_update())
    who = text(decision.who, 200)
    before = _of(connection, item)
    others = [one for one in before if one.who != who]
    if len(others) < len(before) and blind.is_apart([one.mark or 0.0 for one in before]):
        # Who tried one mark after the other would learn the others' from the one with which the decision is made.
        raise UsageError("the marks given differ by too much, and yours is one of them: one further person has to mark")
    if others and others[0].out_of != decision.out_of:
        most = others[0].out_of
        named = "no maximum" if most is None else f"the maximum {points(most)}"
        raise UsageError(f"the others who mark this submission gave {named}: give the same")
    values = {
        "at": now(),
        "mark": decision.mark,
        "out_of": decision.out_of,
        "feedback": decision.feedback,
        "comments": msgspec.json.encode(as_sent(decision.comments)).decode(),
    }
    insert = insert_into(connection, judgements).values(item=item, who=who, **values)
    connection.execute(insert.on_conflict_do_update(index_elements=["item", "who"], set_=values))
    given = [*others, decision]
    return None if blind.missing([one.mark or 0.0 for one in given]) else blind.joint(given)


def take_back(connection: Connection, item: int, who: str) -> None:
    """Remove a person's judgement: the decision that it completed was taken back."""
    connection.execute(delete(judgements).where(judgements.c.item == item, judgements.c.who == who))


def given(connection: Connection, items: Sequence[int], who: str | None) -> dict[int, Given]:
    """Return what has been judged of inbox entries. Entries without a judgement are left out.

    Args:
        connection: An open connection.
        items: The numbers of the entries.
        who: The asker; None if unknown.
    """
    mine = None if who is None else text(who, 200)
    found: dict[int, Given] = {}
    query = select(judgements.c.item, judgements.c.who).where(judgements.c.item.in_(items))
    for row in connection.execute(query):
        before = found.get(row.item, Given())
        found[row.item] = Given(before.number + 1, before.is_mine or row.who == mine)
    return found


def _of(connection: Connection, item: int) -> list[Decision]:
    query = select(judgements).where(judgements.c.item == item).order_by(judgements.c.at, judgements.c.who)
    return [_decision(row) for row in connection.execute(query)]


def _decision(row: Row[Any]) -> Decision:
    comments = comments_of({COMMENTS: msgspec.json.decode(row.comments)})
    return Decision(row.who, row.mark, row.out_of, row.feedback, comments=comments)
