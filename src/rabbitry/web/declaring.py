"""The routes that declare, bind and delete objects of the broker, and close connections, over the management API."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar
from urllib.parse import quote

import msgspec
from fastapi import APIRouter, Request, Response

from rabbitry._decode import decode_json
from rabbitry.amqp.client.url import parse_url
from rabbitry.apps import Role, needs, user_of
from rabbitry.apps.api import answers, json_response, route_class
from rabbitry.apps.management import RequestRefused, fetch, management_url, open_client
from rabbitry.exceptions import ConnectFailed, Undecodable, UsageError
from rabbitry.web.answers import Done
from rabbitry.web.audit import Audit
from rabbitry.web.login.requests import body_of

if TYPE_CHECKING:
    import httpx

_LARGEST: Final = 50_000
_PATIENCE: Final = 25
"""Seconds that a change may take; a page waits for 30."""
_LONGEST_REASON: Final = 200
T = TypeVar("T")


class NewQueue(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A queue to declare. Its type is in `arguments`, as x-queue-type."""

    vhost: str
    name: str
    durable: bool = True
    auto_delete: bool = False
    arguments: dict[str, Any] = {}


class NewExchange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An exchange to declare."""

    vhost: str
    name: str
    type: str
    durable: bool = True
    auto_delete: bool = False
    internal: bool = False
    arguments: dict[str, Any] = {}


class NewBinding(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A binding to make."""

    vhost: str
    source: str
    destination: str
    destination_type: Literal["queue", "exchange"] = "queue"
    routing_key: str = ""
    arguments: dict[str, Any] = {}


class OldBinding(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A binding to remove. properties_key: as the broker names it, see the topic `bindings`."""

    vhost: str
    source: str
    destination: str
    properties_key: str
    destination_type: Literal["queue", "exchange"] = "queue"


class OldExchange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An exchange to delete, and its name once more, as it was typed to confirm that."""

    vhost: str
    name: str
    confirm: str


class OldConnection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A connection to close, and its name once more, as it was typed to confirm that."""

    name: str
    confirm: str
    reason: str = ""


class Declaring:
    """The routes that change objects of the broker. They work while `running` is entered.

    Args:
        broker: The broker's URL, for the login.
        management: The URL of its management API; RabbitMQ's port on the broker's host if it is None.
        audit: Where changes are logged.

    Raises:
        UsageError: One of them is no URL.
    """

    def __init__(self, broker: str, management: str | None, audit: Audit) -> None:
        self._login = parse_url(broker)
        self._url = management_url(management, self._login)
        self._audit = audit
        self._client: httpx.AsyncClient
        self.router: APIRouter = APIRouter(route_class=route_class(_LARGEST))
        for path, change, asked in (
            ("/queues/api/declare", self.declare_queue, NewQueue),
            ("/exchanges/api/declare", self.declare_exchange, NewExchange),
            ("/exchanges/api/delete", self.delete_exchange, OldExchange),
            ("/exchanges/api/bind", self.bind, NewBinding),
            ("/exchanges/api/unbind", self.unbind, OldBinding),
            ("/connections/api/close", self.close, OldConnection),
        ):
            add = self.router.add_api_route
            add(path, change, methods=["POST"], openapi_extra=body_of(asked), responses=answers(Done))

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep a client of the management API while the block runs."""
        async with open_client(self._url, self._login) as self._client:
            yield

    @needs(Role.ADMIN)
    async def declare_queue(self, request: Request) -> Response:
        """Declare a queue. One that exists with other properties is an error."""
        new = await _read(request, NewQueue)
        body = {"durable": new.durable, "auto_delete": new.auto_delete, "arguments": new.arguments}
        _free("queue", new.name)
        path = _path("queues", new.vhost, new.name)
        return await self._change(request, "declare queue", new.vhost, new.name, path, "PUT", body)

    @needs(Role.ADMIN)
    async def declare_exchange(self, request: Request) -> Response:
        """Declare an exchange. One that exists with other properties is an error."""
        new = await _read(request, NewExchange)
        body = {name: getattr(new, name) for name in ("type", "durable", "auto_delete", "internal", "arguments")}
        _free("exchange", new.name)
        path = _path("exchanges", new.vhost, new.name)
        return await self._change(request, "declare exchange", new.vhost, new.name, path, "PUT", body)

    @needs(Role.ADMIN)
    async def delete_exchange(self, request: Request) -> Response:
        """Delete an exchange with its bindings."""
        old = await _read(request, OldExchange)
        _confirmed(old.name, old.confirm, "exchange")
        path = _path("exchanges", old.vhost, old.name)
        return await self._change(request, "delete exchange", old.vhost, old.name, path, "DELETE")

    @needs(Role.ADMIN)
    async def bind(self, request: Request) -> Response:
        """Bind a queue or an exchange to an exchange."""
        new = await _read(request, NewBinding)
        path = _path("bindings", new.vhost, "e", new.source, new.destination_type[0], new.destination)
        body = {"routing_key": new.routing_key, "arguments": new.arguments}
        what = f"{new.source} → {new.destination} ({new.routing_key})"
        return await self._change(request, f"bind {new.destination_type}", new.vhost, what, path, "POST", body)

    @needs(Role.ADMIN)
    async def unbind(self, request: Request) -> Response:
        """Remove a binding."""
        old = await _read(request, OldBinding)
        ends = ("e", old.source, old.destination_type[0], old.destination, old.properties_key)
        what = f"{old.source} → {old.destination} ({old.properties_key})"
        path = _path("bindings", old.vhost, *ends)
        return await self._change(request, f"unbind {old.destination_type}", old.vhost, what, path, "DELETE")

    @needs(Role.ADMIN)
    async def close(self, request: Request) -> Response:
        """Close a client's connection. The client is told the reason."""
        old = await _read(request, OldConnection)
        _confirmed(old.name, old.confirm, "connection")
        if not old.reason.isprintable() or len(old.reason) > _LONGEST_REASON:
            raise UsageError(f"reason: use at most {_LONGEST_REASON} visible characters")
        who = user_of(request)
        # A header is ASCII: the client sees `?` for other characters, and the audit log has them all.
        reason = old.reason or f"closed on the dashboard by {who.name or 'its user'}"
        headers = {"X-Reason": reason.encode("ascii", "replace").decode()}
        action = f"close connection: {old.reason}" if old.reason else "close connection"
        path = _path("connections", old.name)
        return await self._change(request, action, "", old.name, path, "DELETE", headers=headers)

    async def _change(
        self,
        request: Request,
        action: str,
        vhost: str,
        name: str,
        path: str,
        method: str,
        body: object = None,
        headers: dict[str, str] | None = None,
    ) -> Response:
        change = fetch(self._client, path, method=method, json=body, timeout=_PATIENCE, headers=headers)
        try:
            await self._audit.logged(user_of(request).who, action, vhost, name, change)
        except RequestRefused as error:
            why = f"there is no virtual host '{vhost}'" if error.reason == "vhost_not_found" else error.reason
            raise ConnectFailed(f"the broker refuses it: {why}") from error
        return json_response({"done": action})


def _free(thing: str, name: str) -> None:
    """Raise UsageError for a name of the broker's own, which it refuses without a reason."""
    if name.startswith("amq."):
        raise UsageError(f"no {thing} can be declared as '{name}': names that begin with 'amq.' are the broker's own")


def _path(kind: str, *parts: str) -> str:
    """Return a path of the API. Raises UsageError for a name that would make it another place."""
    for text in parts:
        if text in ("", ".", ".."):
            raise UsageError(f"{text!r} can't be asked for over the management API: use an AMQP client")
    return f"/api/{kind}/{'/'.join(quote(text, safe='') for text in parts)}"


def _confirmed(name: str, typed: str, thing: str) -> None:
    if typed != name:
        raise UsageError(f"{typed!r} is not the {thing}'s name: type {name!r}")


async def _read(request: Request, type_: type[T]) -> T:
    try:
        return decode_json(await request.body(), type_)
    except Undecodable as error:
        raise UsageError(f"the request is not as the page sends it: {error}") from error
