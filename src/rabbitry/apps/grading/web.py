"""A course's page, as a router for the dashboard: pipeline, submissions, the form, and the inboxes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias, TypeVar

import msgspec
from fastapi import APIRouter, Form, Query, Request, Response, UploadFile

from rabbitry._decode import decode_json
from rabbitry._ids import NoSuchID
from rabbitry.apps import Role, Site, needs, user_of
from rabbitry.apps.api import answers, json_response, route_class
from rabbitry.apps.exceptions import NoRecords, RecordsError
from rabbitry.apps.grading.answers import Before, Decided, Described, Inbox, Opened, Overview, Statistics, Submitted
from rabbitry.apps.grading.asking import Looking
from rabbitry.apps.grading.comments import LineComment
from rabbitry.apps.grading.floods import HOUR, too_many
from rabbitry.apps.grading.looking import Attempts, Look
from rabbitry.apps.grading.message import LONGEST_NAME, Decision, number
from rabbitry.apps.grading.modules import Course, Module, load_course
from rabbitry.apps.grading.people import COORDINATOR, EVERYBODY, STAFF, STUDENT, Person, person_of
from rabbitry.apps.grading.personal import last_marks
from rabbitry.apps.grading.reading import Reading
from rabbitry.apps.grading.roles import ROLES, role_named
from rabbitry.apps.grading.rubric import Score, scored
from rabbitry.apps.grading.showing import LONGEST, comments_in, shown_assignment
from rabbitry.apps.grading.stages import Wiring
from rabbitry.apps.grading.students import Submitter, checked, student_number
from rabbitry.apps.grading.web_accepting import AcceptRoutes
from rabbitry.apps.grading.web_files import FileRoutes
from rabbitry.apps.grading.web_regrades import Audited, RegradeRoutes
from rabbitry.apps.grading.web_releases import ReleaseRoutes
from rabbitry.apps.grading.web_requests import RequestRoutes
from rabbitry.apps.grading.web_similar import SimilarRoutes
from rabbitry.apps.grading.web_undo import UndoRoutes
from rabbitry.exceptions import Closed, ConnectFailed, RabbitryError, RequestTimeout, Undecodable, UsageError

if TYPE_CHECKING:
    from rabbitry.apps.grading.records import Database
    from rabbitry.apps.grading.records.inbox import Item

SHOWN: Final = 100
"""Submissions and waiting items on one page of a list."""
_FORM_BYTES: Final = 20_000
"""Bytes that a form may have beside the file."""

PageNumber: TypeAlias = Annotated[int, Query(ge=0, le=1_000_000)]
T = TypeVar("T")
_logger = logging.getLogger(__name__)


class Verdict(msgspec.Struct, forbid_unknown_fields=True):
    """A decision sent by the page.

    item: the number of the inbox entry that was shown. scores: by the rubric. comments: on lines of the file.
    """

    action: str
    item: int | None = None
    who: str = ""
    mark: float | None = None
    out_of: float | None = None
    feedback: str | None = None
    remark: str | None = None
    scores: dict[str, Score] | None = None
    comments: tuple[LineComment, ...] = ()


class Pages:
    """The page's state: an open database and a client for submissions, each from its first use. `open` closes them.

    Code that needs a database is imported on first use, because it would slow each start of the dashboard.

    url: the broker. database: its URL; None for the user's. wiring: the exchange; its course is not used. key: the file
    with the private key that signs answers to requests; None signs nothing. audit: see `Site`; None logs nothing.
    """

    def __init__(
        self,
        url: str,
        database: str | None = None,
        *,
        wiring: Wiring | None = None,
        key: Path | None = None,
        audit: Audited | None = None,
    ) -> None:
        self.router: APIRouter = APIRouter(route_class=route_class(self._largest))
        self._url = url
        self._database_url = database
        self._wiring = wiring or Wiring()
        self._course: Course | None = None
        self._database: Database | None = None
        self._submitter: Submitter | None = None
        self._opening = asyncio.Lock()
        self._reading = Reading()
        self._looking = Looking(url, self._known, self._records)
        self._add_routes()
        files = FileRoutes(self._known, self._records, self._looking, self._reading, self._database_url)
        files.add_to(self.router)
        RequestRoutes(url, self._wired, self._looking, key).add_to(self.router)
        UndoRoutes(self._records).add_to(self.router)
        self._similar = SimilarRoutes(self._known, self._looking, files.kept)
        self._similar.add_to(self.router)
        audited = audit or Site(broker=url).audit
        self._regrades = RegradeRoutes(self._wired, self._looking, files.kept, self._database_url, url, audited)
        self._regrades.add_to(self.router)
        AcceptRoutes(self._wired, self._looking, files.kept, audited).add_to(self.router)
        ReleaseRoutes(self._wired, self._looking, files.kept, audited).add_to(self.router)

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Close what was opened, at the end of the block."""
        try:
            yield
        finally:
            await self._close_submitter()
            await self._looking.close()
            await self._similar.close()
            await self._regrades.close()
            if self._database is not None:
                await asyncio.to_thread(self._database.__exit__)

    def _add_routes(self) -> None:
        add = self.router.add_api_route
        add("/api/overview", self.overview, responses=answers(Overview))
        add("/api/stats", self.statistics, responses=answers(Statistics))
        add("/api/submissions", self.submit, methods=["POST"], responses=answers(Submitted))
        add("/api/submissions/{identity}", self.submission, responses=answers(Described | None))
        add("/api/inbox/{role}", self.waiting, responses=answers(Inbox))
        add("/api/inbox/{role}/{identity}", self.item, responses=answers(Opened))
        add("/api/inbox/{role}/{identity}/before", self.before, responses=answers(Before))
        add("/api/inbox/{role}/{identity}", self.decide, methods=["POST"], responses=answers(Decided))

    # -- reading ---------------------------------------------------------------------------------------

    @needs(Role.VIEWER, *EVERYBODY)
    async def overview(
        self, request: Request, find: str = "", module: str = "", status: str = "", page: PageNumber = 0
    ) -> Response:
        """Count the stages, and list a page of submissions, the last changed first."""
        from rabbitry.apps.grading.records import inbox, outbox
        from rabbitry.apps.grading.records.course import Filter

        known, person = await self._known(), person_of(user_of(request))

        def of_inboxes(numbers: dict[str, int]) -> dict[str, int]:
            return {role: number for role, number in numbers.items() if role in person.inboxes}

        def read(connection: Any) -> dict[str, Any]:
            return {
                "inboxes": of_inboxes(inbox.counts(connection, person.within(Filter()))),
                "newest": of_inboxes(inbox.newest(connection)),
                "outbox": outbox.count(connection) if person.inboxes else 0,
            }

        asked = Look("submissions", find.strip()[:200], module or None, status or None, SHOWN, page * SHOWN)
        asked.student, asked.modules = person.student, person.modules
        nothing: dict[str, Any] = {"inboxes": {}, "newest": {}, "outbox": 0}
        found = await self._read(read, nothing) | await self._submissions(asked)
        found["submissions"] = [person.shown(one) for one in found["submissions"]]
        modules = [name for name in known.modules if person.modules is None or name in person.modules]
        deadlines = _deadlines(known, modules, person.student or "") if person.submits else {}
        about = {"modules": modules, "deadlines": deadlines, "who": person.who, "person": msgspec.to_builtins(person)}
        return json_response(found | {"each": SHOWN} | about)

    async def _submissions(self, asked: Look) -> dict[str, Any]:
        """Return a page of the submissions. If the records are elsewhere and can't be asked, tell why: inboxes work."""
        is_here = await self._looking.kept() is not None
        try:
            return {"away": None, **await self._looking.read(asked)}
        except (Closed, ConnectFailed, RecordsError, RequestTimeout, UsageError) as error:
            if is_here:
                raise
            return {"away": str(error), "statuses": {}, "requests": 0, "submissions": [], "total": 0}

    @needs(Role.VIEWER, *STAFF)
    async def statistics(self, request: Request, module: str) -> Response:
        """Return the statistics of a module."""
        name = (await self._known()).module(module).name
        person_of(user_of(request)).check_module(name)
        return json_response(await self._looking.read(Look("statistics", module=name)))

    @needs(Role.VIEWER, *EVERYBODY)
    async def submission(self, request: Request, identity: str) -> Response:
        """Return a submission with its history, and whether its file can be had; `null` if it is unknown."""
        from rabbitry.apps.grading.records import inbox

        person = person_of(user_of(request))
        asked = Look("submission", submission=identity, student=person.student, modules=person.modules)
        try:
            found = await self._looking.read(asked)
        except NoSuchID as error:
            if error.is_ambiguous and person.sees_all:
                raise
            return json_response(None)
        has_file = found["sha256"] is not None
        if not has_file:
            has_file = await self._read(partial(inbox.has, identity=found["id"]), otherwise=False)
        return json_response(person.shown(found) | {"has_file": has_file})

    @needs(Role.VIEWER, *STAFF)
    async def waiting(
        self, request: Request, role: str, find: str = "", module: str = "", page: PageNumber = 0
    ) -> Response:
        """List a page of the submissions that wait for a role's people, oldest first."""
        from rabbitry.apps.grading.records import course, inbox, judgements

        name, person = role_named(role).name, person_of(user_of(request))
        person.check_inbox(name)
        wanted = person.within(course.Filter(find.strip()[:200], module or None, None, SHOWN, page * SHOWN))

        def read(connection: Any) -> dict[str, Any]:
            items = inbox.waiting(connection, name, wanted)
            marked = judgements.marked(connection, [item.id for item in items], person.name)
            briefs = [_brief(item, is_marked=item.id in marked) for item in items]
            return {"items": briefs, "total": inbox.count(connection, name, wanted)}

        return json_response(await self._read(read, {"items": [], "total": 0}) | {"each": SHOWN})

    @needs(Role.OPERATOR, *STAFF)
    async def item(self, request: Request, role: str, identity: str) -> Response:
        """Return a waiting submission, with the solution if it is text."""
        from rabbitry.apps.grading.records import judgements

        person = person_of(user_of(request))
        found = await self._item(person, role, identity)
        assignment = found.assignment
        nothing: set[int] = set()
        marked = await self._read(partial(judgements.marked, items=[found.id], who=person.name), nothing)
        known = await self._known()
        blind = known.blind(assignment.module, found.role)
        text = await asyncio.to_thread(assignment.readable_text)
        return json_response(
            _brief(found, is_marked=found.id in marked)
            | await self._reading.run(partial(shown_assignment, assignment))
            | {
                "solution": (text or "")[:LONGEST],
                "comments": await asyncio.to_thread(comments_in, assignment.history),
                "marks": [asdict(one) for one in last_marks(assignment.history)],
                "rubric": msgspec.to_builtins(known.rubric(assignment.module, found.role)),
                "is_final": blind is not None and blind.is_final,
                "actions": list(ROLES[role_named(role).name].actions),
                "remarks": [_shown(remark) for remark in assignment.remarks],
            }
        )

    @needs(Role.OPERATOR, *STAFF)
    async def before(self, request: Request, role: str, identity: str) -> Response:
        """Return the id of the student's attempt before a waiting submission; null if none is kept.

        It is asked for apart: the records may be elsewhere, and an inbox works without them.
        """
        found = await self._item(person_of(user_of(request)), role, identity)
        return json_response({"id": await self._looking.read(Look("before", submission=found.assignment.id))})

    # -- writing ---------------------------------------------------------------------------------------

    @needs(Role.OPERATOR, STUDENT, COORDINATOR)
    async def submit(
        self,
        request: Request,
        module: Annotated[str, Form()],
        file: UploadFile,
        student: Annotated[str, Form()] = "",
        *,
        anyway: Annotated[bool, Form()] = False,
    ) -> Response:
        """Submit a file; answer with its id once the broker has confirmed it. A student need not name their number.

        anyway: also if it can't count by the deadlines. It is recorded and kept then, and counts after an extension.
        """
        known, person = await self._known(), person_of(user_of(request))
        who, wanted = student_number(person.number(student.strip()), known), known.module(module)
        await self._check_attempt(str(who), wanted, anyway=anyway)
        data = checked(await file.read(known.largest_submission + 1), "the file", known)
        identity = await self._hand_in(partial(_submit, who, wanted, data, file.filename or "solution", person.name))
        return json_response({"id": identity})

    async def _check_attempt(self, student: str, module: Module, *, anyway: bool) -> None:
        """Raise UsageError if an attempt now is one too many or, unless it is handed in anyway, could not count.

        Here this machine's clock is that of the first taker.
        """
        most, now, told = (await self._known()).per_hour, datetime.now(UTC), await self._attempts(student, module)
        if most is not None and len(told.taken) >= most:
            seconds = HOUR - (now - datetime.fromisoformat(told.taken[-most])).total_seconds()
            raise UsageError(too_many(student, module.name, most, seconds))
        rules = module.deadlines
        if rules is None or anyway:
            return
        refused = rules.refusal(student, told.attempts, now)
        if refused is not None:
            raise UsageError(
                f"module {module.name!r} takes no submission of student {student} now: it is {refused}; handed in all "
                "the same, it is kept, and does not count"
            )

    async def _attempts(self, student: str, module: Module) -> Attempts:
        """Return a student's attempts; none if the records can't be asked: the first role checks what comes to it."""
        try:
            found = await self._looking.read(Look("attempts", module=module.name, student=student))
        except (Closed, ConnectFailed, RecordsError, RequestTimeout, UsageError) as error:
            _logger.info("a submission of student %s is not checked against those before: %s", student, error)
            return Attempts()
        return msgspec.convert(found, Attempts)

    @needs(Role.OPERATOR, *STAFF)
    async def decide(self, role: str, identity: str, request: Request) -> Response:
        """Record a decision; the role that runs with --person publishes it."""
        from rabbitry.apps.grading.records import inbox

        try:
            verdict = decode_json(await request.body(), Verdict)
        except Undecodable as error:
            raise UsageError(f"invalid decision: {error}") from error
        person = person_of(user_of(request))
        who = person.name or verdict.who.strip()[:LONGEST_NAME] or person.who
        decision = Decision(
            who, verdict.mark, verdict.out_of, verdict.feedback or None, verdict.remark, verdict.comments
        )
        found = await self._item(person, role, identity)
        known = await self._known()
        if verdict.scores is not None:
            decision = scored(known.rubric(found.assignment.module, found.role), verdict.scores, decision)
        if verdict.item not in (None, found.id):
            raise UsageError("this assignment was sent again after you opened it: open it again")
        settle = partial(inbox.settle, found=found, action=verdict.action, decision=decision, course=known)
        records = await self._records()
        if records is None:
            raise _nothing_waits(identity)
        done = await records.write(settle)
        return json_response({"id": done.id, "status": done.status})

    # -- resources -------------------------------------------------------------------------------------

    async def _known(self) -> Course:
        if self._course is None:
            self._course = await asyncio.to_thread(load_course)
        return self._course

    async def _wired(self) -> Wiring:
        return replace(self._wiring, course=await self._known())

    async def _largest(self) -> int:
        return (await self._known()).largest_submission + _FORM_BYTES

    async def _records(self) -> Database | None:
        """Open the database; None if no role has created it yet: reading does not create it."""
        from rabbitry.apps.grading.records import Database

        async with self._opening:
            if self._database is None:
                database = Database(self._database_url, existing=True)
                try:
                    await asyncio.to_thread(database.__enter__)
                except NoRecords:
                    return None
                self._database = database
        return self._database

    async def _read(self, work: Callable[[Any], T], otherwise: T) -> T:
        records = await self._records()
        return otherwise if records is None else await records.read(work)

    async def _item(self, person: Person, role: str, identity: str) -> Item:
        from rabbitry.apps.grading.records import inbox

        name = role_named(role).name
        person.check_inbox(name)
        records = await self._records()
        if records is None:
            raise _nothing_waits(identity)
        try:
            found = await records.read(partial(inbox.item, identity=identity, role=name, sees=person.sees))
        except NoSuchID as error:
            raise _nothing_waits(identity) if error.is_ambiguous and not person.sees_all else error from error
        if not person.sees(found.assignment.student, found.assignment.module):
            raise _nothing_waits(identity)
        return found

    async def _hand_in(self, submit: Callable[[Submitter], Awaitable[str]]) -> str:
        if self._submitter is None:
            self._submitter = Submitter(await self._wired(), self._url)
        try:
            return await submit(self._submitter)
        except Closed:
            await self._close_submitter()  # closed for good; the next submission connects again
            raise

    async def _close_submitter(self) -> None:
        submitter, self._submitter = self._submitter, None
        if submitter is not None:
            with contextlib.suppress(RabbitryError):
                await submitter.__aexit__(None, None, None)


async def _submit(
    student: int | str, module: Any, data: bytes, name: str, who: str | None, submitter: Submitter
) -> str:
    return await submitter.submit(student, module, data, name[:200], who=who)


def _deadlines(course: Course, modules: Sequence[str], student: str) -> dict[str, Any]:
    rules = {name: course.modules[name].deadlines for name in modules}
    at = datetime.now(UTC)
    return {name: found.left(student, at) for name, found in rules.items() if found is not None}


def _nothing_waits(identity: str) -> NoSuchID:
    return NoSuchID(f"no submission with the id {identity!r} waits for a decision")


def _brief(item: Item, *, is_marked: bool) -> dict[str, Any]:
    assignment = item.assignment
    return {
        "id": assignment.id,
        "item": item.id,
        "role": item.role,
        "arrived_at": item.arrived_at,
        "student": assignment.student,
        "module": assignment.module,
        "name": assignment.name,
        "mark": number(assignment.get("Mark")),
        "out_of": number(assignment.get("OutOf")),
        "feedback": _shown(assignment.get("Feedback")),
        "sent_back": len(assignment.remarks),
        "is_marked": is_marked,
    }


def _shown(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value if value is None else value[:LONGEST]
    return msgspec.json.encode(value).decode()[:LONGEST]
