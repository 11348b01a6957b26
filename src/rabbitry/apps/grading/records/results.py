"""Results that are published again, because they are judged differently since their confirmation."""

from __future__ import annotations

from sqlalchemy import Connection, select

from rabbitry.apps.grading.modules import Course
from rabbitry.apps.grading.receiving import again
from rabbitry.apps.grading.records import outbox
from rabbitry.apps.grading.records.course import CONFIRMED, submission
from rabbitry.apps.grading.records.judging import with_judgement
from rabbitry.apps.grading.records.regrading import COORDINATOR, as_recorded
from rabbitry.apps.grading.records.releases import hold
from rabbitry.apps.grading.records.schema import handed_in, submissions
from rabbitry.apps.grading.roles import RESULTS


def status_of(connection: Connection, identity: str) -> str | None:
    """Return the status of a submission, which nobody else changes before the transaction ends; None if unknown."""
    mine = select(submissions.c.status).where(submissions.c.id == identity).with_for_update()
    return connection.execute(mine).scalar()


def publish_again(connection: Connection, identity: str, data: bytes, course: Course, exchange: str) -> bool:
    """Put the result of a confirmed submission into the coordinator's outbox once more, as it is judged now.

    It is held if the results of its module are.

    Args:
        connection: An open connection.
        identity: The submission's id.
        data: The file.
        course: The course, which has the deadlines.
        exchange: The roles' exchange.

    Returns:
        False if it is not confirmed, or only its file is kept and not the message's other fields.
    """
    fields = connection.execute(select(handed_in.c.fields).where(handed_in.c.submission == identity)).scalar()
    found = submission(connection, identity)
    if found is None or fields is None or found[0].status != CONFIRMED:
        return False
    result = with_judgement(connection, as_recorded(found, again(fields, data)), course)
    if not hold(connection, result, exchange):
        outbox.add(connection, COORDINATOR.name, exchange, RESULTS, result, required=False)
    return True
