"""The routes of the Flows view: pausing and resuming a stage, and the AsyncAPI document of an app."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final

import msgspec
from fastapi import APIRouter, Request, Response

from rabbitry._decode import decode_json
from rabbitry._ids import NoSuchID
from rabbitry.amqp.client import connect
from rabbitry.apps import Role, needs, user_of
from rabbitry.apps.api import answers, json_response, route_class
from rabbitry.exceptions import RabbitryError, Undecodable, UsageError
from rabbitry.flow.wiring import pausing
from rabbitry.web.answers import AsyncAPI, PauseHeld, Resumed
from rabbitry.web.audit import Audit
from rabbitry.web.login.requests import body_of

if TYPE_CHECKING:
    from rabbitry.amqp.client import BrokerURL
    from rabbitry.amqp.client.connection import Connecting
    from rabbitry.web.sources.documents import Documents
    from rabbitry.web.sources.flows import Flows

_LARGEST: Final = 10_000


class Which(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A stage, and for a pause its reason."""

    app: str
    stage: str
    why: str = ""


class FlowRoutes:
    """The routes.

    Args:
        login: The broker's URL.
        flows: The source that asks the broker again after a change.
        documents: The AsyncAPI documents of apps.
        audit: Where changes are logged.
    """

    def __init__(
        self,
        login: BrokerURL,
        flows: Flows,
        documents: Documents,
        audit: Audit,
    ) -> None:
        self._login = login
        self._flows = flows
        self._documents = documents
        self._audit = audit
        self.router: APIRouter = APIRouter(route_class=route_class(_LARGEST))
        for path, change, answer in (("/pause", self.pause, PauseHeld), ("/resume", self.resume, Resumed)):
            add = self.router.add_api_route
            add(path, change, methods=["POST"], openapi_extra=body_of(Which), responses=answers(answer))
        self.router.add_api_route("/asyncapi", self.document, methods=["GET"], responses=answers(AsyncAPI))

    @needs(Role.VIEWER)
    async def document(self, app: str) -> Response:
        """Return the AsyncAPI document of an app, as its workers announce it."""
        body = self._documents.find(app)
        if body is None:
            raise NoSuchID(f"no worker of app {app[:100]!r} has announced its messages yet: each does within 30 s")
        return Response(body, media_type="application/json")

    @needs(Role.OPERATOR)
    async def pause(self, request: Request) -> Response:
        """Pause a stage. Return the pause that holds, and whether it is this one."""
        which, by = await _read(request), user_of(request).who
        async with self._connected() as connection, self._logged("pause", by, which) as result:
            held, is_new = await pausing.pause(connection, which.app, which.stage, by=by, why=which.why)
            if not is_new:
                result.append(f"already paused by {held.by}")
        return json_response({"paused": is_new, "by": held.by, "at": held.at, "why": held.why})

    @needs(Role.OPERATOR)
    async def resume(self, request: Request) -> Response:
        """Resume a stage. Return whether it was paused."""
        which, by = await _read(request), user_of(request).who
        async with self._connected() as connection, self._logged("resume", by, which) as result:
            was_paused = await pausing.resume(connection, which.app, which.stage)
            if not was_paused:
                result.append("it was not paused")
        return json_response({"resumed": was_paused})

    @contextlib.asynccontextmanager
    async def _logged(self, action: str, by: str, which: Which) -> AsyncIterator[list[str]]:
        """Log the change that the block makes, with the result that it appends. Without a log there is no change."""
        queue = pausing.pause_queue(which.app, which.stage)
        number = await self._audit.begin(by, action, self._login.virtual_host, queue)
        result: list[str] = []
        try:
            yield result
        except RabbitryError as error:
            await self._audit.end(number, str(error))
            if isinstance(error, pausing.Held):
                raise UsageError(str(error)) from error
            raise
        finally:
            self._flows.look_again()
        await self._audit.end(number, *result)

    def _connected(self) -> Connecting:
        # Of its own: a broker with an alarm reads nothing more of a connection that published.
        return connect(self._login, name="rabbitry dashboard", recover=False)


async def _read(request: Request) -> Which:
    try:
        return decode_json(await request.body(), Which)
    except Undecodable as error:
        raise UsageError(f"the request names no stage: {error}") from error
