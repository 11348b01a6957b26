"""The page's routes that accept a submission which was declined or came too late, and withdraw an acceptance."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

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

T = TypeVar("T")


class Accepting(msgspec.Struct, forbid_unknown_fields=True):
    """The reason, as the page sends it."""

    remark: str


class Withdrawing(Accepting):
    """The reason, and when the submission was accepted: nobody withdraws an acceptance that they have not seen."""

    accepted_at: str


class AcceptRoutes:
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
        path = "/api/submissions/{identity}"
        router.add_api_route(f"{path}/acceptance", self.accept, methods=["POST"], responses=answers(Decided))
        router.add_api_route(f"{path}/withdrawal", self.withdraw, methods=["POST"], responses=answers(Decided))

    @needs(Role.ADMIN, COORDINATOR)
    async def accept(self, identity: str, request: Request) -> Response:
        """Accept a submission: a declined one, which a running coordinator publishes, or one that can't count."""
        given = await _told(request, Accepting)
        wanted = Change("accept", person_of(user_of(request)).who, given.remark, submission=identity)
        return await self._changed(request, wanted, "accept a submission")

    @needs(Role.ADMIN, COORDINATOR)
    async def withdraw(self, identity: str, request: Request) -> Response:
        """Withdraw the acceptance of a submission that can't count by the deadlines."""
        given = await _told(request, Withdrawing)
        wanted = Change("withdraw", person_of(user_of(request)).who, given.remark, submission=identity)
        wanted.accepted_at = given.accepted_at
        return await self._changed(request, wanted, "withdraw an acceptance")

    async def _changed(self, request: Request, wanted: Change, action: str) -> Response:
        wiring = await self._wiring()
        async with self._audited(user_of(request).who, action, wanted.submission):
            done = await self._looking.change(wanted, self._kept, wiring.exchange)
        return json_response({"id": done["id"], "status": done["status"]})


async def _told(request: Request, type_: type[T]) -> T:
    try:
        return decode_json(await request.body(), type_)
    except Undecodable as error:
        raise UsageError(f"invalid request: {error}") from error
