"""Publishing with confirms: the window of messages that the broker has not confirmed yet.

One window for each channel. A message's place is its delivery tag on this link; confirms may come in any
order and for many at once, and a return carries no tag at all (RabbitMQ's docs/confirms; `take_return`).
"""

import asyncio
import secrets
from collections import deque
from collections.abc import Callable
from typing import Final

from rabbitry.amqp.protocol import hot
from rabbitry.amqp.protocol.properties import (
    CONTENT_HEADER,
    FLAG_MESSAGE_ID,
    EncodedProperties,
    Properties,
    decode_header,
    encode_properties,
)
from rabbitry.amqp.protocol.tables import encode_short, encode_table
from rabbitry.exceptions import Closed, ProtocolViolation, PublishRefused, PublishReturned, PublishTimeout, UsageError

WINDOW_MESSAGES: Final = 4096
WINDOW_BYTES: Final = 64 << 20
_CACHED_ROUTES: Final = 1024
_KEPT_FAILURES: Final = 1024
_PERSISTENT: Final = Properties(delivery_mode=2)
_TIMER_STEP: Final = 0.05
_NO_TEMPLATE: Final = object()
"""Stands for properties that have to be encoded again for the next message."""


class Unconfirmed:
    """A message on its way: its future, and what it takes to send it again or to know it when it is returned.

    `number` counts over all links of the connection; delivery tags begin again with each.
    """

    __slots__ = (
        "body",
        "deadline",
        "exchange",
        "future",
        "header",
        "is_returned",
        "mandatory",
        "number",
        "routing_key",
        "tracked",
    )

    def __init__(
        self,
        number: int,
        future: asyncio.Future[None],
        exchange: str,
        routing_key: str,
        mandatory: bool,
        header: bytes,
        body: bytes,
        deadline: float | None,
        tracked: bool,
    ) -> None:
        self.number = number
        self.future = future
        self.exchange = exchange
        self.routing_key = routing_key
        self.mandatory = mandatory
        self.header = header
        self.body = body
        self.deadline = deadline
        self.tracked = tracked
        self.is_returned = False


class PublishWindow:
    """The unconfirmed messages of one channel, in the order in which they were sent."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._pending: dict[int, Unconfirmed] = {}
        self._bytes = 0
        self._next_tag = 1
        self._sent = 0
        self._current_name: Callable[[str], str] = str
        self._write: Callable[[bytes], None] | None = None
        self._flush: Callable[[], None] = lambda: None
        self._channel = 0
        self._frame_limit = 0
        self._can_write: Callable[[], bool] = bool
        self._closed: Closed | None = None
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._idle: list[tuple[int, asyncio.Future[None]]] = []
        self._failed: deque[asyncio.Future[None]] = deque(maxlen=_KEPT_FAILURES)
        self._routes: dict[tuple[str, str, bool], bytes] = {}
        self._template: object = _NO_TEMPLATE
        self._flags, self._before, self._after, self._brings_id = 0, b"", b"", False
        self._set_template(_PERSISTENT)
        self._id_prefix = secrets.token_hex(8).encode() + b"-"
        self._id_count = 0
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
    ) -> None:
        """Send over a (new) link: the broker counts delivery tags from 1 again. flush: hands what was written to the
        socket, without waiting for the end of this turn of the loop.

        What was not confirmed over the old one is sent again, in order and with its first deadline. What has
        an outcome for its sender already (returned, late, cancelled) is not. `current_name` gives the name that
        a queue has on this link: to the default exchange it is the routing key.
        """
        self._current_name = current_name
        self._channel, self._frame_limit = channel, frame_limit
        self._write, self._flush, self._can_write = write, flush, can_write
        self._closed = None
        self._routes.clear()
        self._next_tag = 1
        unconfirmed, self._pending = self._pending, {}
        self._bytes = 0
        for entry in unconfirmed.values():
            if entry.future.done():
                continue
            if len(entry.header) > frame_limit:  # this broker takes shorter frames than the one before
                self._finish(entry, header_too_large(entry.header, frame_limit))
            else:
                self._put(entry, write)
        self._wake_idle()
        self.wake()

    def suspend(self) -> None:
        """Send nothing until `attach`: the link is gone, and another is on its way."""
        self._write = None

    def abandon(self, error: Closed) -> None:
        """Refuse everything from now on, and leave who waits: they are another process's."""
        self._write = None
        self._closed = error

    def fail(self, error: Closed) -> None:
        """End everything that waits with `error`; nothing can be sent any more."""
        self._write = None
        self._closed = error
        pending, self._pending = self._pending, {}
        self._bytes = 0
        for entry in pending.values():
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
        return not self._pending and not self._waiters

    # -- sending ---------------------------------------------------------------------------------------

    async def send(
        self,
        body: bytes,
        exchange: str,
        routing_key: str,
        properties: Properties | EncodedProperties | None,
        mandatory: bool,
        timeout: float | None,
        tracked: bool,
    ) -> asyncio.Future[None]:
        """Send a message, having waited for room; gives the future of its confirm."""
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
            header = self._header(len(body))
            if len(header) > self._frame_limit:
                raise header_too_large(header, self._frame_limit)
            future = self._loop.create_future()
            number = self._sent + 1
            entry = Unconfirmed(number, future, exchange, routing_key, mandatory, header, body, deadline, tracked)
            is_alone = not self._pending
            self._put(entry, write)
            if is_alone:
                # Nothing is on its way that it could go with (Nagle's rule): `benchmarks/client.py`, ping.
                self._flush()
        finally:
            if self._waiters:
                self.wake()  # also where nothing was sent: no confirm would wake the next in line
        self._sent = number
        if deadline is not None:
            self._watch(deadline)
        return future

    def _put(self, entry: Unconfirmed, write: Callable[[bytes], None]) -> None:
        """Write a message, and give it its place in the window."""
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
        # A blocked broker reads nothing, so not even the first message goes out: its deadline would be lost on it.
        return len(self._pending) < WINDOW_MESSAGES and self._bytes < WINDOW_BYTES and self._can_write()

    async def _wait_for_room(self, deadline: float | None) -> None:
        """Wait in line. Whoever leaves the line wakes the next, so a place is never lost."""
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
                    self.wake()  # it was our turn: the next in line takes it
                if isinstance(error, TimeoutError):
                    text = "not sent: the broker took no more messages before the deadline"
                    raise PublishTimeout(text) from error
                raise
            if self._has_room():
                return

    def wake(self) -> None:
        """Let the first in line go on, if there is room."""
        while self._waiters and self._has_room():
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _add_route(self, route: tuple[str, str, bool]) -> bytes:
        exchange, routing_key, mandatory = route
        payload = hot.publish_payload(encode_short(exchange), encode_short(routing_key), mandatory)
        if len(self._routes) >= _CACHED_ROUTES:
            self._routes.clear()
        frame = self._routes[route] = hot.encode_method_frame(self._channel, payload)
        return frame

    def _set_template(self, properties: Properties | EncodedProperties) -> None:
        """Encode all of `properties` but a message id that we are to give; kept for the next message."""
        if isinstance(properties, EncodedProperties):
            self._flags, self._before, self._after = properties
            self._brings_id, self._template = False, _NO_TEMPLATE
            return
        full = properties._replace(delivery_mode=2) if properties.delivery_mode is None else properties
        flags, parts = encode_properties(full)
        # Only now: what can't be encoded must leave the last template whole.
        first = (flags // (2 * FLAG_MESSAGE_ID)).bit_count()  # so many are before the message id on the wire
        self._brings_id = full.message_id is not None
        self._flags = flags | FLAG_MESSAGE_ID
        self._before = b"".join(parts[:first])
        self._after = b"".join(parts[first:])
        if properties is _PERSISTENT:
            self._template = None  # what a publish without properties asks for
        else:
            # Headers are the one part that the caller can change in place.
            self._template = properties if properties.headers is None else _NO_TEMPLATE

    def _header(self, size: int) -> bytes:
        start = CONTENT_HEADER.pack(60, 0, size, self._flags)
        if self._brings_id:
            return start + self._before + self._after
        self._id_count += 1
        message_id = b"%b%x" % (self._id_prefix, self._id_count)
        return b"%b%b%c%b%b" % (start, self._before, len(message_id), message_id, self._after)

    # -- confirms and returns --------------------------------------------------------------------------

    def confirm(self, tag: int, multiple: bool) -> None:
        """Take a basic.ack."""
        for entry in self._take(tag, multiple):
            if not entry.future.done():
                entry.future.set_result(None)
        self._after_confirm()

    def refuse(self, tag: int, multiple: bool) -> None:
        """Take a basic.nack."""
        for entry in self._take(tag, multiple):
            target = f"exchange {entry.exchange!r}, routing key {entry.routing_key!r}"
            self._finish(entry, PublishRefused(f"the broker refused a message (nack; {target}): a queue may be full"))
        self._after_confirm()

    def _take(self, tag: int, multiple: bool) -> list[Unconfirmed]:
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
        """Take a basic.return: fail the oldest equal publish that was not returned yet.

        Messages that are equal in exchange, routing key, properties and body are interchangeable, so it does
        not matter which of them is told. The entry stays until its confirm comes.
        """
        reply_code, reply_text, exchange, routing_key = hot.parse_return(arguments)
        for same_header in (header.__eq__, _same_properties(header)):
            for entry in self._pending.values():
                if (
                    not entry.is_returned
                    and entry.body == body
                    and entry.exchange == exchange
                    and entry.routing_key == routing_key
                    and same_header(entry.header)
                ):
                    entry.is_returned = True
                    self._finish(entry, PublishReturned(reply_code, reply_text, exchange, routing_key))
                    return
        raise ProtocolViolation(503, f"COMMAND_INVALID - a message was returned that was not sent ({exchange!r})")

    def _finish(self, entry: Unconfirmed, error: Exception) -> None:
        future = entry.future
        if future.done():
            return
        future.set_exception(error)
        if entry.tracked:
            self._failed.append(future)

    # -- waiting and deadlines -------------------------------------------------------------------------

    async def wait_idle(self, timeout: float | None) -> None:
        """Wait until all that was sent before is confirmed or has failed; raise the failures as one group."""
        last = self._sent
        if self._pending:
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._idle.append((last, waiter))
            try:
                async with asyncio.timeout(timeout):
                    await waiter
            except TimeoutError as error:
                raise PublishTimeout(f"{len(self._pending)} messages were not confirmed within {timeout} s") from error
            finally:
                if (last, waiter) in self._idle:
                    self._idle.remove((last, waiter))
        failures = [future.exception() for future in self._failed]
        errors = [failure for failure in failures if isinstance(failure, Exception)]
        self._failed.clear()
        if errors:
            raise ExceptionGroup(f"{len(errors)} messages were not confirmed", errors)

    def _wake_idle(self) -> None:
        oldest = next(iter(self._pending.values()), None)
        for last, waiter in self._idle:
            if (oldest is None or oldest.number > last) and not waiter.done():
                waiter.set_result(None)

    def _watch(self, deadline: float) -> None:
        if self._timer is None or deadline < self._timer.when():
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(deadline, self._expire)

    def _expire(self) -> None:
        """Fail what is past its deadline. It keeps its place: the broker may still confirm or return it."""
        self._timer = None
        now = self._loop.time()
        deadlines = []
        for entry in self._pending.values():
            if entry.deadline is None or entry.future.done():
                continue
            if entry.deadline <= now:
                self._finish(entry, PublishTimeout("not confirmed before the deadline; the outcome is unknown"))
            else:
                deadlines.append(entry.deadline)
        if deadlines:
            self._watch(max(min(deadlines), now + _TIMER_STEP))


def as_body(body: object) -> bytes:
    """Give a body as bytes, a copy where its owner may change it. Raises UsageError for what is none."""
    if isinstance(body, bytes | bytearray | memoryview):
        return bytes(body)
    raise UsageError(f"a body is bytes, not {type(body).__name__}; text becomes bytes with .encode()")


def header_too_large(header: bytes, limit: int) -> UsageError:
    """Make the error for a content header that fits no frame; it names the largest parts."""
    properties = decode_header(header)
    sizes = {f"header {name!r}": len(encode_table({name: value})) for name, value in (properties.headers or {}).items()}
    largest = sorted(sizes, key=sizes.__getitem__, reverse=True)[:3]
    named = ", ".join(f"{name[:80]} with {sizes[name]} bytes" for name in largest)
    return UsageError(
        f"the message's properties take {len(header)} bytes in a frame that may have {limit} "
        f"(the connection's frame_max, less 8): {named or 'its properties'}; move the data to the body"
    )


def _same_properties(header: bytes) -> Callable[[bytes], bool]:
    """Compare by meaning, since a broker may encode what it returns in another way than it came."""
    properties = decode_header(header)
    return lambda other: decode_header(other) == properties
