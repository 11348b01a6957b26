"""The page's routes for requests for another look."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
from fastapi import APIRouter, Request, Response

from rabbitry._decode import decode_json
from rabbitry.apps import Role, needs, user_of
from rabbitry.apps.api import answers, json_response
from rabbitry.apps.grading import staff
from rabbitry.apps.grading.answers import Asked, Requests
from rabbitry.apps.grading.asking import Looking
from rabbitry.apps.grading.looking import Look
from rabbitry.apps.grading.message import LONGEST_NAME
from rabbitry.apps.grading.people import ASSISTANT, COORDINATOR, DEMONSTRATOR, STAFF, STUDENT, person_of
from rabbitry.apps.grading.rows import Request as Answered
from rabbitry.apps.grading.signing import signer_of
from rabbitry.apps.grading.students import request as ask
from rabbitry.apps.grading.students import student_number
from rabbitry.exceptions import Undecodable, UsageError

if TYPE_CHECKING:
    from rabbitry.apps.grading.stages import Wiring

SHOWN: Final = 100
"""Requests on one page of the list."""


class Asking(msgspec.Struct, forbid_unknown_fields=True):
    """A request as the page sends it."""

    student: str
    reason: str


class Answering(msgspec.Struct, forbid_unknown_fields=True):
    """An answer as the page sends it. answer: upheld or refused."""

    answer: str
    role: str
    who: str = ""
    remark: str = ""


class RequestRoutes:
    """The routes. wiring: a function that returns the exchange and course. looking: reads the records.

    key: the file with the private key that signs answers; None signs nothing.
    """

    def __init__(
        self,
        url: str,
        wiring: Callable[[], Awaitable[Wiring]],
        looking: Looking,
        key: Path | None = None,
    ) -> None:
        self._url = url
        self._wiring = wiring
        self._looking = looking
        self._key = key
        self._asking: set[str] = set()

    def add_to(self, router: APIRouter) -> None:
        """Add the routes."""
        router.add_api_route("/api/requests", self.waiting, responses=answers(Requests))
        router.add_api_route(
            "/api/submissions/{identity}/requests", self.ask, methods=["POST"], responses=answers(Asked)
        )
        router.add_api_route("/api/requests/{number}", self.answer, methods=["POST"], responses=answers(Answered))

    @needs(Role.VIEWER, *STAFF)
    async def waiting(self, request: Request, find: str = "", module: str = "", page: int = 0) -> Response:
        """List a page of the requests that wait for an answer, oldest first."""
        page = min(max(page, 0), 1_000_000)
        modules = person_of(user_of(request)).modules
        asked = Look("requests", find.strip()[:200], module or None, None, SHOWN, page * SHOWN, modules=modules)
        return json_response(await self._looking.read(asked) | {"each": SHOWN})

    @needs(Role.OPERATOR, STUDENT, COORDINATOR)
    async def ask(self, identity: str, request: Request) -> Response:
        """Ask for another look at a confirmed submission, over the broker."""
        asked = _decoded(await request.body(), Asking)
        wiring = await self._wiring()
        number = person_of(user_of(request)).number(asked.student.strip())
        student = student_number(number, wiring.course)
        # Without a coordinator each request waits on the broker, and its page for a reply: a student has one at a time.
        if str(student) in self._asking:
            raise UsageError(f"a request of student {student} is being sent: wait for its reply")
        self._asking.add(str(student))
        try:
            return json_response({"request": await ask(wiring, self._url, identity, student, asked.reason)})
        finally:
            self._asking.discard(str(student))

    @needs(Role.OPERATOR, DEMONSTRATOR, ASSISTANT)
    async def answer(self, number: int, request: Request) -> Response:
        """Answer a request, over the broker. One that is upheld is marked again."""
        given = _decoded(await request.body(), Answering)
        wiring = await self._wiring()
        person = person_of(user_of(request))
        person.check_inbox(given.role)
        asked = await self._looking.read(Look("request", number=number, modules=person.modules))
        who = person.name or given.who.strip()[:LONGEST_NAME] or person.who
        told = staff.made(asked["submission"], number, given.answer, given.role, who, given.remark)
        signer = await asyncio.to_thread(signer_of, self._key, wiring.course)
        return json_response((await staff.answer(wiring, self._url, told, signer=signer)).as_dict())


def _decoded(body: bytes, kind: type[Any]) -> Any:
    try:
        return decode_json(body, kind)
    except Undecodable as error:
        raise UsageError(f"invalid request: {error}") from error
