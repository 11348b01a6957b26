"""The page's routes for submitted files: to download, as text, and beside the student's attempt before."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Annotated, Final, TypeAlias
from urllib.parse import quote

from fastapi import APIRouter, Query, Request, Response

from rabbitry._ids import NoSuchID
from rabbitry.apps import Role, needs, user_of
from rabbitry.apps.api import answers, json_response
from rabbitry.apps.grading.answers import Changes, Room, Text
from rabbitry.apps.grading.comments import LONGEST_PATH
from rabbitry.apps.grading.comparison import Attempt, compared
from rabbitry.apps.grading.files import VARIABLE, Kept
from rabbitry.apps.grading.looking import Look
from rabbitry.apps.grading.message import file_name
from rabbitry.apps.grading.people import EVERYBODY, STAFF, Person, person_of
from rabbitry.apps.grading.showing import shown
from rabbitry.exceptions import UsageError

if TYPE_CHECKING:
    from rabbitry.apps.grading.asking import Looking
    from rabbitry.apps.grading.files import Files
    from rabbitry.apps.grading.modules import Course
    from rabbitry.apps.grading.reading import Reading
    from rabbitry.apps.grading.records import Database

OCTETS: Final = "application/octet-stream"
PathInside: TypeAlias = Annotated[str, Query(max_length=LONGEST_PATH)]
"""The path of a file in a submitted archive; empty for the submission itself."""
_HARMLESS: Final = {
    "Content-Security-Policy": "sandbox; default-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
"""Headers with which no browser shows a file of others as a page of this site, or runs it."""


class FileRoutes:
    """The routes. records: returns the open database. database: its URL; None for the user's.

    looking: reads the course's records, which may be elsewhere. course: returns the course. reading: the turns at
    reading files.
    """

    def __init__(
        self,
        course: Callable[[], Awaitable[Course]],
        records: Callable[[], Awaitable[Database | None]],
        looking: Looking,
        reading: Reading,
        database: str | None,
    ) -> None:
        self._course = course
        self._records = records
        self._looking = looking
        self._reading = reading
        self._database_url = database

    def add_to(self, router: APIRouter) -> None:
        """Add the routes."""
        content = {OCTETS: {"schema": {"type": "string", "format": "binary"}}}
        router.add_api_route(
            "/api/files/{identity}", self.file, response_class=Response, responses={200: {"content": content}}
        )
        router.add_api_route("/api/texts/{identity}", self.text, responses=answers(Text))
        image = {"image/png": {"schema": {"type": "string", "format": "binary"}}}
        router.add_api_route(
            "/api/pictures/{identity}/{number}",
            self.picture,
            response_class=Response,
            responses={200: {"content": image}},
        )
        router.add_api_route("/api/room", self.room, responses=answers(Room))
        router.add_api_route("/api/changes/{identity}", self.changes, responses=answers(Changes))

    @needs(Role.OPERATOR, *EVERYBODY)
    async def file(self, request: Request, identity: str) -> Response:
        """Return the file as submitted. No browser shows it as a page of this site, whatever it contains."""
        _, name, data = await self._handed_in(person_of(user_of(request)), identity)
        plain = "".join(letter if letter.isascii() and letter not in '"\\%' else "_" for letter in name)
        return Response(
            data,
            media_type=OCTETS,
            headers={
                "Content-Disposition": f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}",
                **_HARMLESS,
            },
        )

    @needs(Role.OPERATOR, *EVERYBODY)
    async def text(self, request: Request, identity: str, path: PathInside = "") -> Response:
        """Return a submitted file's text with its syntax colours; of an archive its files, or the one at a path."""
        person = person_of(user_of(request))
        _, name, data = await self._handed_in(person, identity)
        return json_response(await self._reading.run(partial(shown, data, name, path), student=person.student))

    @needs(Role.OPERATOR, *EVERYBODY)
    async def picture(self, request: Request, identity: str, number: int, path: PathInside = "") -> Response:
        """Return a picture (PNG) that a cell of a submitted notebook shows, by its number; path: in an archive."""
        person = person_of(user_of(request))
        _, name, data = await self._handed_in(person, identity)
        png = await self._reading.run(partial(_picture, data, name, path, number), student=person.student)
        if png is None:
            raise NoSuchID(f"submission {identity!r} shows no picture {number}")
        return Response(png, media_type="image/png", headers=_HARMLESS)

    @needs(Role.OPERATOR, *EVERYBODY)
    async def changes(self, request: Request, identity: str, path: PathInside = "") -> Response:
        """Return the lines that changed since the student's attempt before, in an archive those of one file."""
        person = person_of(user_of(request))
        whole, name, after = await self._handed_in(person, identity)
        previous = await self._looking.read(Look("before", submission=whole))
        if previous is None:
            raise UsageError(f"no attempt before {whole} is kept")
        _, name_before, before = await self._handed_in(person, previous)
        work = partial(compared, Attempt(name_before, before), Attempt(name, after), path)
        return json_response({"id": previous} | await self._reading.run(work, student=person.student))

    @needs(Role.VIEWER, *STAFF)
    async def room(self) -> Response:
        """Return how much of the room for kept files is taken."""
        return json_response(await self._looking.read(Look("room")))

    def kept(self, records: Database) -> Files:
        """Return the kept files. Blocks."""
        from rabbitry.apps.grading.exporting import opened_files
        from rabbitry.apps.grading.records import default_url

        return opened_files(records, self._database_url or default_url(), os.environ.get(VARIABLE))

    async def _handed_in(self, person: Person, given: str) -> tuple[str, str, bytes]:
        """Return the id, the safe name and the content of a submitted file, from the records or an inbox.

        Raises:
            NoSuchID: The person sees no such submission.
            RabbitryError: It is in no inbox here, and the records that are elsewhere can't be asked.
        """
        places = [self._recorded, self._in_inbox]
        if await self._looking.kept() is None:
            places.reverse()  # inboxes here work without a coordinator
        unknown = NoSuchID(f"no submission with the id {given!r} is recorded")
        for place in places:
            try:
                found = await place(person, given)
            except NoSuchID as error:
                if error.is_ambiguous:  # its text may name others' ids
                    raise error if person.sees_all else unknown from error
            else:
                if found is not None:
                    return found
        raise unknown

    async def _recorded(self, person: Person, given: str) -> tuple[str, str, bytes] | None:
        """Return a submitted file from the records; None if it is not kept. Raises NoSuchID."""
        asked = Look("submission", submission=given, student=person.student, modules=person.modules)
        found = await self._looking.read(asked)
        if found["sha256"] is None:
            return None
        files = await self._looking.files(self.kept)
        data = await asyncio.to_thread(files.fetch, Kept(found["sha256"], found["size"]))
        return found["id"], file_name(found["name"], found["id"]), data

    async def _in_inbox(self, person: Person, given: str) -> tuple[str, str, bytes] | None:
        """Return a submitted file from an inbox here; None if the person sees no such entry. Raises NoSuchID."""
        from rabbitry.apps.grading.records import inbox

        records = await self._records()
        if records is None:
            return None
        assignment = (await records.read(partial(inbox.handed_in, given=given))).assignment
        if not person.sees(assignment.student, assignment.module):
            return None
        return assignment.id, file_name(assignment.name, assignment.id), assignment.solution()


def _picture(data: bytes, name: str, path: str, number: int) -> bytes | None:
    """Return a picture of a notebook, by its number; path: in an archive. Blocks."""
    from rabbitry.apps.grading.contents import opened
    from rabbitry.apps.grading.notebooks import picture_of

    if not path:
        return picture_of(data, number)
    with opened(data, name) as contents:
        return picture_of(contents.read(path), number)
