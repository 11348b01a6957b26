"""Answers to requests for another look as messages: what people's programs send, and what coordinators reply."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

from rabbitry._ids import NoSuchID
from rabbitry.apps.grading.exceptions import FileLost
from rabbitry.apps.grading.message import LONGEST_NAME, Decision, sendable
from rabbitry.apps.grading.rows import Request
from rabbitry.exceptions import UsageError

if TYPE_CHECKING:
    from rabbitry.apps.grading.files import Files
    from rabbitry.apps.grading.modules import Course
    from rabbitry.apps.grading.records import Database

KEY: Final = "answers"
QUEUE: Final = "grading.answers"

_logger = logging.getLogger(__name__)


class Answer(msgspec.Struct, omit_defaults=True):
    """The message that answers. The fields have the names of the assignment's messages and of their hops.

    SubmissionID, Request: the submission, and the number of the request about it. Answer: upheld or refused. Role, Who,
    Where, When: who answered, on which machine, and the time by its clock. key, signature: as in a hop.
    """

    SubmissionID: str
    Request: int
    Answer: str
    Role: str
    Who: str
    Where: str = ""
    When: str = ""
    Remark: str = ""
    key: str | None = None
    signature: str | None = None


class Reply(msgspec.Struct):
    """A coordinator's reply. request: the answered request; None if the answer was refused, and `error` says why.

    is_unknown: there is no such request.
    """

    request: Request | None = None
    error: str | None = None
    is_unknown: bool = False


async def record(told: Answer, records: Database, course: Course, exchange: str, files: Files | None) -> Reply:
    """Record an answer, and return the reply to the program that sent it.

    Args:
        told: The answer.
        records: The open records.
        course: The course, which has the policy of signatures.
        exchange: The roles' exchange.
        files: The kept files.

    Raises:
        Reject: The signature is wrong, or there is none and the course's policy is to refuse.
        RecordsError: The records or the file can't be read for the moment.
    """
    from rabbitry.apps.grading.records import requests

    who = sendable(told.Who)[:LONGEST_NAME]
    try:
        asked = await records.read(partial(requests.one, number=told.Request))
        if asked.submission != told.SubmissionID:
            raise NoSuchID(f"there is no request {told.Request} about submission {sendable(told.SubmissionID)[:64]}")
        signatures = course.signatures
        finding = None if signatures is None else signatures.check_answer(msgspec.to_builtins(told), asked.module)
        data = await _file(asked, told, records, files)
        given = requests.Given(told.Answer, told.Role, Decision(who, remark=told.Remark), sendable(told.Where), finding)
        work = partial(requests.answer, number=told.Request, given=given, data=data)
        done = await records.write(partial(work, course=course, exchange=exchange))
    except (NoSuchID, UsageError, FileLost) as error:
        _logger.info("requests: the answer of %s to request %s is not recorded: %s", who, told.Request, error)
        return Reply(error=str(error), is_unknown=isinstance(error, NoSuchID))
    _logger.info("requests: %s %s request %s about %s", who, done.answer, done.id, done.submission)
    return Reply(done)


async def _file(asked: Request, told: Answer, records: Database, files: Files | None) -> bytes | None:
    """Return the submission's file if it is to be marked again; None if it is not, or its file is not kept."""
    from rabbitry.apps.grading.records.course import submission_of

    if told.Answer != "upheld" or asked.answer is not None or files is None:
        return None
    found = await records.read(partial(submission_of, given=asked.submission))
    return None if found.kept is None else await asyncio.to_thread(files.fetch, found.kept)
