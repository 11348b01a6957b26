"""The page's routes that show and set when the results of a module are released."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import msgspec
from fastapi import APIRouter, Request, Response

from rabbitry._decode import decode_json
from rabbitry.apps import Role, needs, user_of
from rabbitry.apps.api import answers, json_response
from rabbitry.apps.grading.changing import Change
from rabbitry.apps.grading.looking import Look
from rabbitry.apps.grading.people import COORDINATOR, STAFF, person_of
from rabbitry.apps.grading.rows import Release
from rabbitry.exceptions import Undecodable, UsageError

if TYPE_CHECKING:
    from rabbitry.apps.grading.asking import Looking
    from rabbitry.apps.grading.files import Files
    from rabbitry.apps.grading.records import Database
    from rabbitry.apps.grading.stages import Wiring
    from rabbitry.apps.grading.web_regrades import Audited


class Wanted(msgspec.Struct, forbid_unknown_fields=True):
    """A release, as the page sends it. until: with an offset from UTC; empty for now. remark: the reason."""

    module: str
    until: str
    remark: str


class ReleaseRoutes:
    """The routes.

    wiring, kept: return the exchange and course, and the kept files of records that are here. looking: the records.
    audit: see `Site`.
    """

    def __init__(
        self,
        wiring: Callable[[], Awaitable[Wiring]],
        looking: Looking,
        kept: Callable[[Database], Files],
        audit: Audited,
    ) -> None:
        self._wiring = wiring
        self._looking = looking
        self._kept = kept
        self._audited = audit

    def add_to(self, router: APIRouter) -> None:
        """Add the routes."""
        router.add_api_route("/api/releases", self.releases, responses=answers(list[Release]))
        router.add_api_route("/api/releases", self.release, methods=["POST"], responses=answers(Release))

    @needs(Role.VIEWER, *STAFF)
    async def releases(self, request: Request, module: str) -> Response:
        """List what was set for the results of a module, the last first: that holds."""
        name = (await self._wiring()).course.module(module).name
        person_of(user_of(request)).check_module(name)
        return json_response(await self._looking.read(Look("releases", module=name)))

    @needs(Role.ADMIN, COORDINATOR)
    async def release(self, request: Request) -> Response:
        """Hold the results of a module until a time, or release them."""
        try:
            given = decode_json(await request.body(), Wanted)
        except Undecodable as error:
            raise UsageError(f"invalid request: {error}") from error
        user, wiring = user_of(request), await self._wiring()
        wanted = Change("release", person_of(user).who, given.remark, module=given.module, until=given.until)
        async with self._audited(user.who, "hold or release results", given.module):
            return json_response(await self._looking.change(wanted, self._kept, wiring.exchange))
