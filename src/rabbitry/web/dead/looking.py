"""Looking at the dead letters of an app.

Rabbitry's own broker shows them and changes nothing. Any other has to deliver them, and takes them back marked as
redelivered; therefore it is asked only after the page has said so.
"""

from __future__ import annotations

import base64
import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlencode

from rabbitry.amqp.client import Connection, Properties, connect
from rabbitry.amqp.protocol.tables import FieldValue, LongString, decode_text
from rabbitry.apps.management import NothingThere, get_object, part_of, place_of
from rabbitry.exceptions import NotFound, UsageError
from rabbitry.flow.message import properties_of
from rabbitry.flow.wiring.dead_letters import DeadLetter, dead_queue, letter_of, waiting, walk
from rabbitry.web.dead.selection import MARKED, Selection, mark_of, readable
from rabbitry.web.masking import shown_body
from rabbitry.web.sources.broker import is_own
from rabbitry.web.sources.fields import number, text

if TYPE_CHECKING:
    import httpx

    from rabbitry.amqp.client import BrokerURL
    from rabbitry.amqp.client.connection import Connecting
    from rabbitry.telemetry import Masking

FARTHEST: Final = 10_000
"""Dead letters that are read at most, from the oldest on."""
_AT_ONCE: Final = 100
"""Dead letters of one answer of the broker."""


class Seen(NamedTuple):
    """A dead letter, the first bytes of whose body are here. size: bytes of the whole body."""

    letter: DeadLetter
    properties: Properties
    size: int

    def shown(self, masking: Masking) -> dict[str, Any]:
        """Return what a page shows."""
        body = shown_body(self.letter.body, masking)
        texts = {
            name: readable(value)
            for name in DeadLetter.__dataclass_fields__
            if isinstance(value := getattr(self.letter, name), str)
        }
        others = {
            name: plain(value)
            for name, value in self.properties._asdict().items()
            if value is not None and name != "headers"
        }
        return {
            **texts,
            "error": masking.lines(texts["error"]),
            "traceback": masking.lines(texts["traceback"]),
            "attempts": self.letter.attempts,
            "mark": mark_of(self.letter, self.size),
            "body": body.payload,
            "shown_bytes": body.shown_bytes,
            "is_masked": body.is_masked,
            "is_hidden": body.is_hidden,
            "size": self.size,
            "properties": masking.value(others),
            "headers": masking.value(plain(self.properties.headers or {})),
        }


class Walk(NamedTuple):
    """A look. total: dead letters that are ready, of which at most FARTHEST come."""

    total: int
    letters: AsyncIterator[Seen]


class Looking:
    """Access to the dead letters of apps, all of which stay in their queues.

    Args:
        login: The broker's URL.
        client: Returns a client of its management API.
    """

    def __init__(self, login: BrokerURL, client: Callable[[], httpx.AsyncClient]) -> None:
        self._login = login
        self._client = client

    async def is_free(self) -> bool:
        """Return whether the broker shows messages without delivering them."""
        return is_own(await get_object(self._client(), "/api/overview?columns=erlang_full_version"))

    @asynccontextmanager
    async def walk(self, vhost: str, app: str, longest: int = MARKED) -> AsyncIterator[Walk]:
        """Look at the dead letters of an app, oldest first, with the first `longest` bytes of each body.

        Raises:
            UsageError: The app has no dead letters here.
            ConnectFailed: The broker or its management API is away.
        """
        try:
            if await self.is_free():
                first = await self._page(vhost, app, 0, longest)
                async with aclosing(self._shown(vhost, app, first, longest)) as letters:
                    yield Walk(int(number(first.get("ready"))), letters)
                return
            async with self.connected(vhost) as connection:
                total = await waiting(connection, app)
                async with aclosing(_delivered(connection, app, longest)) as letters:
                    yield Walk(total, letters)
        except (NothingThere, NotFound) as error:
            raise UsageError(f"app {app!r} has no dead letters in the virtual host {vhost!r}") from error

    async def find(self, selection: Selection, longest: int, masking: Masking) -> Seen | None:
        """Return the first dead letter of a selection, with the first `longest` bytes of its body, if there is one.

        Raises:
            UsageError: The app has no dead letters here.
            ConnectFailed: The broker or its management API is away.
        """
        vhost, app = selection.vhost, selection.app
        is_free = await self.is_free()
        # Of those before it only the bytes that tell them apart are asked for: a hundred bodies could have 100 MB.
        async with self.walk(vhost, app, MARKED if is_free else longest) as walk:
            place = 0
            async for each in walk.letters:
                if selection.takes(each.letter, each.size, masking):
                    break
                place += 1
            else:
                return None
        if is_free and each.size > MARKED:
            found = _messages(await self._page(vhost, app, place, longest, count=1))
            each = _seen(found[0]) if found else each
            if not found or not selection.takes(each.letter, each.size, masking):
                return None  # others were taken from the queue meanwhile
        return each

    def connected(self, vhost: str) -> Connecting:
        """Return a connection to a virtual host, to be entered. It is not recovered: what it holds goes back."""
        return connect(self._login._replace(virtual_host=vhost), name="rabbitry dashboard", recover=False)

    async def _shown(self, vhost: str, app: str, page: Mapping[str, Any], longest: int) -> AsyncGenerator[Seen, None]:
        offset = 0
        while True:
            found = _messages(page)
            for each in found:
                yield _seen(each)
            offset += len(found)
            if len(found) < _AT_ONCE or offset >= FARTHEST:
                return
            page = await self._page(vhost, app, offset, longest)

    async def _page(self, vhost: str, app: str, offset: int, longest: int, count: int = _AT_ONCE) -> dict[str, Any]:
        query = urlencode({"count": count, "offset": offset, "truncate": longest, "encoding": "base64"})
        place = place_of(vhost, dead_queue(app))
        return await get_object(self._client(), f"/api/rabbitry/queues/{place}/messages?{query}")


async def _delivered(connection: Connection, app: str, longest: int) -> AsyncGenerator[Seen, None]:
    async with aclosing(walk(connection, app, FARTHEST)) as deliveries:
        async for delivery in deliveries:
            properties = properties_of(delivery)
            letter = letter_of(properties, delivery.body[:longest])
            yield Seen(letter, properties, len(delivery.body))


def _messages(page: Mapping[str, Any]) -> list[dict[str, Any]]:
    messages = page.get("messages")
    return [each for each in messages if isinstance(each, dict)] if isinstance(messages, list) else []


def _seen(message: Mapping[str, Any]) -> Seen:
    """Read a message as the management API has it."""
    known = {name: value for name, value in part_of(message, "properties").items() if name in Properties._fields}
    properties = Properties(**known)
    body = base64.b64decode(text(message.get("payload")))
    return Seen(letter_of(properties, body), properties, int(number(message.get("payload_bytes"))))


def plain(value: FieldValue) -> Any:
    """Return a value of AMQP as JSON has it. Bytes are written in hexadecimal."""
    if isinstance(value, LongString):
        return readable(decode_text(value))
    if isinstance(value, str):
        return readable(value)
    if isinstance(value, Mapping):
        return {readable(name): plain(each) for name, each in value.items()}
    if isinstance(value, bytes | bytearray):
        return value.hex(" ")
    if isinstance(value, datetime):
        return int(value.timestamp())
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return value
