"""The parts of the records that pages and commands read, where they are kept or over the broker from a coordinator."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeAlias

import msgspec
from msgspec import structs

from rabbitry._ids import NoSuchID
from rabbitry.apps.exceptions import NoRecords, RecordsError
from rabbitry.apps.grading.deadlines import Attempt
from rabbitry.apps.grading.exceptions import FileLost
from rabbitry.apps.grading.files import Files, Kept
from rabbitry.apps.grading.floods import HOUR
from rabbitry.apps.grading.requesting import LEAST
from rabbitry.exceptions import RabbitryError, UsageError

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from rabbitry.apps.grading.modules import Course
    from rabbitry.apps.grading.records.course import Filter
    from rabbitry.apps.grading.records.regrading import Selection

MOST: Final = 1000
"""Entries of one answer."""
ROWS: Final = 400
"""Rows that are read for one answer: databases bound the students whose attempts one query numbers."""
LOOKED_AT: Final = 5000
"""Submissions that are looked at for one answer with those to mark again, but for the last student's."""
PAGE: Final = 1_000_000
"""Bytes of the entries of one answer, unless a single one has more: a slow network takes a second for them."""
PART: Final = 1_000_000
"""Bytes of a part of a file, as it is kept, which has a third more in JSON; and of a part of an answer."""
LARGEST: Final = 8_000_000
"""Bytes of an answer to a program that takes none in parts.

RabbitMQ 4 closes the channel of whoever publishes a message of more than 16 MiB, and that would end the coordinator.
"""
PARTS: Final = "parts"
"""The header with the number of messages of an answer that has several; see PART_NUMBER."""
PART_NUMBER: Final = "part"
"""The header with the place of a message among them, from 1: a broker may deliver one twice after a reconnection."""
FILLED: Final = ("submissions", "requests")
"""Lists of which an answer may have fewer entries than were asked for, because these are large."""

What: TypeAlias = Literal[
    "submissions", "submission", "requests", "request", "statistics", "rows", "before", "attempts", "regradable",
    "runs", "run", "result", "file", "room", "releases",
]  # fmt: skip
Kind: TypeAlias = Literal["unknown", "ambiguous", "lost", "none", "failed", "wrong"]
Sha256: TypeAlias = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]


class Look(msgspec.Struct, rename="pascal", omit_defaults=True):
    """A question for a part of the records.

    what: a page of submissions or of the requests that wait, one of either, or the statistics of a module; `rows` are
    submissions by id, each with its judgement, for exports; `before` is the attempt before a submission; `attempts`
    are those of a student in a module; `regradable`, `runs`, `run` and `result` are about marking again; `file` is a
    part of a kept file, `room` the bytes of all; `releases` are those of a module's results.
    submission: an id or a prefix. number: of a request or run. find, module, status, limit, offset, student, modules:
    as in a filter; of a file, offset counts bytes. after: rows with greater ids. with_history: rows with their hops.
    from_student, after: the student and id at which a question for `regradable` goes on.
    since, all_attempts: as in a selection to mark again. sha256, size: of the file as it was handed in.
    """

    what: What
    find: str = ""
    module: str | None = None
    status: str | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=MOST)] = 100
    offset: Annotated[int, msgspec.Meta(ge=0, le=1_000_000_000_000)] = 0
    student: str | None = None
    modules: tuple[str, ...] | None = None
    submission: str = ""
    number: int = 0
    after: str = ""
    with_history: bool = False
    since: str | None = None
    all_attempts: bool = False
    from_student: str = ""
    sha256: Sha256 = ""
    size: Annotated[int, msgspec.Meta(ge=0, le=1_000_000_000_000)] = 0


class Attempts(msgspec.Struct):
    """A student's attempts in a module. taken: when those of the last hour were taken, the first one first."""

    taken: list[str] = []
    attempts: list[Attempt] = []


class Looked(msgspec.Struct, omit_defaults=True):
    """The answer. error: why there is none. kind: which error it is."""

    found: Any = None
    error: str | None = None
    kind: Kind = "wrong"


_KINDS: Final[tuple[tuple[type[RabbitryError], Kind], ...]] = (
    (FileLost, "lost"), (NoRecords, "none"), (RecordsError, "failed"), (UsageError, "wrong"),
)  # fmt: skip


def refused(error: RabbitryError) -> Looked:
    """Return the answer that tells of an error."""
    if isinstance(error, NoSuchID):
        return Looked(error=str(error), kind="ambiguous" if error.is_ambiguous else "unknown")
    kind: Kind = next((kind for raised, kind in _KINDS if isinstance(error, raised)), "failed")
    return Looked(error=str(error), kind=kind)


def found_in(answered: Looked) -> Any:
    """Return what an answer holds, or raise the error that it tells of."""
    if answered.error is None:
        return answered.found
    if answered.kind in ("unknown", "ambiguous"):
        raise NoSuchID(answered.error, is_ambiguous=answered.kind == "ambiguous")
    raise next(raised for raised, kind in _KINDS if kind == answered.kind)(answered.error)


def read(connection: Connection, asked: Look, course: Course, *, least: int = LEAST) -> Any:
    """Read a part of the records, as JSON data. least: the fewest characters of a submission's id.

    Raises:
        NoSuchID: There is no such submission, request or run.
        UsageError: The module is unknown.
    """
    from rabbitry.apps.grading.records.course import Filter

    if asked.what == "submission":
        return _submission(connection, asked, course, least)
    page = asked.limit, asked.offset
    wanted = Filter(asked.find[:200], asked.module, asked.status, *page, asked.student, asked.modules)
    return _READERS[asked.what](connection, asked, wanted, course)


async def filled(asked: Look, ask: Callable[[Look], Awaitable[Any]]) -> Any:
    """Return an answer; of a list, with the entries of as many answers as its page takes.

    An entry that moves to another place in between, because it changes, may be missing then, but is there only once.

    Args:
        asked: The question.
        ask: Asks one question. Its errors are raised.
    """
    found = await ask(asked)
    if asked.what not in FILLED:
        return found
    entries = found[asked.what]
    taken, wanted = len(entries), min(asked.limit, found["total"] - asked.offset)
    known = {one["id"] for one in entries}
    while 0 < taken < wanted:
        rest = structs.replace(asked, offset=asked.offset + taken, limit=asked.limit - taken)
        more = (await ask(rest))[asked.what]
        if not more:
            break
        entries += [one for one in more if one["id"] not in known]
        known |= {one["id"] for one in more}
        taken += len(more)
    return found


def read_file(files: Files, asked: Look) -> bytes:
    """Return a part of a kept file as it is stored; the last one has fewer bytes than PART. Blocks.

    Raises:
        UsageError: No file is named.
        FileLost: The file is not there.
        FilesError: It can't be read.
    """
    if not asked.sha256:
        raise UsageError("no file is named: give Sha256 and Size")
    return files.part(Kept(asked.sha256, asked.size), asked.offset, PART)


def _submissions(connection: Connection, asked: Look, wanted: Filter, course: Course) -> dict[str, Any]:
    from rabbitry.apps.grading.records import course as records
    from rabbitry.apps.grading.records import judging, requests
    from rabbitry.apps.grading.records.course import Filter
    from rabbitry.apps.grading.records.releases import held_modules

    every = Filter(student=asked.student, modules=wanted.modules)
    # Their ids are found in an index, and only these rows are read: a list's last page is the farthest in it.
    rows = records.submissions_by_id(connection, records.fitting(connection, wanted, PAGE))
    judged, held = judging.judged(connection, rows, course), held_modules(connection)
    return {
        "statuses": records.counts(connection, every),
        "requests": requests.count(connection, every),
        "submissions": _page(
            row.as_dict() | judged[row.id].as_dict() | {"held_until": held.get(row.module)} for row in rows
        ),
        "total": records.count(connection, wanted),
    }


def rows(connection: Connection, asked: Look, course: Course, *, most: int | None = None) -> list[dict[str, Any]]:
    """Return submissions by id, after `asked.after`, each with its judgement and, if wanted, its history.

    most: of so many at most; None returns all.
    """
    from rabbitry.apps.grading.records import judging
    from rabbitry.apps.grading.records.course import Filter, histories, submissions_of
    from rabbitry.apps.grading.records.withdrawing import withdrawals_of

    wanted = Filter(asked.find[:200], asked.module, asked.status, most, 0, asked.student, asked.modules)
    found = submissions_of(connection, wanted, after=asked.after)
    judged = judging.judged(connection, found, course)
    entries = [row.as_dict() | judged[row.id].as_dict() for row in found]
    if asked.with_history:
        ids = None if most is None else [row.id for row in found]
        hops, accepted = histories(connection, ids), judging.acceptances_of(connection, ids)
        withdrawn = withdrawals_of(connection, ids)
        entries = [
            one
            | {"accepted": accepted.get(one["id"]), "withdrawn": withdrawn.get(one["id"], [])}
            | {"history": [hop.as_dict() for hop in hops.get(one["id"], [])]}
            for one in entries
        ]
    return entries


def _rows(connection: Connection, asked: Look, wanted: Filter, course: Course) -> dict[str, Any]:
    from rabbitry.apps.grading.records.course import fitting

    # A history may have a hundred comments of people on each of its hops.
    limited = replace(wanted, limit=ROWS // 10 if asked.with_history else ROWS, offset=0)
    ids = fitting(connection, limited, PAGE, after=asked.after, with_history=asked.with_history)
    return {"rows": _page(rows(connection, asked, course, most=len(ids)))}


def regradable(connection: Connection, asked: Look, course: Course) -> list[dict[str, Any]]:
    """Return a module's submissions to mark again by student and id. reason: why one can't be; else None."""
    from rabbitry.apps.grading.records.regrading import selected

    ids = [one for found in selected(connection, _selection(asked, course), course) for one in found.ids]
    return [*_candidates(connection, ids)]


def _regradable(connection: Connection, asked: Look, wanted: Filter, course: Course) -> dict[str, Any]:
    """Return a part of them: whole students, or as much of one as an answer holds. next: where to go on, if any is."""
    from rabbitry.apps.grading.records.regrading import selected

    ids: list[str] = []
    looked_at, following = 0, None
    with closing(selected(connection, _selection(asked, course), course, since=asked.from_student)) as students:
        for found in students:
            if len(ids) >= MOST or looked_at >= LOOKED_AT:
                following = {"from_student": found.student, "after": ""}
                break
            ids += [one for one in found.ids if found.student != asked.from_student or one > asked.after]
            looked_at += found.of
    page = _page(_candidates(connection, ids))
    if len(page) < len(ids):
        following = {"from_student": page[-1]["student"], "after": page[-1]["id"]}
    return {"rows": page, "next": following}


def _selection(asked: Look, course: Course) -> Selection:
    from rabbitry.apps.grading.records.regrading import Selection

    return Selection(course.module(asked.module or "").name, asked.since, asked.student, asked.all_attempts)


def _candidates(connection: Connection, ids: Sequence[str]) -> Iterator[dict[str, Any]]:
    from rabbitry.apps.grading.records.regrading import candidates

    return (one.as_dict() | {"reason": reason} for one, reason in candidates(connection, ids))


def _page(entries: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the first entries that fit into an answer, one at least."""
    page: list[dict[str, Any]] = []
    size = 0
    for one in entries:
        size += len(msgspec.json.encode(one))
        if page and size > PAGE:
            break
        page.append(one)
    return page


def _submission(connection: Connection, asked: Look, course: Course, least: int) -> dict[str, Any]:
    from rabbitry.apps.grading.records.requests import described

    found = described(connection, asked.submission, course, least=least, student=asked.student)
    if asked.modules is not None and found["module"] not in asked.modules:
        # The words of an unknown id: the asker is not to learn that it is one of another module.
        raise NoSuchID(f"no submission has the id {asked.submission!r}, or an id that begins so")
    return found


def _before(connection: Connection, asked: Look, wanted: Filter, course: Course) -> str | None:
    from rabbitry.apps.grading.records.course import attempt_before

    return attempt_before(connection, asked.submission)


def _attempts(connection: Connection, asked: Look, wanted: Filter, course: Course) -> dict[str, Any]:
    from rabbitry.apps.grading.records import judging

    student, module = asked.student or "", course.module(asked.module or "").name
    since = (datetime.now(UTC) - timedelta(seconds=HOUR)).isoformat(timespec="microseconds")
    taken = judging.taken_since(connection, student, module, since)
    found: dict[str, Any] = msgspec.to_builtins(Attempts(taken, judging.attempts_of(connection, student, module)))
    return found


def _requests(connection: Connection, asked: Look, wanted: Filter, course: Course) -> dict[str, Any]:
    from rabbitry.apps.grading.records import requests

    found = requests.waiting(connection, wanted)
    return {"requests": _page(one.as_dict() for one in found), "total": requests.count(connection, wanted)}


def _request(connection: Connection, asked: Look, wanted: Filter, course: Course) -> dict[str, Any]:
    from rabbitry.apps.grading.records import requests

    found = requests.one(connection, asked.number)
    if wanted.modules is not None and found.module not in wanted.modules:
        raise NoSuchID(f"there is no request {asked.number}")
    return found.as_dict()


def _statistics(connection: Connection, asked: Look, wanted: Filter, course: Course) -> dict[str, Any]:
    from rabbitry.apps.grading.records.statistics import statistics_of

    return statistics_of(connection, course.module(asked.module or "").name, course)


def _runs(connection: Connection, asked: Look, wanted: Filter, course: Course) -> list[dict[str, Any]]:
    from rabbitry.apps.grading.records.regraded import runs_of

    return runs_of(connection, course.module(asked.module or "").name)


def _run(connection: Connection, asked: Look, wanted: Filter, course: Course) -> dict[str, Any]:
    from rabbitry.apps.grading.records.regraded import run_of

    return run_of(connection, asked.number)


def _result(connection: Connection, asked: Look, wanted: Filter, course: Course) -> dict[str, Any]:
    from rabbitry.apps.grading.records.regraded import result_of

    return result_of(connection, asked.number)


def _releases(connection: Connection, asked: Look, wanted: Filter, course: Course) -> list[dict[str, Any]]:
    from rabbitry.apps.grading.records.releases import releases_of

    return [one.as_dict() for one in releases_of(connection, course.module(asked.module or "").name)]


def _room(connection: Connection, asked: Look, wanted: Filter, course: Course) -> dict[str, Any]:
    from rabbitry.apps.grading.records import keeping
    from rabbitry.apps.grading.records.course import place_of_files

    used = None if place_of_files(connection) is None else keeping.used(connection)
    return {"used": used, "total": course.largest_total}


_READERS: Final[dict[str, Callable[[Connection, Look, Filter, Course], Any]]] = {
    "submissions": _submissions,
    "requests": _requests,
    "request": _request,
    "statistics": _statistics,
    "rows": _rows,
    "before": _before,
    "attempts": _attempts,
    "regradable": _regradable,
    "runs": _runs,
    "run": _run,
    "result": _result,
    "room": _room,
    "releases": _releases,
}
