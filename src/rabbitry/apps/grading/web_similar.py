"""The page's routes for similar solutions. Comparing takes long, so the page starts it and asks for its result."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec
from fastapi import APIRouter, Request, Response

from rabbitry._decode import decode_json
from rabbitry._errors import described
from rabbitry.apps import Role, needs, user_of
from rabbitry.apps.api import answers, json_response
from rabbitry.apps.grading.answers import Compared, Similar
from rabbitry.apps.grading.looking import Look
from rabbitry.apps.grading.message import now
from rabbitry.apps.grading.modules import Course
from rabbitry.apps.grading.people import STAFF, person_of
from rabbitry.exceptions import RabbitryError, Undecodable, UsageError

if TYPE_CHECKING:
    from rabbitry.apps.grading.asking import Looking
    from rabbitry.apps.grading.files import Files
    from rabbitry.apps.grading.records import Database

_logger = logging.getLogger(__name__)
Opened: TypeAlias = "Callable[[Database], Files]"
_MOST_KEPT: Final = 20
"""Modules whose results are kept in memory."""


class Wanted(msgspec.Struct, forbid_unknown_fields=True):
    """The module to compare."""

    module: str


class SimilarRoutes:
    """The routes. known, files: return the course, and the kept files of records here. looking: reads the records."""

    def __init__(
        self,
        known: Callable[[], Awaitable[Course]],
        looking: Looking,
        files: Opened,
    ) -> None:
        self._known = known
        self._looking = looking
        self._files = files
        self._found: dict[str, dict[str, Any]] = {}
        self._running: tuple[str, asyncio.Task[None]] | None = None
        self._is_open = True

    def add_to(self, router: APIRouter) -> None:
        """Add the routes."""
        router.add_api_route("/api/similar", self.result, responses=answers(Similar))
        router.add_api_route("/api/similar", self.start, methods=["POST"], responses=answers(Similar))
        router.add_api_route("/api/similar/{one}/{other}", self.compared, responses=answers(Compared))

    async def close(self) -> None:
        """Stop the comparison that runs, and wait for its end."""
        self._is_open = False
        if self._running is not None:
            await asyncio.gather(self._running[1], return_exceptions=True)

    @needs(Role.OPERATOR, *STAFF)
    async def result(self, request: Request, module: str) -> Response:
        """Return the pairs of a module as they were found last, and whether a comparison of it runs."""
        name = (await self._known()).module(module).name
        person_of(user_of(request)).check_module(name)
        return json_response(self._told(name))

    @needs(Role.OPERATOR, *STAFF)
    async def start(self, request: Request) -> Response:
        """Begin to compare the submissions of a module, one module at a time."""
        try:
            wanted = decode_json(await request.body(), Wanted)
        except Undecodable as error:
            raise UsageError(f"invalid request: {error}") from error
        module = (await self._known()).module(wanted.module).name
        person_of(user_of(request)).check_module(module)
        if self._running is not None and not self._running[1].done():
            if self._running[0] != module:
                raise UsageError(f"the submissions of module {self._running[0]!r} are being compared: wait for the end")
        else:
            self._running = module, asyncio.create_task(self._compare(module), name=f"similar {module}")
        return json_response(self._told(module))

    @needs(Role.OPERATOR, *STAFF)
    async def compared(self, request: Request, one: str, other: str) -> Response:
        """Return two submissions' texts, in parts."""
        from rabbitry.apps.grading.records.course import Submission
        from rabbitry.apps.grading.similar import course as compare

        known, person = await self._known(), person_of(user_of(request))
        both = []
        for given in (one, other):
            asked = Look("submission", submission=given, modules=person.modules)
            both.append(msgspec.convert(await self._looking.read(asked), Submission))
        files = await self._looking.files(self._files)
        return json_response(await asyncio.to_thread(compare.compared, files, both[0], both[1], known))

    async def _compare(self, module: str) -> None:
        try:
            told = await self._compared(module)
        except RabbitryError as error:
            told = {"error": str(error)}
        except Exception as error:  # else the page would tell of nothing, and offer to compare again
            _logger.exception("comparing the submissions of module %r failed", module)
            told = {"error": f"comparing failed: {described(error)}"}
        while len(self._found) >= _MOST_KEPT:
            self._found.pop(next(iter(self._found)))
        self._found[module] = told | {"at": now()}

    async def _compared(self, module: str) -> dict[str, Any]:
        from rabbitry.apps.grading.similar.course import Search, counting, similar, starter_runs

        known = await self._known()
        rows = counting(await self._looking.rows(Look("rows", module=module)))
        files = await self._looking.files(self._files)

        def work() -> dict[str, Any]:
            search = Search(module, starter_runs(known.module(module).starter))
            return asdict(similar(rows, files, search, is_wanted=lambda: self._is_open))

        return await asyncio.to_thread(work)

    def _told(self, module: str) -> dict[str, Any]:
        nothing = {"pairs": [], "compared": 0, "left_out": {}, "at": None, "error": None}
        is_running = self._running is not None and self._running[0] == module and not self._running[1].done()
        return nothing | self._found.get(module, {}) | {"is_running": is_running}
