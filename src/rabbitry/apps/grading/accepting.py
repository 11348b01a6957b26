"""Accepting a submission that was declined or came too late, and withdrawing that.

A declined one goes through the roles as one that was sent back. One that the deadlines forbid is only noted; if it is
confirmed, its result is published again, since its timing and final mark are others now.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from rabbitry.apps.grading.exceptions import FileLost, FilesError
from rabbitry.apps.grading.message import DECLINED, Decision
from rabbitry.exceptions import UsageError

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from rabbitry.apps.grading.files import Files
    from rabbitry.apps.grading.modules import Course
    from rabbitry.apps.grading.records import Database
    from rabbitry.apps.grading.records.course import Submission

ACCEPTED: Final = "accepted"
"""The remark, if no other is given."""
WITHDRAWN: Final = "withdrawn"
"""The remark of a withdrawal, if no other is given."""

_logger = logging.getLogger(__name__)


def accept(
    records: Database, files: Files, identity: str, decision: Decision, course: Course, exchange: str
) -> Submission:
    """Submit a declined submission once more, with the time at which it was handed in, or let a late one count. Blocks.

    A running coordinator publishes a declined one, and the result of a confirmed one again. The limits that declined it
    are not applied again.

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
        accepted = partial(judging.accept, identity=found.id, decision=decision, course=course)
        _judge_anew(records, files, found, accepted, course, exchange)
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


def withdraw(
    records: Database,
    files: Files,
    identity: str,
    decision: Decision,
    course: Course,
    exchange: str,
    *,
    accepted_at: str = "",
) -> Submission:
    """Withdraw the acceptance of a submission that the deadlines forbid. Blocks.

    A running coordinator publishes the result of a confirmed one again.

    Args:
        records: The open records.
        files: The kept files.
        identity: The submission's id or a prefix.
        decision: Who withdraws it, and the remark that says why.
        course: The course.
        exchange: The roles' exchange.
        accepted_at: When it was accepted, so that no later acceptance is withdrawn instead; empty for any time.

    Returns:
        The submission.

    Raises:
        NoSuchID: No id, or more than one, begins so.
        UsageError: It is not accepted, was accepted at another time, or is accepted in the configuration, too.
        RecordsError: The records or the files can't be read.
    """
    from rabbitry.apps.grading.records import withdrawing
    from rabbitry.apps.grading.records.course import submission_of

    found = records.read_now(partial(submission_of, given=identity))
    withdrawn = partial(withdrawing.withdraw, given=found.id, decision=decision, course=course, accepted_at=accepted_at)
    _judge_anew(records, files, found, withdrawn, course, exchange)
    return found


def _judge_anew(
    records: Database,
    files: Files,
    found: Submission,
    change: Callable[[Connection], object],
    course: Course,
    exchange: str,
) -> None:
    """Make a change by which a submission is judged differently, and have its result published again, if it has one."""
    from rabbitry.apps.grading.records import results
    from rabbitry.apps.grading.records.course import CONFIRMED

    data: bytes | None = None
    away: FilesError | None = None
    if found.kept is not None:
        try:
            data = files.fetch(found.kept)
        except FileLost as error:
            _logger.warning("%s", error)
        except FilesError as error:  # the file is needed only if there is a result
            away = error

    def work(connection: Connection) -> bool:
        # A confirmation at the same time is published as it is judged before or after the change, and waits for it.
        is_confirmed = results.status_of(connection, found.id) == CONFIRMED
        change(connection)
        if not is_confirmed:
            return True
        if away is not None:
            raise away
        return data is not None and results.publish_again(connection, found.id, data, course, exchange)

    if not records.write_now(work):
        _logger.warning("the result of submission %s is not published again: its message is not kept", found.id)
