"""The page's route that accepts a submission which was declined or came too late."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import msgspec
from fastapi import APIRouter, Request, Response

from rabbitry._decode import decode_json
from rabbitry.apps import Role, needs, user_of
from rabbitry.apps.api import answers, json_response
from rabbitry.apps.grading.answers import Decided
from rabbitry.apps.grading.changing import Change
from rabbitry.apps.grading.people import COORDINATOR, person_of
from rabbitry.exceptions import Undecodable, UsageError

if TYPE_CHECKING:
    from rabbitry.apps.grading.asking import Looking
    from rabbitry.apps.grading.files import Files
    from rabbitry.apps.grading.records import Database
    from rabbitry.apps.grading.stages import Wiring
    from rabbitry.apps.grading.web_regrades import Audited


class Accepting(msgspec.Struct, forbid_unknown_fields=True):
    """The reason, as the page sends it."""

    remark: str


class AcceptRoutes:
    """The route.

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
        """Add the route."""
        router.add_api_route(
            "/api/submissions/{identity}/acceptance", self.accept, methods=["POST"], responses=answers(Decided)
        )

    @needs(Role.ADMIN, COORDINATOR)
    async def accept(self, identity: str, request: Request) -> Response:
        """Accept a submission: a declined one, which a running coordinator publishes, or one that can't count."""
        try:
            remark = decode_json(await request.body(), Accepting).remark
        except Undecodable as error:
            raise UsageError(f"invalid request: {error}") from error
        wiring, user = await self._wiring(), user_of(request)
        wanted = Change("accept", person_of(user).who, remark, submission=identity)
        async with self._audited(user.who, "accept a submission", identity):
            accepted = await self._looking.change(wanted, self._kept, wiring.exchange)
        return json_response({"id": accepted["id"], "status": accepted["status"]})
