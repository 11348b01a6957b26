"""Requests for another look as messages: what a student's program sends, and what coordinators reply."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import msgspec

from rabbitry._ids import NoSuchID
from rabbitry.apps.grading.message import sendable
from rabbitry.exceptions import UsageError
from rabbitry.flow import Message

if TYPE_CHECKING:
    from rabbitry.apps.grading.records import Database

KEY: Final = "requests"
QUEUE: Final = "grading.requests"
LEAST: Final = 4
"""Characters of an id that a message needs: with fewer, students could find each other's ids by trying."""

_logger = logging.getLogger(__name__)


class Asked(msgspec.Struct):
    """The message that asks. The fields have the names of the assignment's messages."""

    SubmissionID: str
    StudentID: int | str
    Reason: str


class Reply(msgspec.Struct):
    """A coordinator's reply. request: the number of the recorded request; None if it was refused, and `error` says why.

    is_unknown: the student has no such submission.
    """

    request: int | None = None
    error: str | None = None
    is_unknown: bool = False


async def record(asked: Asked, message: Message, database: Database) -> Reply:
    """Record a request, and return the reply to the student's program. Raises RecordsError."""
    from rabbitry.apps.grading.records.requests import ask

    given, student = sendable(asked.SubmissionID), sendable(str(asked.StudentID))
    # Plain programs set no message id, and two requests without one are not the same request.
    identity = message.id or uuid4().hex
    work = partial(ask, given=given, student=student, reason=sendable(asked.Reason), message=identity, least=LEAST)
    try:
        found = await database.write(work)
    except (NoSuchID, UsageError) as error:
        _logger.info("requests: student %s: %s", student, error)
        return Reply(error=str(error), is_unknown=isinstance(error, NoSuchID))
    _logger.info("requests: student %s asks for another look at %s", student, found.submission)
    return Reply(found.id)
