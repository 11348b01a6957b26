"""Looking at the messages of a queue, for the Queues view.

Rabbitry's broker shows them and changes nothing. Another broker has to be asked for them (`get`) and to put them back,
which marks them; therefore it is asked only by a POST, after the page has said so.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated, Final
from urllib.parse import quote, urlencode

import msgspec
from fastapi import APIRouter, Query, Request, Response

from rabbitry._decode import decode_json
from rabbitry.amqp.client.url import parse_url
from rabbitry.apps.api import json_response, route_class
from rabbitry.apps.management import fetch, get_object, management_url, open_client
from rabbitry.exceptions import ConnectFailed, Undecodable, UsageError
from rabbitry.web.sources.broker import is_own
from rabbitry.web.token import Token

if TYPE_CHECKING:
    import httpx

AT_ONCE: Final = 10
"""Messages in one answer."""
LONGEST: Final = 20_000
"""Bytes of a body that are shown."""
FARTHEST: Final = 1000
"""Messages that may lie before those shown."""
_LARGEST: Final = 10_000


class Which(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A queue, as the page names it."""

    vhost: str
    name: str

    @property
    def path(self) -> str:
        """Its place below `/api/queues/`."""
        return f"{quote(self.vhost, safe='')}/{quote(self.name, safe='')}"


class Queues:
    """The routes of the Queues view. They work while `running` is entered.

    Args:
        broker: The broker's URL, for the login.
        management: The URL of its management API; RabbitMQ's port on the broker's host if it is None.
        token: What a request that changes something has to carry.

    Raises:
        UsageError: One of them is no URL.
    """

    def __init__(self, broker: str, management: str | None, token: Token) -> None:
        self._login = parse_url(broker)
        self._url = management_url(management, self._login)
        self._token = token
        self._client: httpx.AsyncClient
        self.router: APIRouter = APIRouter(route_class=route_class(_largest))
        self.router.add_api_route("/messages", self.look)
        self.router.add_api_route("/messages", self.fetch, methods=["POST"])

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep a client of the management API while the block runs."""
        async with open_client(self._url, self._login) as self._client:
            yield

    async def look(self, vhost: str, name: str, offset: Annotated[int, Query(ge=0, le=FARTHEST)] = 0) -> Response:
        """Return messages of a queue, or `{"fetches": true}` if this broker can show them only by `fetch`."""
        which = Which(vhost, name)
        query = urlencode({"count": AT_ONCE, "offset": offset, "truncate": LONGEST, "encoding": "base64"})
        if is_own(await get_object(self._client, "/api/overview?columns=erlang_full_version")):
            return self._relayed(await fetch(self._client, f"/api/rabbitry/queues/{which.path}/messages?{query}"))
        await fetch(self._client, f"/api/queues/{which.path}")  # raises if the queue is gone
        return json_response({"fetches": True})

    async def fetch(self, request: Request) -> Response:
        """Take the first messages of a queue, put them back, and return them."""
        self._token.check(request)
        which = await _read(request)
        asked = {"count": AT_ONCE, "ackmode": "ack_requeue_true", "encoding": "base64", "truncate": LONGEST}
        body = await fetch(self._client, f"/api/queues/{which.path}/get", method="POST", json=asked)
        return self._relayed(b'{"offset":0,"messages":' + body + b"}")

    def _relayed(self, body: bytes) -> Response:
        try:
            decode_json(body, msgspec.Raw)  # checks that it is JSON, and builds nothing
        except Undecodable as error:
            raise ConnectFailed(f"{self._url} answered no messages ({error}): is it a management API?") from error
        return Response(body, media_type="application/json")


async def _largest() -> int:
    return _LARGEST


async def _read(request: Request) -> Which:
    try:
        return decode_json(await request.body(), Which)
    except Undecodable as error:
        raise UsageError(f"the request names no queue: {error}") from error
