"""The page of a course, as a router that the dashboard mounts: pipeline, submissions, the form, and the inboxes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import msgspec
from fastapi import APIRouter, Form, Request, Response, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from rabbitry._decode import decode_json
from rabbitry.apps.grading.message import LONGEST_NAME, Decision, number, user_name
from rabbitry.apps.grading.modules import Course, load_course
from rabbitry.apps.grading.roles import ROLES, role_named
from rabbitry.apps.grading.stages import Wiring
from rabbitry.apps.grading.students import Desk, checked, student_number
from rabbitry.exceptions import (
    Closed,
    ConnectFailed,
    PublishError,
    RabbitryError,
    RecordsError,
    Undecodable,
    UsageError,
)

if TYPE_CHECKING:
    from rabbitry.apps.grading.records import Database
    from rabbitry.apps.grading.records.inbox import Item

STATIC: Final = Path(__file__).parent / "static"
SHOWN: Final = 100
"""Submissions, and waiting items, that the page lists."""
_FORM_BYTES: Final = 20_000
"""What a form may have beside the file."""
_LONGEST_SHOWN: Final = 200_000
"""Letters of a solution that the page shows."""

T = TypeVar("T")
log = logging.getLogger("rabbitry.apps.grading")


def _route_class(largest: Callable[[], Awaitable[int]]) -> type[APIRoute]:
    """Make the class of routes that answer errors as JSON, which the page shows.

    largest: gives how many bytes a request may have. That is looked at before its body is read: the parser of forms
    would put all of it on the disk.
    """

    class Told(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Any]:
            handle = super().get_route_handler()

            async def told(request: Request) -> Response:
                try:
                    if request.method == "POST":
                        _check_length(request, await largest())
                    answered: Response = await handle(request)
                except UsageError as error:
                    return JSONResponse({"error": str(error)}, 400)
                except RequestValidationError as error:
                    wrong = ", ".join(sorted({str(each["loc"][-1]) for each in error.errors()}))
                    return JSONResponse({"error": f"missing, or not as the form sends it: {wrong}"}, 400)
                except HTTPException as error:  # of the parser of forms
                    return JSONResponse({"error": error.detail}, error.status_code)
                except (ConnectFailed, PublishError, RecordsError, Closed) as error:
                    log.warning("%s %s: %s", request.method, request.url.path, error)
                    return JSONResponse({"error": str(error)}, 503)
                return answered

            return told

    return Told


class Verdict(msgspec.Struct, forbid_unknown_fields=True):
    """What the page sends for a decision."""

    action: str
    who: str = ""
    mark: float | None = None
    out_of: float | None = None
    feedback: str | None = None
    remark: str | None = None


class Pages:
    """The page's state: an open database and a desk, each from its first use on. `open` closes them at its end.

    What needs a database is imported when somebody looks, since each start of the dashboard would pay for it.

    url: the broker's. database: its URL; None for the user's. wiring: the exchange, whose course is not looked at.
    """

    def __init__(self, url: str, database: str | None = None, *, wiring: Wiring | None = None) -> None:
        self.router = APIRouter(route_class=_route_class(self._largest))
        self._url = url
        self._database_url = database
        self._wiring = wiring or Wiring()
        self._course: Course | None = None
        self._database: Database | None = None
        self._desk: Desk | None = None
        self._opening = asyncio.Lock()
        self._add_routes()

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Close what was opened, at the end of the block."""
        try:
            yield
        finally:
            await self._close_desk()
            if self._database is not None:
                await asyncio.to_thread(self._database.__exit__)

    def _add_routes(self) -> None:
        add = self.router.add_api_route
        add("/", self.page, include_in_schema=False)
        add("/api/overview", self.overview)
        add("/api/submissions", self.submit, methods=["POST"])
        add("/api/submissions/{identity}", self.submission)
        add("/api/inbox/{role}", self.waiting)
        add("/api/inbox/{role}/{identity}", self.item)
        add("/api/inbox/{role}/{identity}", self.decide, methods=["POST"])

    # -- what is shown ---------------------------------------------------------------------------------

    async def page(self) -> FileResponse:
        """Give the page itself."""
        return FileResponse(STATIC / "index.html")

    async def overview(self, find: str = "") -> Response:
        """Count the stages, and list the submissions that changed last."""
        from rabbitry.apps.grading.records import course, inbox, outbox

        known = await self._known()

        def read(connection: Any) -> dict[str, Any]:
            found = course.submissions_of(connection, find=find.strip()[:64] or None, limit=SHOWN)
            return {
                "statuses": course.counts(connection),
                "inboxes": inbox.counts(connection),
                "outbox": outbox.count(connection),
                "submissions": [one.as_dict() for one in found],
                "modules": list(known.modules),
                "who": user_name(),
            }

        return _json(await self._read(read))

    async def submission(self, identity: str) -> Response:
        """Give a submission with its history; `null` where nothing is known of it."""
        from rabbitry.apps.grading.service import answer

        return Response(await answer(await self._records(), identity), media_type="application/json")

    async def waiting(self, role: str) -> Response:
        """List what waits for a role's people."""
        from rabbitry.apps.grading.records import inbox

        items = await self._read(partial(inbox.waiting, role=role_named(role).name, limit=SHOWN))
        return _json([_brief(item) for item in items])

    async def item(self, role: str, identity: str) -> Response:
        """Give what waits, with the solution."""
        from rabbitry.apps.grading.records import inbox

        found = await self._read(partial(inbox.item, identity=identity, role=role_named(role).name))
        text = found.assignment.solution_text()
        return _json(
            _brief(found)
            | {
                "solution": text[:_LONGEST_SHOWN],
                "is_cut": len(text) > _LONGEST_SHOWN,
                "actions": list(ROLES[role_named(role).name].actions),
                "remarks": [str(remark) for remark in found.assignment.remarks],
            }
        )

    # -- what is done ----------------------------------------------------------------------------------

    async def submit(
        self, request: Request, student: Annotated[str, Form()], module: Annotated[str, Form()], file: UploadFile
    ) -> Response:
        """Hand in a file; answers with its id once the broker has confirmed it."""
        known = await self._known()
        who, wanted = student_number(student.strip()), known.module(module)
        data = checked(await file.read(known.largest_submission + 1), "the file", known)
        identity = await self._hand_in(partial(_submit, who, wanted, data, file.filename or "solution"))
        return _json({"id": identity})

    async def decide(self, role: str, identity: str, request: Request) -> Response:
        """Record a decision; the role that runs with --person publishes it."""
        from rabbitry.apps.grading.records import inbox

        try:
            verdict = decode_json(await request.body(), Verdict)
        except Undecodable as error:
            raise UsageError(f"that is no decision: {error}") from error
        who = verdict.who.strip()[:LONGEST_NAME] or user_name()
        decision = Decision(who, verdict.mark, verdict.out_of, verdict.feedback or None, verdict.remark)
        found = await self._read(partial(inbox.item, identity=identity, role=role_named(role).name))
        known = await self._known()
        settle = partial(inbox.settle, found=found, action=verdict.action, decision=decision, course=known)
        done = await (await self._records()).write(settle)
        return _json({"id": done.id, "status": done.status})

    # -- what it needs ---------------------------------------------------------------------------------

    async def _known(self) -> Course:
        if self._course is None:
            self._course = await asyncio.to_thread(load_course)
        return self._course

    async def _largest(self) -> int:
        return (await self._known()).largest_submission + _FORM_BYTES

    async def _records(self) -> Database:
        from rabbitry.apps.grading.records import Database

        async with self._opening:
            if self._database is None:
                database = Database(self._database_url)
                await asyncio.to_thread(database.__enter__)
                self._database = database
        return self._database

    async def _read(self, work: Callable[[Any], T]) -> T:
        return await (await self._records()).read(work)

    async def _hand_in(self, submit: Callable[[Desk], Awaitable[str]]) -> str:
        course = await self._known()
        if self._desk is None:
            self._desk = Desk(replace(self._wiring, course=course), self._url)
        try:
            return await submit(self._desk)
        except Closed:
            await self._close_desk()  # closed for good; the next one connects anew
            raise

    async def _close_desk(self) -> None:
        desk, self._desk = self._desk, None
        if desk is not None:
            with contextlib.suppress(RabbitryError):
                await desk.__aexit__(None, None, None)


def _check_length(request: Request, limit: int) -> None:
    length = request.headers.get("content-length", "")
    # Where both are there, the body comes in chunks and is as long as they are (RFC 9112, 6.3).
    if not (length.isascii() and length.isdigit() and len(length) <= 18) or "transfer-encoding" in request.headers:
        raise UsageError("say the length of what you send (Content-Length)")
    if int(length) > limit:
        raise UsageError(f"too large: more than {limit} bytes")


async def _submit(student: int, module: Any, data: bytes, name: str, desk: Desk) -> str:
    return await desk.submit(student, module, data, name[:200])


def _brief(item: Item) -> dict[str, Any]:
    assignment = item.assignment
    return {
        "id": assignment.id,
        "role": item.role,
        "arrived_at": item.arrived_at,
        "student": assignment.student,
        "module": assignment.module,
        "name": assignment.name,
        "mark": number(assignment.get("Mark")),
        "out_of": number(assignment.get("OutOf")),
        "feedback": _shown(assignment.get("Feedback")),
        "sent_back": len(assignment.remarks),
    }


def _shown(value: object) -> str | None:
    return None if value is None else str(value)[:_LONGEST_SHOWN]


def _json(data: object) -> Response:
    return Response(msgspec.json.encode(data), media_type="application/json")
