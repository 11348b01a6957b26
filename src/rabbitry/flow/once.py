"""Idempotent stages and unique messages, which a store keeps from being handled or published twice.

An idempotent stage claims the key of a message in the store, calls its handler, publishes the results, and then a note
to itself, which marks the key as done. Until then the message runs again if its worker dies, and others with the key
wait. A unique message is claimed, published, confirmed and then marked; if its publisher dies in between, the next one
publishes it again with the same id.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias
from urllib.parse import quote

from rabbitry._installing import missing
from rabbitry.amqp.client import Receipt
from rabbitry.exceptions import Closed, PublishTimeout, UsageError
from rabbitry.flow._gate import Taken
from rabbitry.flow._gates import gated, store_url
from rabbitry.flow._gates import store_given as store_given  # for tests
from rabbitry.flow._stores.once_claim import kept
from rabbitry.flow._stores.redis import is_redis
from rabbitry.flow.exceptions import AppError, Retry, StoreError
from rabbitry.flow.message import INTERRUPTED, REPLAYED, UNCOUNTED, Message, count_in, text_header, uncounted_pause
from rabbitry.flow.outgoing import Outgoing
from rabbitry.flow.stage import Stage

if TYPE_CHECKING:
    from rabbitry.flow._stores.once_claim import Claim, OnceStore
    from rabbitry.flow.codec import Codec
    from rabbitry.flow.spec import AppSpec

Idempotent: TypeAlias = bool | Callable[[Any], object]
"""Whether a stage handles each message once, by its id; or a function that returns the key of a value."""

WINDOW: Final = 86400.0
"""Seconds for which what was done is known."""
LEASE: Final = 90.0
"""Seconds that a publisher may take for a unique message, longer than its deadline for the confirm."""
_MARGIN: Final = 30.0
"""Seconds beyond the time limit of its handler for which a message keeps its claim: its results are confirmed then."""
HANDLED: Final = "x-rabbitry-handled"
"""The key that is done, in a message of an idempotent stage to itself."""
_LOOK_EACH: Final = 0.1
_MOST_NOTING: Final = 1000
"""Messages that are sent and not marked as done, at most."""

_logger = logging.getLogger(__name__)


def make_idempotent(
    stage: Stage, what: str, key_of: Idempotent, *, app: str, store: str | None, window: float
) -> Stage:
    """Make a stage call its handler once for each key."""

    def opened() -> OnceStore:
        return _open(f"{what}: an idempotent stage", store_url(app, store, "once"), stage.queue, window)

    def gate(store: OnceStore, message: Message, body: bytes) -> _Arrival:
        return _Arrival(store, message, body, stage, key_of)

    return gated(stage, what, opened, gate)


def _open(what: str, url: str, scope: str, window: float) -> OnceStore:
    """Open the store at a URL, for keys that are unique in a scope and known for a window of seconds."""
    try:
        if is_redis(url):
            from rabbitry.flow._stores.once_redis import RedisStore

            return RedisStore(url, scope, window)
        from rabbitry.flow._stores.once_sql import SqlStore

        return SqlStore(url, scope, window)
    except ModuleNotFoundError as error:
        raise AppError(missing(what, error, "redis" if is_redis(url) else "records")) from error


class _Arrival:
    """A message of an idempotent stage: a `Gate`."""

    def __init__(self, store: OnceStore, message: Message, body: bytes, stage: Stage, key_of: Idempotent) -> None:
        self.is_skipped = False
        self._store = store
        self._message = message
        self._body = body
        self._stage = stage
        self._codec: Codec = stage.codec
        self._key_of = key_of
        self._key = ""
        self._owner = kept(message.id)
        # A copy waits for the message that has the claim, and comes again uncounted: that must not tell it from a copy.
        counts = (count_in(message.headers, name) for name in (INTERRUPTED, REPLAYED))
        self._run = ".".join(str(count) for count in (message.attempt, *counts))

    def take(self) -> Taken | None:
        """Return the value if the handler is to be called. Raises Retry and Undecodable, and what `key_of` raises."""
        message = self._message
        if (done := text_header(message.headers, HANDLED)) is not None:
            self._do(lambda: self._store.done(done, kept(message.correlation_id)))
            return None
        value = self._codec.decode(self._body, message.content_type)
        self._key = self._key_for(value)
        if not self._key:
            return Taken(value)
        claim = self._do(lambda: self._store.claim(self._key, self._owner, self._run, self._stage.time_limit + _MARGIN))
        if claim.state == "mine":
            return Taken(value)
        if claim.state == "busy":
            pause = uncounted_pause(count_in(message.headers, UNCOUNTED))
            raise Retry(f"{self._key!r} is being handled: message {claim.owner}", after=pause, count=False)
        self.is_skipped = True
        return None

    def _key_for(self, value: object) -> str:
        """Return the key of the message; empty if it has none: such messages can't be told from each other."""
        if not callable(self._key_of):
            return self._owner
        key = self._key_of(value)
        return "" if key is None else kept(str(key))

    def _do(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except StoreError as error:
            raise Retry(str(error), count=False) from error

    def release(self) -> None:
        """Note that the handler failed or was ended. While the store can't be reached, others wait longer."""
        with contextlib.suppress(StoreError):
            if self._key:
                self._store.release(self._key, self._owner, self._run)

    def note(self) -> Outgoing | None:
        """Return the message of the stage to itself that notes that its results are confirmed.

        It waits behind all that is in the stage's queue, which may take longer than the claim's lease: therefore the
        claim holds from now on until the window is over. If the store does not answer, it ends with the lease.
        """
        if not self._key:
            return None
        with contextlib.suppress(StoreError):
            self._store.hold(self._key, self._owner, self._run)
        return Outgoing(b"", key=self._stage.queue, headers={HANDLED: self._key})


class _Claimed(NamedTuple):
    """A text that is claimed, or done. id: of its message. is_mine: whether that is to be published now."""

    store: OnceStore
    unique: str
    text: str
    owner: str
    run: str
    id: str
    is_mine: bool


class Unique:
    """The unique messages of a publisher. Its store is opened for the first one."""

    def __init__(self, spec: AppSpec) -> None:
        self._spec = spec
        self._store: OnceStore | None = None
        self._opening = asyncio.Lock()
        self._noting: set[asyncio.Task[None]] = set()
        """Tasks that mark what was sent as done when it is confirmed."""

    async def publish(self, unique: str, key: str, send: Callable[[str], Awaitable[object]]) -> str:
        """Publish a message, unless one of the same text and key was published, and return the id of that one.

        Waits while another publisher has claimed it. send: publishes the message with this id, and waits for the
        confirm. Raises StoreError before anything is published, and what `send` raises. Cancelling while it waits
        leaves no claim; while the message is sent, the claim stays until its lease is over.
        """
        claimed = await self._claimed(unique, key)
        if not claimed.is_mine:
            return claimed.id
        try:
            await send(claimed.id)
        except Exception as error:
            await self._failed(claimed, error)
            raise
        await self._done(claimed)
        return claimed.id

    async def send(self, unique: str, key: str, send: Callable[[str], Awaitable[Receipt]]) -> Receipt:
        """Send a message as `publish` does, and return its receipt; that of one published before is done.

        The text is marked as done when the message is confirmed, in a task that `close` waits for.
        """
        claimed = await self._claimed(unique, key)
        if not claimed.is_mine:
            return Receipt._confirmed(claimed.id)
        try:
            receipt = await send(claimed.id)
        except Exception as error:
            await self._failed(claimed, error)
            raise
        noting = asyncio.create_task(self._note(claimed, receipt))
        self._noting.add(noting)
        noting.add_done_callback(self._noting.discard)
        if len(self._noting) > _MOST_NOTING:
            await asyncio.wait(self._noting, return_when=asyncio.FIRST_COMPLETED)
        return receipt

    async def _note(self, claimed: _Claimed, receipt: Receipt) -> None:
        await asyncio.wait((receipt,))  # which does not count as having seen a failure
        if receipt.failure is not None:
            await self._failed(claimed, receipt.failure)
        elif not receipt.cancelled():
            await self._done(claimed)

    async def _claimed(self, unique: str, key: str) -> _Claimed:
        """Claim a text; wait while another publisher has it."""
        if not unique:
            raise UsageError("unique='': give the text that tells the message from others")
        store = await self._opened()
        text = f"{quote(key, errors='surrogatepass')} {unique}"  # a key may have spaces
        owner, run = uuid.uuid4().hex, uuid.uuid4().hex
        while True:
            claim = await self._claim(store, text, owner, run)
            if claim.state != "busy":
                return _Claimed(store, unique, text, owner, run, claim.owner, claim.state == "mine")
            await asyncio.sleep(_LOOK_EACH)  # at most for its lease

    async def _failed(self, claimed: _Claimed, error: Exception) -> None:
        """Drop a claim, unless the message may be on the broker: then it stays until its lease is over."""
        if not isinstance(error, PublishTimeout | Closed):
            await self._release(claimed.store, claimed.text, claimed.owner, claimed.run)

    async def _done(self, claimed: _Claimed) -> None:
        try:
            await asyncio.to_thread(claimed.store.done, claimed.text, claimed.id)
        except StoreError as error:
            _logger.warning(
                "app '%s': message %s of unique=%r is published, but not noted as done: another one after %g s is "
                "published with the same id: %s",
                self._spec.name,
                claimed.id,
                claimed.unique,
                LEASE,
                error,
            )

    async def _claim(self, store: OnceStore, text: str, owner: str, run: str) -> Claim:
        claiming = asyncio.ensure_future(asyncio.to_thread(store.claim, text, owner, run, LEASE, keeps_owner=True))
        try:
            return await asyncio.shield(claiming)
        except asyncio.CancelledError:
            with contextlib.suppress(StoreError):
                await claiming  # the thread can't be ended, and may get the claim
            await self._release(store, text, owner, run)
            raise
        except StoreError:  # perhaps of the answer alone, so that the store has the claim
            await self._release(store, text, owner, run)
            raise

    async def _release(self, store: OnceStore, text: str, owner: str, run: str) -> None:
        """Drop a claim, unless it is that of another publisher whose lease was over: its message may be published."""
        with contextlib.suppress(StoreError):  # it ends with its lease
            await asyncio.to_thread(store.release, text, owner, run)

    async def close(self) -> None:
        """Wait until what is confirmed is marked as done, and close the store; nothing may be unconfirmed any more."""
        if self._noting:
            await asyncio.wait(self._noting)
        store, self._store = self._store, None
        if store is not None:
            await asyncio.to_thread(store.close)

    async def _opened(self) -> OnceStore:
        async with self._opening:
            if self._store is None:
                spec = self._spec
                url = store_url(spec.name, spec.store, "once")
                what = f"app {spec.name!r}: unique=…"
                self._store = await asyncio.to_thread(_open, what, url, f"{spec.name} unique", spec.window)
            return self._store
