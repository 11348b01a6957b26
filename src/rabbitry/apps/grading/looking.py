"""What pages and commands read of the records, where they are kept or over the broker from a coordinator."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeAlias

import msgspec

from rabbitry._ids import NoSuchID
from rabbitry.apps.grading.requesting import LEAST
from rabbitry.exceptions import UsageError

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from rabbitry.apps.grading.modules import Course
    from rabbitry.apps.grading.records import Database
    from rabbitry.apps.grading.records.course import Filter

MOST: Final = 1000
"""Entries of one answer."""
LARGEST: Final = 8_000_000
"""Bytes of one answer over the broker: a page of submissions with long feedback has more.

RabbitMQ 4 closes the channel of whoever publishes a message of more than 16 MiB, and that would end the coordinator.
"""

What: TypeAlias = Literal["submissions", "submission", "requests", "request", "statistics"]


class Look(msgspec.Struct, rename="pascal", omit_defaults=True):
    """A query for a part of the records.

    what: a page of submissions or of the requests that wait, one of either, or the statistics of a module. submission:
    an id or a prefix. number: a request's. find, module, status, limit, offset, student, modules: as in a filter.
    """

    what: What
    find: str = ""
    module: str | None = None
    status: str | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=MOST)] = 100
    offset: Annotated[int, msgspec.Meta(ge=0, le=1_000_000_000)] = 0
    student: str | None = None
    modules: tuple[str, ...] | None = None
    submission: str = ""
    number: int = 0


class Looked(msgspec.Struct, omit_defaults=True):
    """The answer. error: why there is none. is_unknown: there is no such id. is_ambiguous: several begin so."""

    found: Any = None
    error: str | None = None
    is_unknown: bool = False
    is_ambiguous: bool = False


def read(connection: Connection, asked: Look, course: Course) -> Any:
    """Read a part of the records, as JSON data.

    Raises:
        NoSuchID: There is no such submission or request.
        UsageError: The module is unknown.
    """
    from rabbitry.apps.grading.records.course import Filter

    page = asked.limit, asked.offset
    wanted = Filter(asked.find[:200], asked.module, asked.status, *page, asked.student, asked.modules)
    return _READERS[asked.what](connection, asked, wanted, course)


def _submissions(connection: Connection, asked: Look, wanted: Filter, course: Course) -> dict[str, Any]:
    from rabbitry.apps.grading.records import course as records
    from rabbitry.apps.grading.records import judging, requests
    from rabbitry.apps.grading.records.course import Filter

    every = Filter(student=asked.student, modules=wanted.modules)
    rows = records.submissions_of(connection, wanted)
    judged = judging.judged(connection, rows, course)
    return {
        "statuses": records.counts(connection, every),
        "requests": requests.count(connection, every),
        "submissions": [row.as_dict() | judged[row.id].as_dict() for row in rows],
        "total": records.count(connection, wanted),
    }


def _submission(connection: Connection, asked: Look, wanted: Filter, course: Course) -> dict[str, Any]:
    from rabbitry.apps.grading.records.requests import described

    found = described(connection, asked.submission, course, least=LEAST, student=asked.student)
    if wanted.modules is not None and found["module"] not in wanted.modules:
        raise NoSuchID(f"no submission {asked.submission!r} is recorded")
    return found


def _requests(connection: Connection, asked: Look, wanted: Filter, course: Course) -> dict[str, Any]:
    from rabbitry.apps.grading.records import requests

    found = requests.waiting(connection, wanted)
    return {"requests": [one.as_dict() for one in found], "total": requests.count(connection, wanted)}


def _request(connection: Connection, asked: Look, wanted: Filter, course: Course) -> dict[str, Any]:
    from rabbitry.apps.grading.records import requests

    found = requests.one(connection, asked.number)
    if wanted.modules is not None and found.module not in wanted.modules:
        raise NoSuchID(f"there is no request {asked.number}")
    return found.as_dict()


def _statistics(connection: Connection, asked: Look, wanted: Filter, course: Course) -> dict[str, Any]:
    from rabbitry.apps.grading.records.statistics import statistics_of

    return statistics_of(connection, course.module(asked.module or "").name, course)


_READERS: Final[dict[What, Callable[[Connection, Look, Filter, Course], dict[str, Any]]]] = {
    "submissions": _submissions,
    "submission": _submission,
    "requests": _requests,
    "request": _request,
    "statistics": _statistics,
}


async def answer(database: Database, course: Course, asked: Look, asker: str | None) -> bytes:
    """Return the answer to a query that came over the broker, as JSON.

    Unlike the status of a submission, whose id the asker has to know, this tells of everybody: only the logins answer
    that the course names.

    Args:
        database: The records.
        course: The course.
        asked: The query.
        asker: The login that the broker vouches for; None if the message names none.
    """
    if asker is None or asker not in (course.status_logins or ()):
        who = "no login" if asker is None else f"the login {asker[:60]!r}"
        why = (
            f"the coordinator answers {who} no questions about all submissions: "
            "name the login of this program's broker URL in status_logins of the coordinator's configuration"
        )
        return msgspec.json.encode(Looked(error=why))
    try:
        found = await database.read(partial(read, asked=asked, course=course))
    except NoSuchID as error:
        told = Looked(error=str(error), is_unknown=not error.is_ambiguous, is_ambiguous=error.is_ambiguous)
        return msgspec.json.encode(told)
    except UsageError as error:
        return msgspec.json.encode(Looked(error=str(error)))
    body = msgspec.json.encode(Looked(found))
    if len(body) <= LARGEST:
        return body
    why = f"the answer would have {len(body)} bytes, and at most {LARGEST} are sent: ask for fewer entries"
    return msgspec.json.encode(Looked(error=why))
