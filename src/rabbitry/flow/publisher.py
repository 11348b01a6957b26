"""Publishing to an app from outside: the topology is declared first, so that what is sent waits for its worker."""

from __future__ import annotations

import asyncio
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rabbitry.amqp.client import BrokerURL, Connection, Properties, connect
from rabbitry.amqp.client._receipts import Receipt
from rabbitry.amqp.protocol.tables import Table
from rabbitry.exceptions import PublishRefused, UsageError
from rabbitry.flow import topology
from rabbitry.flow.codec import encode
from rabbitry.flow.declarer import Declarer
from rabbitry.flow.message import Publication, first_properties, with_given
from rabbitry.flow.outgoing import Outgoing, extra_of, properties_of
from rabbitry.flow.outlet import Outlet
from rabbitry.flow.running import worker_of

if TYPE_CHECKING:
    from rabbitry.flow.app import App


class Publisher:
    """Publishes values to an app's stages. Made by `App.publisher`; an async context manager.

    Leaving the block without an error waits for what is not confirmed yet, and raises what failed and nobody has looked
    at as one ExceptionGroup. Leaving it with an error closes at once.

    Entering raises ConnectFailed, LoginRefused, VirtualHostRefused, TopologyMismatch (strict), AccessRefused.
    """

    def __init__(self, app: App, url: str | BrokerURL | None, *, strict: bool) -> None:
        self.app = app
        self._url = url
        self._strict = strict
        self._connection: Connection | None = None
        self._outlet: Outlet | None = None

    async def __aenter__(self) -> Self:
        url = self._url
        if url is None and (worker := worker_of(self.app)) is not None:
            url = worker.url
        connection = await connect(url, name=f"{self.app.name} publisher")
        try:
            declarer = Declarer()
            redeclare = partial(topology.declare, connection, self.app, declarer=declarer)
            await redeclare(strict=self._strict)
            self._outlet = Outlet(connection, await connection.channel(), redeclare)
        except BaseException:
            await connection.close()
            raise
        self._connection = connection
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._connection is not None:
            await self._connection.__aexit__(kind, error, traceback)

    async def wait_for_confirms(self) -> None:
        """Wait until everything sent before is confirmed. Raises what failed since the last call as one group."""
        if self._outlet is not None:
            await self._outlet.wait_for_confirms()

    async def publish(self, value: object, *, key: str, headers: Table | None = None) -> str:
        """Publish a value and return the message's id once the broker has confirmed it.

        headers: of the message, such as a `traceparent` in place of the current span's. Raises UsageError for a key
        that leads nowhere or a value that can't be encoded, PublishReturned, PublishRefused, PublishTimeout. After
        cancelling, the outcome is unknown.
        """
        identity, future = await self.send(value, key=key, headers=headers)
        await future
        return identity

    async def send(self, value: object, *, key: str, headers: Table | None = None) -> tuple[str, asyncio.Future[None]]:
        """Publish a value; returns the message's id, and a future that is done when it is confirmed.

        Waits only while too many are unconfirmed. Errors are those of `publish`; the broker's come from the future.
        """
        identity, message = publication_of(self.app, value, key, headers)
        return identity, await self._send(message)

    async def send_body(self, body: bytes, properties: Properties, *, key: str) -> tuple[str, asyncio.Future[None]]:
        """Publish a body that is encoded already; see `send`."""
        return properties.message_id or "", await self._send(_addressed(self.app, body, properties, key))

    async def _send(self, message: Publication) -> asyncio.Future[None]:
        if self._outlet is None:
            raise UsageError("enter the publisher first: `async with app.publisher() as publisher:`")
        future = await self._outlet.send(message)
        future.add_done_callback(self._on_done)
        return future

    def _on_done(self, future: asyncio.Future[None]) -> None:
        # A receipt's exception is not asked for here: that would count as somebody's having looked at it.
        if self._outlet is not None and isinstance(future, Receipt) and isinstance(future.failure, PublishRefused):
            self._outlet.refused()


def publication_of(app: App, value: object, key: str, headers: Table | None = None) -> tuple[str, Publication]:
    """Make the message that publishes `value` with `key`, the first of its chain; its id goes before it.

    An Outgoing's own key and headers go before `key` and `headers`. Raises UsageError for a key that leads nowhere or a
    value that can't be encoded.
    """
    given = Properties()
    if isinstance(value, Outgoing):
        extra_of(value, None)  # raises for what can't be published
        given = properties_of(value)
        key = key if value.key is None else value.key
        value = value.value
    try:
        encoded = encode(value)
    except (TypeError, ValueError) as error:
        raise UsageError(f"a {type(value).__name__} can't be published with key {key!r}: {error}") from error
    all_headers = {**(headers or {}), **(given.headers or {})}
    properties = with_given(first_properties(app.name, encoded.content_type, encoded.type_name, all_headers), given)
    return properties.message_id or "", _addressed(app, encoded.body, properties, key)


def _addressed(app: App, body: bytes, properties: Properties, key: str) -> Publication:
    if not app.leads_somewhere(key):
        keys = sorted({*(stage.key for stage in app.stages.values()), *app.outputs})
        raise UsageError(f"key {key!r} leads nowhere in app {app.name!r}; it has {', '.join(keys)}")
    return Publication(app.exchange_of(key), key, body, properties, mandatory=app.is_required(key))
