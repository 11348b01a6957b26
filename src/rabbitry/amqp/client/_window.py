"""Publishing with confirms: the window of unconfirmed messages.

Each channel has one window. A message's key is its delivery tag on this link; confirms may arrive in any order and
cover several messages, and a return carries no tag at all (RabbitMQ's docs/confirms; `take_return`).
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

from rabbitry.amqp.client._receipts import Failures, Receipt
from rabbitry.amqp.protocol import hot
from rabbitry.amqp.protocol.properties import (
    CONTENT_HEADER,
    FLAG_MESSAGE_ID,
    EncodedProperties,
    Properties,
    decode_header,
    encode_properties,
)
from rabbitry.amqp.protocol.tables import encode_short, encode_table, encode_text
from rabbitry.exceptions import Closed, ProtocolViolation, PublishRefused, PublishReturned, PublishTimeout, UsageError

if TYPE_CHECKING:
    from rabbitry.amqp.client._returns import ReturnIndex

_logger = logging.getLogger(__name__)
_REPLY_TO: Final = "amq.rabbitmq.reply-to."
"""The beginning of the addresses of direct replies."""
WINDOW_MESSAGES: Final = 2048
"""Most unconfirmed messages of a channel. Brokers take more of them more slowly: see docs/performance.md."""
WINDOW_BYTES: Final = 64 << 20
_CACHED_ROUTES: Final = 1024
_PERSISTENT: Final = Properties(delivery_mode=2)
_TIMER_STEP: Final = 0.05
_NO_TEMPLATE: Final = object()
"""Marks that the properties of the next message have to be encoded again."""


class Unconfirmed:
    """A message in flight: its future, and the data to resend it or to recognize it when it is returned.

    `number` counts across all links of the connection; delivery tags start again with each link.
    """

    __slots__ = (
        "body",
        "deadline",
        "exchange",
        "future",
        "header",
        "is_returned",
        "losses",
        "mandatory",
        "number",
        "routing_key",
        "tracked",
    )

    def __init__(  # noqa: PLR0913 - its fields; made for each message, so without a dataclass's detour
        self,
        number: int,
        future: Receipt,
        exchange: str,
        routing_key: str,
        mandatory: bool,  # noqa: FBT001 - a keyword costs each message a dict, a tenth of the time of `send`
        header: bytes,
        body: bytes,
        deadline: float | None,
        tracked: bool,  # noqa: FBT001 - as above
    ) -> None:
        self.number: int = number
        self.future: Receipt = future
        self.exchange: str = exchange
        self.routing_key: str = routing_key
        self.mandatory: bool = mandatory
        self.header: bytes = header
        self.body: bytes = body
        self.deadline: float | None = deadline
        self.tracked: bool = tracked
        self.is_returned: bool = False
        self.losses: int = 0
        """Number of successive links that were lost while it was in flight."""

    @property
    def message_id(self) -> bytes:
        """The message's id. The receipt alone stores it, since each attribute costs every publish CPU time."""
        return self.future._encoded_id


class PublishWindow:
    """The unconfirmed messages of one channel, in the order of sending."""

    def __init__(self, loop: asyncio.AbstractEventLoop, failures: Failures) -> None:
        """failures: records the failures of tracked messages."""
        self.confirms = True
        """Whether the broker confirms messages. Otherwise a message counts as published once it is written."""
        self._loop = loop
        self._failures = failures
        self._pending: dict[int, Unconfirmed] = {}
        self._held: deque[Unconfirmed] = deque()
        """Messages that wait for another link, or to be sent over it one by one; newer than all pending messages."""
        self._told_unmatched = False
        self._bytes = 0
        self._next_tag = 1
        self._sent = 0
        self._current_name: Callable[[str], str] = str
        self._returns: ReturnIndex[Unconfirmed] | None = None
        """Made when a message is returned."""
        self._write: Callable[[bytes], None] | None = None
        self._flush: Callable[[], None] = lambda: None
        self._channel = 0
        self._frame_limit = 0
        self._can_write: Callable[[], bool] = bool
        self._closed: Closed | None = None
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._idle: list[tuple[int, asyncio.Future[None]]] = []
        self._routes: dict[tuple[str, str, bool], bytes] = {}
        self._template: object = _NO_TEMPLATE
        self._flags, self._before, self._after = 0, b"", b""
        self._brought_id: bytes | None = None
        self._set_template(_PERSISTENT)
        self._id_prefix = os.urandom(8).hex().encode() + b"-"
        self._id_numbers = itertools.count(1)
        self._timer: asyncio.TimerHandle | None = None

    # -- the link under it -----------------------------------------------------------------------------

    def attach(
        self,
        channel: int,
        frame_limit: int,
        write: Callable[[bytes], None],
        flush: Callable[[], None],
        can_write: Callable[[], bool],
        current_name: Callable[[str], str],
        *,
        hold: bool,
    ) -> None:
        """Send over a new link, on which delivery tags start at 1 again.

        flush: hands all written data to the socket before the end of this loop iteration.

        Messages that were unconfirmed on the old link are resent, in order and with their first deadline, unless their
        sender already has an outcome (returned, late, cancelled). `current_name` returns a queue's name on this link,
        which is the routing key for the default exchange. hold: do not resend yet; `send_held` does.
        """
        self._current_name = current_name
        self._channel, self._frame_limit = channel, frame_limit
        self._write, self._flush, self._can_write = write, flush, can_write
        self._closed = None
        self._routes.clear()
        self._next_tag = 1
        self._returns = None
        unconfirmed = [entry for entry in self._unconfirmed() if not entry.future.done()]
        self._pending, self._held = {}, deque()
        self._bytes = 0
        for entry in unconfirmed:
            if len(entry.header) > frame_limit:  # this broker accepts only shorter frames than the last one
                self._finish(entry, header_too_large(entry.header, frame_limit))
            elif hold:
                self._held.append(entry)
            else:
                self._put(entry, write)
        self._wake_idle()
        self.wake()

    def _unconfirmed(self) -> Iterator[Unconfirmed]:
        return itertools.chain(self._pending.values(), self._held)

    @property
    def flying(self) -> list[Unconfirmed]:
        """The unconfirmed messages that were sent over the current link."""
        return list(self._pending.values())

    def send_held(self) -> Unconfirmed | None:
        """Send the next held-back message and return it; None if there is none."""
        while self._held and self._write is not None:
            entry = self._held.popleft()
            if not entry.future.done():
                self._put(entry, self._write)
                return entry
        self._wake_idle()
        return None

    def give_up(self, entry: Unconfirmed, error: Closed) -> None:
        """Fail a message in flight, which is not resent; the other messages are no longer suspects."""
        self._finish(entry, error)
        for other in self._unconfirmed():
            other.losses = 0

    def suspend(self) -> None:
        """Send nothing until `attach`: the link is lost and the connection is recovering."""
        self._write = None
        self._held = deque(self._unconfirmed())
        self._pending = {}

    def abandon(self, error: Closed) -> None:
        """Refuse all use from now on, without waking waiters: they belong to another process."""
        self._write = None
        self._closed = error

    def fail(self, error: Closed) -> None:
        """Fail everything that waits with `error`; nothing can be sent any more."""
        self._write = None
        self._closed = error
        unconfirmed = list(self._unconfirmed())
        self._pending, self._held = {}, deque()
        self._bytes = 0
        for entry in unconfirmed:
            self._finish(entry, error)
        self._wake_idle()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is unconfirmed and nobody waits to send."""
        return not self._pending and not self._held and not self._waiters

    # -- sending ---------------------------------------------------------------------------------------

    async def send(
        self,
        body: bytes,
        exchange: str,
        routing_key: str,
        properties: Properties | EncodedProperties | None,
        *,
        mandatory: bool,
        timeout: float | None,
        tracked: bool,
        message_id: bytes | None = None,
    ) -> Receipt:
        """Wait for room, send a message, and return its receipt.

        tracked: if it fails and nobody retrieves the failure, `Failures` raises or logs it. message_id: one
        from `new_id`, for properties without an id; None makes one.
        """
        if type(body) is not bytes:
            body = as_body(body)
        deadline = None if timeout is None else self._loop.time() + timeout
        if self._waiters or not self._has_room():
            await self._wait_for_room(deadline)
        try:
            write = self._write
            if write is None:
                raise self._closed.fresh() if self._closed else UsageError("the channel was never opened")
            if properties is not self._template:
                self._set_template(properties or _PERSISTENT)
            message_id, header = self._header(len(body), message_id)
            if len(header) > self._frame_limit:
                raise header_too_large(header, self._frame_limit)
            future = Receipt(loop=self._loop)
            future._encoded_id = message_id
            number = self._sent + 1
            entry = Unconfirmed(
                number,
                future,
                exchange,
                routing_key,
                mandatory,
                header,
                body,
                deadline,
                tracked,
            )
            is_alone = not self._pending
            self._put(entry, write)
            if not self.confirms:
                self._take(self._next_tag - 1, multiple=False)
                future.set_result(None)
            if is_alone:
                # Nothing is in flight that it could be joined with (Nagle's rule): `benchmarks/client.py`, ping.
                self._flush()
        finally:
            if self._waiters:
                self.wake()  # also if nothing was sent, since then no confirm would wake the next waiter
        self._sent = number
        if deadline is not None:
            self._watch(deadline)
        return future

    def _put(self, entry: Unconfirmed, write: Callable[[bytes], None]) -> None:
        """Write a message and add it to the window."""
        if not entry.exchange:
            entry.routing_key = self._current_name(entry.routing_key)
        route = (entry.exchange, entry.routing_key, entry.mandatory)
        frame = self._routes.get(route) or self._add_route(route)
        if len(entry.body) <= self._frame_limit:
            write(frame + hot.encode_content(self._channel, entry.header, entry.body, self._frame_limit))
        else:
            write(frame)
            for piece in hot.content_frames(self._channel, entry.header, entry.body, self._frame_limit):
                write(piece)
        self._pending[self._next_tag] = entry
        self._next_tag += 1
        self._bytes += len(entry.body)

    def _has_room(self) -> bool:
        if self._write is None:
            return self._closed is not None  # let it through to the error
        if self._held:
            return False  # new messages stay behind those that are resent
        # A blocked broker reads nothing, so send nothing to it: the message's deadline would pass on the way.
        return len(self._pending) < WINDOW_MESSAGES and self._bytes < WINDOW_BYTES and self._can_write()

    async def _wait_for_room(self, deadline: float | None) -> None:
        """Wait in line. A waiter that leaves the line wakes the next, so that no free place is lost."""
        while True:
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._waiters.append(waiter)
            try:
                async with asyncio.timeout_at(deadline):
                    await waiter
            except BaseException as error:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)
                else:
                    self.wake()  # this waiter was woken: pass the place on
                if isinstance(error, TimeoutError):
                    text = "not sent: the window had no room before the deadline"
                    raise PublishTimeout(text) from error
                raise
            if self._has_room():
                return

    def wake(self) -> None:
        """Wake the first waiter if there is room."""
        while self._waiters and self._has_room():
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _add_route(self, route: tuple[str, str, bool]) -> bytes:
        exchange, routing_key, mandatory = route
        payload = hot.publish_payload(encode_short(exchange), encode_short(routing_key), mandatory=mandatory)
        if len(self._routes) >= _CACHED_ROUTES:
            self._routes.clear()
        frame = self._routes[route] = hot.encode_method_frame(self._channel, payload)
        return frame

    def _set_template(self, properties: Properties | EncodedProperties) -> None:
        """Encode `properties`, without the message id if this window is to set it; kept for the next message."""
        if isinstance(properties, EncodedProperties):
            self._flags, self._before, self._after, self._brought_id = properties
            if self._brought_id is not None:
                self._after = b"%c%b%b" % (len(self._brought_id), self._brought_id, self._after)
            self._template = _NO_TEMPLATE
            return
        if not isinstance(properties, Properties):
            raise UsageError(f"properties= must be rabbitry.Properties(…), not {type(properties).__name__}")
        full = properties._replace(delivery_mode=2) if properties.delivery_mode is None else properties
        flags, parts = encode_properties(full)
        # Set only now: properties that can't be encoded must leave the last template intact.
        first = (flags // (2 * FLAG_MESSAGE_ID)).bit_count()  # number of properties before the message id on the wire
        self._brought_id = None if full.message_id is None else encode_text(full.message_id)
        self._flags = flags | FLAG_MESSAGE_ID
        self._before = b"".join(parts[:first])
        self._after = b"".join(parts[first:])
        if properties is _PERSISTENT:
            self._template = None  # the key of a publish without properties
        else:
            # Headers are the one part that the caller can change in place.
            self._template = properties if properties.headers is None else _NO_TEMPLATE

    def new_id(self) -> bytes:
        """Return an id for a message. For any thread: `next` of a count is atomic."""
        return b"%b%x" % (self._id_prefix, next(self._id_numbers))

    def _header(self, size: int, message_id: bytes | None) -> tuple[bytes, bytes]:
        """Return the message id and the content header of the next message."""
        start = CONTENT_HEADER.pack(60, 0, size, self._flags)
        if self._brought_id is not None:
            return self._brought_id, start + self._before + self._after
        if message_id is None:
            message_id = b"%b%x" % (self._id_prefix, next(self._id_numbers))
        return message_id, b"%b%b%c%b%b" % (start, self._before, len(message_id), message_id, self._after)

    # -- confirms and returns --------------------------------------------------------------------------

    def confirm(self, tag: int, *, multiple: bool) -> None:
        """Process a basic.ack."""
        for entry in self._take(tag, multiple=multiple):
            if not entry.future.done():
                entry.future.set_result(None)
        self._after_confirm()

    def refuse(self, tag: int, *, multiple: bool) -> None:
        """Process a basic.nack."""
        for entry in self._take(tag, multiple=multiple):
            target = f"exchange {entry.exchange!r}, routing key {entry.routing_key!r}"
            self._finish(entry, PublishRefused(f"the broker refused a message (nack; {target}): a queue may be full"))
        self._after_confirm()

    def _take(self, tag: int, *, multiple: bool) -> list[Unconfirmed]:
        pending = self._pending
        if not multiple:
            entry = pending.pop(tag, None)
            entries = [] if entry is None else [entry]
        else:
            tags = []
            for known in pending:  # in rising order, as they were put in
                if known > tag > 0:
                    break
                tags.append(known)
            entries = [pending.pop(known) for known in tags]
        for entry in entries:
            self._bytes -= len(entry.body)
        return entries

    def _after_confirm(self) -> None:
        if self._waiters:
            self.wake()
        if self._idle:
            self._wake_idle()

    def take_return(self, arguments: bytes, header: bytes, body: bytes) -> None:
        """Process a basic.return: fail the oldest equal publish that was not returned yet.

        Messages that are equal in exchange, routing key, properties and body are interchangeable, so it does not matter
        which of them fails. The entry stays until its confirm arrives.

        Brokers change properties on the way: RabbitMQ removes BCC from the headers, 4.x sorts them, and interceptors
        may add some. A message is therefore recognized by its id and body too, and if even these differ, by either. A
        return that matches nothing is logged once per channel, and the confirm behind it settles its publish.

        A direct reply is returned although it was delivered, since its consumer is no queue (RabbitMQ's
        docs/direct-reply-to). Its return therefore tells nothing, and is ignored.
        """
        reply_code, reply_text, exchange, routing_key = hot.parse_return(arguments)
        if not exchange and routing_key.startswith(_REPLY_TO):
            return
        if not self.confirms:
            returned = Receipt(loop=self._loop)
            returned._encoded_id = _id_of(header) or b""
            returned._fail(PublishReturned(reply_code, reply_text, exchange, routing_key))
            self._failures.add(self, returned)
            return
        message_id = _id_of(header)
        best, most = None, 0
        if self._returns is None:
            from rabbitry.amqp.client._returns import ReturnIndex  # few programs have a message returned

            self._returns = ReturnIndex(2 * WINDOW_MESSAGES)
        same_id = () if message_id is None else self._returns.find(message_id, self._pending, self._next_tag)
        for entry in same_id:
            if entry.exchange != exchange or entry.routing_key != routing_key:
                continue
            equality = 1 + 2 * (entry.body == body) + (entry.header == header)
            if equality > most:
                best, most = entry, equality
                if equality == 4 or (equality == 3 and entry.message_id.startswith(self._id_prefix)):
                    break
        if best is None:
            best = next(
                (entry for entry in self._pending.values() if _is_alike(entry, exchange, routing_key, body)), None
            )
        if best is not None:
            best.is_returned = True
            self._finish(best, PublishReturned(reply_code, reply_text, exchange, routing_key))
        elif not self._told_unmatched:
            self._told_unmatched = True
            _logger.warning(
                "channel %d: the broker returned a message that is not among the %d unconfirmed ones: exchange %r, "
                "routing key %r, message id %r, %d bytes (%d %s)",
                self._channel, len(self._pending), exchange, routing_key, message_id, len(body), reply_code, reply_text,
            )  # fmt: skip

    def _finish(self, entry: Unconfirmed, error: Exception) -> None:
        if entry.future.done():
            return
        entry.future._fail(error)
        if entry.tracked:
            self._failures.add(self, entry.future)

    # -- waiting and deadlines -------------------------------------------------------------------------

    async def wait_idle(self, timeout: float | None) -> None:
        """Wait until everything sent before is confirmed or has failed. Raises PublishTimeout."""
        last = self._sent
        if not self._is_settled(last):
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._idle.append((last, waiter))
            try:
                async with asyncio.timeout(timeout):
                    await waiter
            except TimeoutError as error:
                from rabbitry._words import counted  # an error is rare, and each import of the client would pay for it

                count = len(self._pending) + len(self._held)
                raise PublishTimeout(f"{counted(count, 'message')} not confirmed within {timeout} s") from error
            finally:
                if (last, waiter) in self._idle:
                    self._idle.remove((last, waiter))

    def _is_settled(self, last: int) -> bool:
        """Return whether all messages up to `last` have an outcome; a late one has, though it is not confirmed."""
        oldest = next((entry for entry in self._unconfirmed() if not entry.future.done()), None)
        return oldest is None or oldest.number > last

    def _wake_idle(self) -> None:
        for last, waiter in self._idle:
            if not waiter.done() and self._is_settled(last):
                waiter.set_result(None)

    def _watch(self, deadline: float) -> None:
        if self._timer is None or deadline < self._timer.when():
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(deadline, self._expire)

    def _expire(self) -> None:
        """Fail messages past their deadline. They stay in the window: the broker may still confirm or return them."""
        self._timer = None
        now = self._loop.time()
        deadlines = []
        for entry in self._unconfirmed():
            if entry.deadline is None or entry.future.done():
                continue
            if entry.deadline <= now:
                self._finish(entry, PublishTimeout("not confirmed before the deadline; the outcome is unknown"))
            else:
                deadlines.append(entry.deadline)
        if deadlines:
            self._watch(max(min(deadlines), now + _TIMER_STEP))
        self._wake_idle()


def as_body(body: object) -> bytes:
    """Return a body as bytes, copied if its owner may change it. Raises UsageError for any other type."""
    if isinstance(body, bytes | bytearray | memoryview):
        return bytes(body)
    raise UsageError(f"a body must be bytes, not {type(body).__name__}; text becomes bytes with .encode()")


def header_too_large(header: bytes, limit: int) -> UsageError:
    """Return the error for a content header that fits no frame; it names the largest parts."""
    properties = decode_header(header)
    sizes = {f"header {name!r}": len(encode_table({name: value})) for name, value in (properties.headers or {}).items()}
    largest = sorted(sizes, key=sizes.__getitem__, reverse=True)[:3]
    named = ", ".join(f"{name[:80]} with {sizes[name]} bytes" for name in largest)
    return UsageError(
        f"the message's properties take {len(header)} bytes in a frame that may have {limit} "
        f"(the connection's frame_max, less 8): {named or 'its properties'}; move the data to the body"
    )


def _is_alike(entry: Unconfirmed, exchange: str, routing_key: str, body: bytes) -> bool:
    """Return whether a publish that was not returned yet equals a returned message, apart from its properties."""
    place = entry.exchange, entry.routing_key
    return not entry.is_returned and place == (exchange, routing_key) and entry.body == body


def _id_of(header: bytes) -> bytes | None:
    """Return the message id in a content header; None if it has none, or is malformed."""
    try:
        message_id = decode_header(header).message_id
    except ProtocolViolation:
        return None
    return None if message_id is None else encode_text(message_id)
