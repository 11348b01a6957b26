"""Looking at the messages of a queue, purging and deleting it, for the Queues view.

Rabbitry's broker shows them and changes nothing. Another broker has to be asked for them (`get`) and to put them back,
which marks them; therefore it is asked only by a POST, after the page has said so.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar
from urllib.parse import quote, urlencode

import msgspec
from fastapi import APIRouter, Query, Request, Response

from rabbitry._decode import decode_json
from rabbitry.amqp.client.url import parse_url
from rabbitry.apps import Role, needs, user_of
from rabbitry.apps.api import answers, json_response, route_class
from rabbitry.apps.management import decode_answer, fetch, get_object, management_url, open_client
from rabbitry.exceptions import ConnectFailed, Undecodable, UsageError
from rabbitry.telemetry import Masking
from rabbitry.web.answers import Done, Fetches, Messages
from rabbitry.web.audit import Audit
from rabbitry.web.login.requests import body_of
from rabbitry.web.masking import shown_body
from rabbitry.web.sources.broker import is_own

if TYPE_CHECKING:
    import httpx

AT_ONCE: Final = 10
"""Messages in one answer."""
LONGEST: Final = 20_000
"""Bytes of a body that are shown."""
FARTHEST: Final = 1000
"""Messages that may lie before those shown."""
_LARGEST: Final = 10_000
_PATIENCE: Final = 25
"""Seconds that a purge or deletion may take; a page waits for 30."""


class Which(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A queue, as the page names it."""

    vhost: str
    name: str

    @property
    def path(self) -> str:
        """Its place below `/api/queues/`. Raises UsageError for a name that would make it another place."""
        for text in (self.vhost, self.name):
            if text in ("", ".", ".."):
                raise UsageError(f"{text!r} can't be asked for over the management API: use an AMQP client")
        return f"{quote(self.vhost, safe='')}/{quote(self.name, safe='')}"


class Confirmed(Which, frozen=True, forbid_unknown_fields=True):
    """A queue, and its name once more, as it was typed to confirm a change."""

    confirm: str


class _Looked(msgspec.Struct, omit_defaults=True):
    """Messages as the broker shows them. ready: how many wait, if it tells."""

    offset: int
    messages: list[dict[str, Any]]
    ready: int | None = None


W = TypeVar("W", bound=Which)


class Queues:
    """The routes of the Queues view. They work while `running` is entered.

    Args:
        broker: The broker's URL, for the login.
        management: The URL of its management API; RabbitMQ's port on the broker's host if it is None.
        audit: Where changes are logged.
        masking: What is masked in messages.

    Raises:
        UsageError: One of them is no URL.
    """

    def __init__(self, broker: str, management: str | None, audit: Audit, masking: Masking) -> None:
        self._login = parse_url(broker)
        self._url = management_url(management, self._login)
        self._audit = audit
        self._masking = masking
        self._client: httpx.AsyncClient
        self.router: APIRouter = APIRouter(route_class=route_class(_LARGEST), tags=["queues"])
        self.router.add_api_route("/messages", self.look, responses=answers(Messages, Fetches))
        for path, change, asked, answer in (
            ("/messages", self.fetch, Which, Messages),
            ("/purge", self.purge, Confirmed, Done),
            ("/delete", self.delete, Confirmed, Done),
        ):
            add = self.router.add_api_route
            add(path, change, methods=["POST"], openapi_extra=body_of(asked), responses=answers(answer))

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep a client of the management API while the block runs."""
        async with open_client(self._url, self._login) as self._client:
            yield

    @needs(Role.OPERATOR)
    async def look(self, vhost: str, name: str, offset: Annotated[int, Query(ge=0, le=FARTHEST)] = 0) -> Response:
        """Return messages of a queue, or `{"fetches": true}` if this broker can show them only by `fetch`."""
        which = Which(vhost, name)
        query = urlencode({"count": AT_ONCE, "offset": offset, "truncate": LONGEST, "encoding": "base64"})
        if is_own(await get_object(self._client, "/api/overview?columns=erlang_full_version")):
            return self._relayed(await fetch(self._client, f"/api/rabbitry/queues/{which.path}/messages?{query}"))
        await fetch(self._client, f"/api/queues/{which.path}")  # raises if the queue is gone
        return json_response({"fetches": True})

    @needs(Role.OPERATOR)
    async def fetch(self, request: Request) -> Response:
        """Take the first messages of a queue, put them back, and return them."""
        which = await _read(request, Which)
        asked = {"count": AT_ONCE, "ackmode": "ack_requeue_true", "encoding": "base64", "truncate": LONGEST}
        path = f"/api/queues/{which.path}/get"
        change = fetch(self._client, path, method="POST", json=asked)
        body = await self._audit.logged(user_of(request).who, "fetch messages", which.vhost, which.name, change)
        return self._relayed(b'{"offset":0,"messages":' + body + b"}")

    @needs(Role.ADMIN)
    async def purge(self, request: Request) -> Response:
        """Drop the ready messages of a queue."""
        return await self._remove(request, "purge", "/contents")

    @needs(Role.ADMIN)
    async def delete(self, request: Request) -> Response:
        """Delete a queue with its messages."""
        return await self._remove(request, "delete", "")

    async def _remove(self, request: Request, action: str, what: str) -> Response:
        which = await _read(request, Confirmed)
        if which.confirm != which.name:
            raise UsageError(f"{which.confirm!r} is not the queue's name: type {which.name!r} to {action} it")
        path = f"/api/queues/{which.path}{what}"
        change = fetch(self._client, path, method="DELETE", timeout=_PATIENCE)
        await self._audit.logged(user_of(request).who, action, which.vhost, which.name, change)
        return json_response({"done": action})

    def _relayed(self, body: bytes) -> Response:
        try:
            found = decode_answer(body, _Looked)
            for message in found.messages:
                self._mask(message)
        except (Undecodable, binascii.Error) as error:
            raise ConnectFailed(f"{self._url} answered no messages ({error}): is it a management API?") from error
        return json_response(found)

    def _mask(self, message: dict[str, Any]) -> None:
        """Mask the secrets of a message, and add what `Body` has."""
        message["properties"] = self._masking.value(message.get("properties"))
        payload = str(message.get("payload", ""))
        is_base64 = message.get("payload_encoding") == "base64"
        body = base64.b64decode(payload) if is_base64 else payload.encode("utf-8", "surrogatepass")
        message.update(shown_body(body, self._masking)._asdict(), payload_encoding="base64")


async def _read(request: Request, type_: type[W]) -> W:
    try:
        return decode_json(await request.body(), type_)
    except Undecodable as error:
        raise UsageError(f"the request names no queue: {error}") from error
