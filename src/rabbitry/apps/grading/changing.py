"""Changes of the records that pages and commands make where these are kept, or ask a coordinator for."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from rabbitry.apps.grading.message import DECLINED, LONGEST_NAME, LONGEST_TEXT, Decision, now, time_of
from rabbitry.exceptions import UsageError

if TYPE_CHECKING:
    from rabbitry.apps.grading.files import Files
    from rabbitry.apps.grading.modules import Course
    from rabbitry.apps.grading.records import Database
    from rabbitry.apps.grading.records.course import Submission


class Change(msgspec.Struct, rename="pascal", omit_defaults=True):
    """A change: accepting a submission that was declined or can't count, withdrawing that, or marking some again.

    Or it sets when the results of a module are released.

    who: the person, for the history. remark: the reason. submission: an id or a prefix, to accept or withdraw.
    accepted_at: the time of the acceptance to withdraw; empty for any. module, since, student, all_attempts: as in a
    selection to mark again. until: when results are released, with an offset from UTC; empty for now.
    """

    what: Literal["accept", "withdraw", "regrade", "release"]
    who: Annotated[str, msgspec.Meta(min_length=1, max_length=LONGEST_NAME)]
    remark: str
    submission: str = ""
    accepted_at: str = ""
    module: str = ""
    since: str | None = None
    student: str | None = None
    all_attempts: bool = False
    until: str = ""


def change(records: Database, files: Files, wanted: Change, course: Course, exchange: str) -> dict[str, Any]:
    """Make a change. Blocks. A running coordinator publishes what follows.

    It is done once if it is asked for twice; but a submission that was declined and can't count by the deadlines is
    submitted by the first acceptance, and counts by the second one.

    Returns:
        The submission that was accepted or whose acceptance was withdrawn (`id`, `student`, `module`, `status`), the
        run, or the release, as JSON data.

    Raises:
        NoSuchID: No submission, or more than one, has such an id.
        UsageError: The remark is empty or too long, the module is unknown, the time is none or has passed, the
            submission can't be accepted, or it has no such acceptance to withdraw.
        RecordsError: The records or the files can't be read or written.
    """
    from rabbitry.apps.grading.accepting import accept, withdraw
    from rabbitry.apps.grading.records.regraded import run_of
    from rabbitry.apps.grading.records.regrading import Selection, begin
    from rabbitry.apps.grading.records.releases import set_until

    remark = wanted.remark.strip()
    if not remark or len(remark) > LONGEST_TEXT:
        raise UsageError(f"the reason must have 1 to {LONGEST_TEXT} characters: students find it in the history")
    decision = Decision(wanted.who, remark=remark)
    if wanted.what == "accept":
        found = accept(records, files, wanted.submission, decision, course, exchange)
        return _changed(found, "submitted" if found.status == DECLINED else found.status)
    if wanted.what == "withdraw":
        mine = partial(withdraw, records, files, wanted.submission, decision, course, exchange)
        found = mine(accepted_at=wanted.accepted_at)
        return _changed(found, found.status)
    module = course.module(wanted.module).name
    if wanted.what == "release":
        time = time_of(wanted.until) if wanted.until else ""
        if time and time <= now():  # with the wrong year, all results would be out at once
            raise UsageError(f"{wanted.until[:60]!r} has passed: give a later time, or none to release the results now")
        release = records.write_now(partial(set_until, module=module, until=time, decision=decision))
        return release.as_dict()
    selection = Selection(module, wanted.since, wanted.student, wanted.all_attempts)
    work = partial(begin, selection=selection, course=course, who=wanted.who, remark=remark, by_coordinator=True)
    run = records.write_now(work)
    return records.read_now(partial(run_of, number=run.id))


def _changed(found: Submission, status: str) -> dict[str, Any]:
    return {"id": found.id, "student": found.student, "module": found.module, "status": status}
