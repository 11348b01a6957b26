"""The protocol of one connection without I/O, for either side: bytes in, events out, bytes to send.

The core knows frames, contents, states and limits; the meaning of a method is up to the client or the broker.
A driver passes `receive` what it reads from the socket, and writes what the encoders return.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Final, Literal

from rabbitry._fields import Members
from rabbitry.amqp.protocol import hot
from rabbitry.amqp.protocol.constants import (
    CLASS_BASIC,
    FRAME_BODY,
    FRAME_END,
    FRAME_HEADER,
    FRAME_HEARTBEAT,
    FRAME_METHOD,
    FRAME_MIN_SIZE,
    FRAME_OVERHEAD,
    HEADERS_0_8,
    HEARTBEAT_FRAME,
    PROTOCOL_HEADER,
    Reply,
)
from rabbitry.amqp.protocol.contents import (
    LONG_PART,
    MISSING_FOR_MEMORY,
    Content,
    CutFrame,
    keep_freed_memory,
    no_content,
)
from rabbitry.amqp.protocol.encoding import decode_method, encode_method
from rabbitry.amqp.protocol.events import (
    ACK,
    DELIVER,
    GET_OK,
    HEADER,
    METHOD,
    PUBLISH,
    RETURN,
    VIOLATION,
    ContentEvent,
    Event,
)
from rabbitry.amqp.protocol.layouts import BY_SIGNATURE, BY_TYPE, CLIENT, SERVER, Layout
from rabbitry.amqp.protocol.methods import (
    BasicAck,
    ChannelClose,
    ChannelCloseOk,
    ChannelOpen,
    ChannelOpenOk,
    ConnectionClose,
    ConnectionCloseOk,
    ConnectionOpen,
    ConnectionOpenOk,
    ConnectionSecure,
    ConnectionSecureOk,
    ConnectionStart,
    ConnectionStartOk,
    ConnectionTune,
    ConnectionTuneOk,
    Method,
    method_name,
)
from rabbitry.amqp.protocol.states import (
    ChannelEvent,
    ChannelState,
    ConnectionEvent,
    ConnectionState,
    step_channel,
    step_connection,
)
from rabbitry.amqp.protocol.tables import is_finite, octets
from rabbitry.exceptions import ProtocolViolation, UsageError


class Role(Members):
    """Which side of the connection this is."""

    CLIENT = CLIENT
    BROKER = SERVER


_CONNECTION_EVENTS: Final[dict[type, ConnectionEvent]] = {
    ConnectionStart: ConnectionEvent.START,
    ConnectionStartOk: ConnectionEvent.START_OK,
    ConnectionSecure: ConnectionEvent.SECURE,
    ConnectionSecureOk: ConnectionEvent.SECURE_OK,
    ConnectionTune: ConnectionEvent.TUNE,
    ConnectionTuneOk: ConnectionEvent.TUNE_OK,
    ConnectionOpen: ConnectionEvent.OPEN,
    ConnectionOpenOk: ConnectionEvent.OPEN_OK,
}
_CONTENT_EVENTS: Final = {
    60 << 16 | 40: PUBLISH,
    60 << 16 | 60: DELIVER,
    60 << 16 | 50: RETURN,
    60 << 16 | 71: GET_OK,
}
_CLASS_CONNECTION: Final = 10
_CLOSES: Final = (ConnectionClose, ConnectionCloseOk)
_ON_ZERO: Final = "CHANNEL_ERROR - unexpected method in connection state running"
_HEADERS: Final = (PROTOCOL_HEADER, b"AMQP\x01\x01\x00\x09", *HEADERS_0_8)
"""The protocol headers that RabbitMQ accepts: those of 0-9-1, of 0-9 (treated as 0-9-1) and of 0-8."""
_MOST_PLAIN: Final = 200
"""Most events of frames decoded one by one that one call returns: a chunk can hold thousands, too many for one
iteration of the loop."""
_OVER: Final = (ConnectionState.CLOSE_RECEIVED, ConnectionState.CLOSED)
"""States in which everything that the peer still sends is ignored (section 2.2.4: its close ends its output)."""


def _check_arguments(method: Method) -> None:
    """Refuse names that are not UTF-8 (501, RabbitMQ's text), except in basic.publish, as RabbitMQ does.

    Refuse NaN and infinity too: Erlang's floats can't hold them, and RabbitMQ's reader crashes on them without a reply.
    """
    for value in method:
        if isinstance(value, Mapping) and not is_finite(value):
            text = "FRAME_ERROR - a field table holds a float that is no finite number"
            raise ProtocolViolation(Reply.FRAME_ERROR, text)
        if isinstance(value, str) and not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError as error:
                raise ProtocolViolation(Reply.FRAME_ERROR, "FRAME_ERROR - Malformed UTF-8 in shortstr") from error


@cache
def _heartbeats() -> re.Pattern[bytes]:
    """Return the pattern of heartbeat frames in a row. Many connections end before their first one."""
    return re.compile(b"(?:%b)+" % re.escape(HEARTBEAT_FRAME))


def _unexpected(kind: int, payload: bytes) -> ProtocolViolation:
    text = f"UNEXPECTED_FRAME - type {kind}, {octets(payload)}"
    return ProtocolViolation(Reply.UNEXPECTED_FRAME, text)


_LONGEST_HEADER: Final = 1 << 24
"""Bytes of a content header that a client accepts, whatever frame size was agreed on. A header can't be split, so
brokers send a header that came over a connection with larger frames, or that dead-lettering extended, in a frame
beyond the limit (RabbitMQ's rabbit_binary_generator limits bodies only). A client that refused it would lose its
connection to the same message again and again."""


class Connection:
    """One side of a connection. Not tied to any transport, clock or event loop."""

    def __init__(self, role: Role, *, frame_max: int, channel_max: int, max_body_size: int) -> None:
        """Create the core for `role`.

        Args:
            role: Whether this is the client or the server.
            frame_max: The largest frame that either side may send, in bytes; valid until `tuned`.
            channel_max: The highest channel number; valid until `tuned`.
            max_body_size: Bytes; a larger body is discarded: its event has an empty body, and the header has the size.
        """
        self.role = role
        self.frame_max: int = frame_max
        self.channel_max: int = channel_max
        self.max_body_size = max_body_size
        self.state: ConnectionState = ConnectionState.IDLE
        self.framing_lost: bool = False
        self._method_limit = FRAME_MIN_SIZE - FRAME_OVERHEAD  # what every peer accepts before the limits are agreed on
        self.is_0_8: bool = False
        """Whether AMQP 0-8 is spoken, as the client's protocol header asked for."""
        self._by_signature: Mapping[int, Layout] = BY_SIGNATURE
        self._by_type: Mapping[type, Layout] = BY_TYPE
        self._channels: dict[int, ChannelState] = {}
        self._contents: dict[int, Content] = {}
        self._ready: set[int] = set()
        self._chunks: list[bytes] = []
        self._offset = 0
        """Offset of the first unprocessed byte in the first chunk."""
        self._waiting = 0
        self._needed = 8
        self._ends_here = False
        """Whether this call of `receive` ends with the events found so far."""
        self._cut: CutFrame | None = None
        self._peer = SERVER if role is Role.CLIENT else CLIENT
        self._takes: tuple[int, Literal[1, 2]] = hot.CLIENT_TAKES if role is Role.CLIENT else hot.BROKER_TAKES

    @property
    def frame_limit(self) -> int:
        """The largest payload of a frame, in bytes."""
        return self.frame_max - FRAME_OVERHEAD

    def tuned(self, frame_max: int, channel_max: int) -> None:
        """Set the limits that both sides agreed on."""
        self.frame_max = max(frame_max, FRAME_MIN_SIZE)
        self._method_limit = self.frame_limit
        self.channel_max = channel_max

    def channel_state(self, channel: int) -> ChannelState:
        """Return the state of a channel."""
        return self._channels.get(channel, ChannelState.CLOSED)

    # -- sending ---------------------------------------------------------------------------------------

    def send_header(self) -> bytes:
        """Return the protocol header that a client starts with."""
        self.state = step_connection(self.state, ConnectionEvent.HEADER)
        return PROTOCOL_HEADER

    def send_method(self, channel: int, method: Method) -> bytes:
        """Return the frame of `method`, and change the state accordingly.

        Raises:
            UsageError: This side must not send the method, its frame would be too long, or it is illegal in this state.
                The state is unchanged.
        """
        layout = BY_TYPE[type(method)]
        name = method_name(layout.class_id, layout.method_id)
        if not self.role.value & layout.sender:
            raise UsageError(f"{name} is not for the {self.role.name.lower()} to send")
        payload = encode_method(method, self._by_type)
        if len(payload) > self._method_limit:
            named = next((f" of {value!r}" for value in method if isinstance(value, str) and value), "")
            raise UsageError(
                f"{name}{named[:60]} takes {len(payload)} bytes in a frame that may have {self._method_limit}: "
                "send shorter arguments"
            )
        try:
            if layout.class_id == _CLASS_CONNECTION:
                self._step_connection(method, sending=True)
            else:
                self._step_channel(channel, method, sending=True)
        except ProtocolViolation as violation:
            raise UsageError(f"can't send {name} on channel {channel}: {violation.reply_text}") from violation
        return hot.encode_method_frame(channel, payload)

    # -- receiving -------------------------------------------------------------------------------------

    def receive(self, data: bytes) -> list[Event]:
        """Process data from the peer and return its events, in wire order; an incomplete rest is kept.

        Call it again with b"" until it returns nothing. An event that changes the state of the connection or closes a
        channel is the only event of its call: the receiver processes everything before it, and answers it, before the
        states change again. The same frames therefore have the same effect however they are cut into chunks.

        A violation is the last event, after everything that was correct before it. The data after the frame at fault is
        kept for the next call, by which time the receiver has sent its close; if the framing itself is lost
        (`framing_lost`), or the peer has closed the connection, that data is discarded.
        """
        if self.framing_lost or self.state in _OVER:
            return []
        cut = self._cut
        if cut is not None and len(data) <= cut.missing:
            cut.add(memoryview(data), len(data))
            return []
        if data:
            self._chunks.append(data)
            self._waiting += len(data)
        if self._waiting < self._needed:
            return []
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        events: list[Event] = []
        channel = 0
        offset = self._offset
        self._needed = FRAME_OVERHEAD
        self._ends_here = False
        plain = 0
        try:
            if self.state is ConnectionState.IDLE:
                offset = self._receive_header(data, events)
            elif self._cut is not None:
                offset = self._end_cut_frame(self._cut, data, events)
            end = len(data)
            limit = self.frame_limit
            body_limit = min(limit, self.max_body_size)
            while end - offset >= FRAME_OVERHEAD and not self._ends_here:
                offset = hot.scan(data, offset, limit, body_limit, self._takes, self._ready, events)
                if end - offset < FRAME_OVERHEAD:
                    break
                channel = int.from_bytes(data[offset + 1 : offset + 3], "big")
                known = len(events)
                after = self._receive_frame(data, offset, channel, events)
                if after == offset:
                    break
                offset = end if self.state in _OVER else after
                plain += len(events) - known
                self._ends_here = self._ends_here or plain >= _MOST_PLAIN
        except ProtocolViolation as violation:
            events.append((VIOLATION, channel, violation))
            # Either one whole frame is in violation, or the framing is lost.
            offset = len(data) if self.framing_lost else self._end_of_frame(data, offset)
        self._waiting = len(data) - offset
        # After a lone event, or many plain frames, the next call processes the rest. The rest may hold many more of
        # them, so it is not copied each time.
        self._offset = offset if self._ends_here and self._waiting else 0
        self._chunks = ([data] if self._offset else [data[offset:]]) if self._waiting else []
        return events

    def room(self) -> list[memoryview] | None:
        """Return memory to read the next bytes from the socket into, for `receive_in_place`; None for `receive`.

        It is filled in the list's order. A client has some within a large body. A broker would allot memory for what a
        client only announces.
        """
        return None if self._cut is None or self.role is Role.BROKER else self._cut.room()

    def receive_in_place(self, size: int) -> list[Event]:
        """Process `size` bytes that were read into `room`, as `receive` does. The list is emptied."""
        rest = b"" if self._cut is None else self._cut.take(size)
        return self.receive(rest) if rest else []

    @staticmethod
    def _end_of_frame(data: bytes, offset: int) -> int:
        return offset + FRAME_OVERHEAD + int.from_bytes(data[offset + 3 : offset + 7], "big")

    def _lose_framing(self, text: str) -> ProtocolViolation:
        self.framing_lost = True
        return ProtocolViolation(Reply.FRAME_ERROR, f"FRAME_ERROR - {text}")

    def _receive_header(self, data: bytes, events: list[Event]) -> int:
        header = data[:8]
        if header not in _HEADERS:
            raise self._lose_framing(f"protocol header {header!r} is not AMQP 0-9-1")
        self.state = step_connection(self.state, ConnectionEvent.HEADER)
        if header in HEADERS_0_8:
            from rabbitry.amqp.protocol import amqp_0_8  # the broker has imported it; a client never needs it

            self.is_0_8 = True
            self._by_signature = amqp_0_8.LAYOUTS_BY_SIGNATURE
            self._by_type = amqp_0_8.LAYOUTS_BY_TYPE
        events.append((HEADER, 0, header))
        self._ends_here = True
        return 8

    def _receive_frame(self, data: bytes, offset: int, channel: int, events: list[Event]) -> int:
        """Process one frame the plain way, and return the offset of the next one.

        Returns `offset` unchanged if the frame is not complete yet, or is left for the next call of `receive`.
        """
        kind = data[offset]
        if self.state is ConnectionState.GREETED and data.startswith(b"AMQP", offset):
            raise self._lose_framing(f"the broker answered with protocol header {data[offset : offset + 8]!r}")
        size = int.from_bytes(data[offset + 3 : offset + 7], "big")
        if kind not in (FRAME_METHOD, FRAME_HEADER, FRAME_BODY, FRAME_HEARTBEAT):
            raise self._lose_framing(f"type {kind}, {octets(data[offset + 7 : offset + 7 + size])}: unknown_frame")
        limit = self.frame_max  # like RabbitMQ, tolerate eight bytes more: clients count the payload alone
        if kind == FRAME_HEADER and self.role is Role.CLIENT:
            limit = max(limit, _LONGEST_HEADER)
        if size > limit:
            raise self._lose_framing(f"type {kind}, all octets = <<>>: {{frame_too_large,{size},{self.frame_limit}}}")
        stop = offset + 7 + size
        content = self._body_of(channel, size) if kind == FRAME_BODY else None
        if stop >= len(data):
            if content is not None and len(data) - offset >= LONG_PART:
                self._cut = CutFrame(channel, content, size, data[offset + 7 : offset + 71])
                self._cut.add(memoryview(data)[offset + 7 :], len(data))
                self._needed = 1
                return len(data)
            self._needed = size + FRAME_OVERHEAD
            return offset
        if data[stop] != FRAME_END:
            raise self._wrong_end(kind, data[offset + 7 : stop], data[stop])
        if content is not None:
            content.add(memoryview(data)[offset + 7 : stop], len(data))
            after = self._take_short_bodies(data, stop + 1, channel, content)
            self._end_content(channel, content, events)
            return after
        payload = data[offset + 7 : stop]
        if kind == FRAME_METHOD:
            lone = self._is_lone(payload)
            if lone and events:
                self._ends_here = True
                return offset
            self._receive_method(channel, payload, events)
            self._ends_here = lone and bool(events)
        elif kind == FRAME_HEARTBEAT:
            if size:
                raise self._lose_framing(f"type {kind}, {octets(payload)}: unknown_frame")
            if channel:
                raise _unexpected(kind, payload)
            return _heartbeats().match(data, offset).end()  # type: ignore[union-attr] # it matches this one at least
        elif channel == 0:
            raise _unexpected(kind, payload)
        else:
            self._receive_content(channel, kind, payload, events)
        return stop + 1

    def _take_short_bodies(self, data: bytes, offset: int, channel: int, content: Content) -> int:
        """Process the short body frames that follow, and return the offset of the first other frame.

        They become one part of the body: a chunk can hold thousands of frames, and each part has an overhead of memory.
        """
        parts: list[bytes] = []
        offset = hot.scan_bodies(data, offset, channel, min(LONG_PART, self.frame_limit), content.missing, parts)
        if parts:
            part = b"".join(parts)
            content.add(memoryview(part), len(part))
        return offset

    def _wrong_end(self, kind: int, payload: bytes, found: int) -> ProtocolViolation:
        return self._lose_framing(f"type {kind}, {octets(payload)}: {{invalid_frame_end_marker,{found}}}")

    def _body_of(self, channel: int, size: int) -> Content | None:
        """Return the content that a body frame of this size belongs to; None if the frame has to go the plain way."""
        content = self._contents.get(channel)
        if (
            content is None
            or not content.header
            or size > content.missing
            or self.state is ConnectionState.CLOSING
            or self._channels.get(channel) is ChannelState.CLOSING
        ):
            return None
        return content

    def _end_cut_frame(self, cut: CutFrame, data: bytes, events: list[Event]) -> int:
        """Process the rest of a body frame that began in an earlier chunk, and return the offset of the next frame."""
        end = cut.missing
        self._cut = None
        cut.add(memoryview(data)[:end], len(data))
        if data[end] != FRAME_END:
            raise self._wrong_end(FRAME_BODY, cut.octets, data[end])
        if self._contents.get(cut.channel) is cut.content:  # otherwise the channel was closed meanwhile
            self._end_content(cut.channel, cut.content, events)
        return end + 1

    def _is_lone(self, payload: bytes) -> bool:
        """Return whether a method has to be the only event of its call of `receive`."""
        layout = self._by_signature.get(int.from_bytes(payload[:4], "big"))
        return layout is not None and (layout.class_id == _CLASS_CONNECTION or layout.make is ChannelClose)

    def _receive_method(self, channel: int, payload: bytes, events: list[Event]) -> None:
        signature = int.from_bytes(payload[:4], "big")
        layout = self._by_signature.get(signature)
        if self.state is ConnectionState.CLOSING and (layout is None or layout.make not in _CLOSES):
            return  # section 2.2.4: after sending close, everything but close and close-ok is discarded
        if self._channels.get(channel) is ChannelState.CLOSING and signature not in (20 << 16 | 40, 20 << 16 | 41):
            return
        if channel in self._contents:
            raise no_content(self._contents[channel])
        if layout is not None and not self._peer & layout.sender:
            text = "COMMAND_INVALID - unimplemented method"
            raise ProtocolViolation(Reply.COMMAND_INVALID, text, layout.class_id, layout.method_id)
        event = _CONTENT_EVENTS.get(signature)
        if event is not None:
            self._check_channel_open(channel, signature & 0xFFFF)
            self._contents[channel] = Content(signature, event, payload[4:])
            self._ready.discard(channel)
            return
        method = decode_method(payload, self._by_signature)
        if self.role is Role.BROKER:
            _check_arguments(method)
        try:
            if signature >> 16 == _CLASS_CONNECTION:
                if channel:
                    self._check_channel_open(channel)
                    raise ProtocolViolation(Reply.COMMAND_INVALID, "COMMAND_INVALID - unimplemented method")
                self._step_connection(method, sending=False)
            else:
                self._step_channel(channel, method, sending=False)
        except ProtocolViolation as violation:
            violation.class_id, violation.method_id = signature >> 16, signature & 0xFFFF
            raise
        if isinstance(method, BasicAck):
            events.append((ACK, channel, method.delivery_tag, method.multiple))
        else:
            events.append((METHOD, channel, method))

    def _receive_content(self, channel: int, kind: int, payload: bytes, events: list[Event]) -> None:
        if self.state is ConnectionState.CLOSING or self._channels.get(channel) is ChannelState.CLOSING:
            return
        content = self._contents.get(channel)
        if content is None:
            self._check_channel_open(channel)
            text = "UNEXPECTED_FRAME - expected method frame, got non method frame instead"
            raise ProtocolViolation(Reply.UNEXPECTED_FRAME, text)
        if (kind == FRAME_HEADER) == bool(content.header):
            raise no_content(content)
        if kind == FRAME_HEADER:
            self._begin_body(content, payload)
        else:
            content.missing -= len(payload)
            if content.missing < 0:
                text = f"FRAME_ERROR - a body is {-content.missing} bytes longer than its header says"
                raise ProtocolViolation(Reply.FRAME_ERROR, text, 60, content.signature & 0xFFFF)
        self._end_content(channel, content, events)

    def _end_content(self, channel: int, content: Content, events: list[Event]) -> None:
        if content.missing == 0:
            del self._contents[channel]
            self._ready.add(channel)
            done: ContentEvent = (content.event, channel, content.arguments, content.header, content.body())  # type: ignore[assignment] # a Literal, from _CONTENT_EVENTS
            events.append(done)

    def _begin_body(self, content: Content, payload: bytes) -> None:
        method_id = content.signature & 0xFFFF
        if len(payload) < 14:
            raise ProtocolViolation(Reply.FRAME_ERROR, "FRAME_ERROR - a content header is cut short", 60, method_id)
        class_id = int.from_bytes(payload[:2], "big")
        if class_id != CLASS_BASIC:
            text = f"UNEXPECTED_FRAME - expected content header for class 60, got one for class {class_id} instead"
            raise ProtocolViolation(Reply.UNEXPECTED_FRAME, text, 60, method_id)
        if payload[2:4] != b"\0\0":
            raise no_content(content)  # the weight is not 0 (section 4.2.6.1): not a content header to RabbitMQ
        size = int.from_bytes(payload[4:12], "big")
        content.header = payload
        content.missing = size
        content.too_large = size > self.max_body_size
        if size >= MISSING_FOR_MEMORY and self.role is Role.CLIENT:
            keep_freed_memory()

    # -- states ----------------------------------------------------------------------------------------

    def _check_channel_open(self, channel: int, method_id: int = 0) -> None:
        if channel == 0:
            raise ProtocolViolation(Reply.CHANNEL_ERROR, _ON_ZERO)
        try:
            step_channel(self.channel_state(channel), ChannelEvent.METHOD)
        except ProtocolViolation as violation:
            violation.class_id, violation.method_id = (60, method_id) if method_id else (0, 0)
            raise

    def _step_connection(self, method: Method, *, sending: bool) -> None:
        event = _CONNECTION_EVENTS.get(type(method))
        if isinstance(method, ConnectionClose):
            event = ConnectionEvent.SEND_CLOSE if sending else ConnectionEvent.RECEIVE_CLOSE
        elif isinstance(method, ConnectionCloseOk):
            event = ConnectionEvent.SEND_CLOSE_OK if sending else ConnectionEvent.RECEIVE_CLOSE_OK
        if event is not None:
            self.state = step_connection(self.state, event)
            if self.state in (ConnectionState.CLOSING, ConnectionState.CLOSE_RECEIVED):
                self._ready.clear()
                self._contents.clear()
        elif self.state is not ConnectionState.OPEN:
            text = f"COMMAND_INVALID - a method on a connection that is {self.state.value}"
            raise ProtocolViolation(Reply.COMMAND_INVALID, text)

    def _check_channel_count(self, channel: int) -> None:
        """Refuse a channel beyond the agreed limit: RabbitMQ limits their count, our client the numbers."""
        if self.role is Role.CLIENT and channel > self.channel_max:
            text = f"NOT_ALLOWED - channel number {channel} is not in the agreed 1 to {self.channel_max}"
            raise ProtocolViolation(Reply.NOT_ALLOWED, text)
        if channel not in self._channels and len(self._channels) >= self.channel_max:
            text = (
                f"NOT_ALLOWED - number of channels opened ({len(self._channels)}) has reached the negotiated "
                f"channel_max ({self.channel_max})"
            )
            raise ProtocolViolation(Reply.NOT_ALLOWED, text)

    def _step_channel(self, channel: int, method: Method, *, sending: bool) -> None:
        if self.state is not ConnectionState.OPEN:
            text = f"COMMAND_INVALID - a method on a connection that is {self.state.value}"
            raise ProtocolViolation(Reply.COMMAND_INVALID, text)
        if not isinstance(method, ChannelOpen | ChannelOpenOk | ChannelClose | ChannelCloseOk):
            self._check_channel_open(channel)
            return
        if channel == 0:
            raise ProtocolViolation(Reply.CHANNEL_ERROR, _ON_ZERO)
        if isinstance(method, ChannelOpen):
            self._check_channel_count(channel)
            event = ChannelEvent.OPEN
        elif isinstance(method, ChannelOpenOk):
            event = ChannelEvent.OPEN_OK
        elif isinstance(method, ChannelClose):
            event = ChannelEvent.SEND_CLOSE if sending else ChannelEvent.RECEIVE_CLOSE
        else:
            event = ChannelEvent.SEND_CLOSE_OK if sending else ChannelEvent.RECEIVE_CLOSE_OK
        state = step_channel(self.channel_state(channel), event)
        if state is ChannelState.CLOSED:
            self._channels.pop(channel, None)
        else:
            self._channels[channel] = state
        if state is ChannelState.OPEN:
            self._ready.add(channel)
        else:
            self._ready.discard(channel)
            self._contents.pop(channel, None)
