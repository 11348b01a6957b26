"""Accepting a submission that was declined or came too late.

A declined one goes through the roles as one that was sent back; one that the deadlines forbid is only noted.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from rabbitry.apps.grading.message import DECLINED, Decision
from rabbitry.exceptions import UsageError

if TYPE_CHECKING:
    from rabbitry.apps.grading.files import Files
    from rabbitry.apps.grading.modules import Course
    from rabbitry.apps.grading.records import Database
    from rabbitry.apps.grading.records.course import Submission

ACCEPTED: Final = "accepted"
"""The remark, if no other is given."""
WITHDRAWN: Final = "withdrawn"
"""The remark of a withdrawal, if no other is given."""


def accept(
    records: Database, files: Files, identity: str, decision: Decision, course: Course, exchange: str
) -> Submission:
    """Submit a declined submission once more, with the time at which it was handed in, or let a late one count. Blocks.

    A running coordinator publishes a declined one. The limits that declined it are not applied again.

    Args:
        records: The open records.
        files: The kept files.
        identity: The submission's id or a prefix.
        decision: Who accepts it, and the remark that says why.
        course: The course.
        exchange: The roles' exchange.

    Returns:
        The submission as it was recorded before.

    Raises:
        NoSuchID: No id, or more than one, begins so.
        UsageError: It is not declined and can count; or it is declined, and its file or its message's other fields are
            not kept.
        RecordsError: The records or the files can't be read.
    """
    from rabbitry.apps.grading.records import judging
    from rabbitry.apps.grading.records.course import submission_of
    from rabbitry.apps.grading.records.regrading import submit_again

    found = records.read_now(partial(submission_of, given=identity))
    if found.status != DECLINED:
        records.write_now(partial(judging.accept, identity=found.id, decision=decision, course=course))
        return found
    if found.kept is None:
        raise UsageError(f"the file of {found.id} is not kept, so it can't be accepted: have it handed in again")
    data = files.fetch(found.kept)
    work = partial(submit_again, identity=found.id, data=data, decision=decision, course=course, exchange=exchange)
    if records.write_now(partial(work, was=DECLINED)) is None:
        raise UsageError(
            f"submission {found.id} can't be accepted: it is not declined any more, or only its file is kept, not the "
            "message's other fields"
        )
    return found
