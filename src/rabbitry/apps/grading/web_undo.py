"""The page's routes for decisions that their people can still take back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
from fastapi import APIRouter, Request, Response

from rabbitry._ids import NoSuchID
from rabbitry.apps import Role, needs, user_of
from rabbitry.apps.api import answers, json_response
from rabbitry.apps.grading.answers import TakenBack, Unsent
from rabbitry.apps.grading.people import STAFF, person_of
from rabbitry.apps.grading.roles import role_named

if TYPE_CHECKING:
    from rabbitry.apps.grading.records import Database


class UndoRoutes:
    """The routes. records: a function that returns the open database, None if there is none yet."""

    def __init__(self, records: Callable[[], Awaitable[Database | None]]) -> None:
        self._records = records

    def add_to(self, router: APIRouter) -> None:
        """Add the routes."""
        router.add_api_route("/api/unsent/{role}", self.unsent, responses=answers(Unsent))
        router.add_api_route(
            "/api/unsent/{role}/{identity}", self.take_back, methods=["POST"], responses=answers(TakenBack)
        )

    @needs(Role.OPERATOR, *STAFF)
    async def unsent(self, role: str, request: Request) -> Response:
        """List the person's decisions that can still be taken back, the latest first.

        Whoever has no name here, by the shared password or without a login, types one, and sees everybody's.
        """
        from rabbitry.apps.grading.records import undoing

        name, person = role_named(role).name, person_of(user_of(request))
        person.check_inbox(name)
        records = await self._records()
        if records is None:
            return json_response({"decisions": []})
        found = await records.read(partial(undoing.unsent, role=name, who=person.name))
        return json_response({"decisions": msgspec.to_builtins(found)})

    @needs(Role.OPERATOR, *STAFF)
    async def take_back(self, role: str, identity: str, request: Request) -> Response:
        """Take back the person's last decision on a submission, which waits in the inbox again."""
        from rabbitry.apps.grading.records import undoing

        name, person = role_named(role).name, person_of(user_of(request))
        person.check_inbox(name)
        unknown = NoSuchID(f"there is no decided submission {identity!r}")
        records = await self._records()
        if records is None:
            raise unknown

        def work(connection: Any) -> Any:
            return undoing.take_back(connection, identity, person.name, name, sees=person.sees)

        done = await records.write(work)
        return json_response({"id": done.assignment.id, "item": done.id})
