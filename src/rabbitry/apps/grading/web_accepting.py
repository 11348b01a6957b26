"""The page's route that accepts a declined submission."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import msgspec
from fastapi import APIRouter, Request, Response

from rabbitry._decode import decode_json
from rabbitry.apps import Role, needs, user_of
from rabbitry.apps.api import answers, json_response
from rabbitry.apps.grading.answers import Decided
from rabbitry.apps.grading.message import Decision
from rabbitry.apps.grading.people import COORDINATOR, person_of
from rabbitry.exceptions import Undecodable, UsageError

if TYPE_CHECKING:
    from rabbitry.apps.grading.files import Files
    from rabbitry.apps.grading.records import Database
    from rabbitry.apps.grading.stages import Wiring
    from rabbitry.apps.grading.web_regrades import Audited


class Accepting(msgspec.Struct, forbid_unknown_fields=True):
    """The reason, as the page sends it."""

    remark: str


class AcceptRoutes:
    """The route.

    wiring, kept: return the exchange and course, and the kept files. records: returns the open database; None if the
    course's records are not in it. audit: see `Site`.
    """

    def __init__(
        self,
        wiring: Callable[[], Awaitable[Wiring]],
        records: Callable[[], Awaitable[Database | None]],
        kept: Callable[[Database], Files],
        audit: Audited,
    ) -> None:
        self._wiring = wiring
        self._records = records
        self._kept = kept
        self._audited = audit

    def add_to(self, router: APIRouter) -> None:
        """Add the route."""
        router.add_api_route(
            "/api/submissions/{identity}/acceptance", self.accept, methods=["POST"], responses=answers(Decided)
        )

    @needs(Role.ADMIN, COORDINATOR)
    async def accept(self, identity: str, request: Request) -> Response:
        """Accept a declined submission; a running coordinator publishes it."""
        from rabbitry.apps.grading.accepting import accept

        try:
            remark = decode_json(await request.body(), Accepting).remark.strip()
        except Undecodable as error:
            raise UsageError(f"invalid request: {error}") from error
        records, wiring, user = await self._records(), await self._wiring(), user_of(request)
        if records is None:
            raise UsageError(
                "the course's records are not on this machine: accept it where the coordinator runs, "
                "with rabbitry grading accept"
            )
        decision = Decision(person_of(user).who, remark=remark)

        def work() -> str:
            return accept(records, self._kept(records), identity, decision, wiring.course, wiring.exchange).id

        async with self._audited(user.who, "accept a declined submission", identity):
            accepted = await asyncio.to_thread(work)
        return json_response({"id": accepted, "status": "submitted"})
