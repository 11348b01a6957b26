"""The states of a connection and of a channel, and all transitions.

One table serves client and broker: everything that one side sends, the other receives. An event that is not in the
table is illegal: `step_connection` and `step_channel` raise, and the state stays unchanged.
(AMQP 0-9-1, sections 2.2.4, 4.2.2 and the grammars of the classes connection and channel.)
"""

from __future__ import annotations

from typing import Final

from rabbitry._fields import Members
from rabbitry.amqp.protocol.constants import Reply
from rabbitry.exceptions import ProtocolViolation


class ConnectionState(Members):
    """The states of a connection."""

    IDLE = "idle"
    GREETED = "greeted"  # the client's protocol header was sent
    STARTED = "started"  # connection.start was sent
    AUTHENTICATING = "authenticating"
    CHALLENGED = "challenged"
    TUNING = "tuning"
    TUNED = "tuned"
    OPENING = "opening"
    OPEN = "open"
    CLOSING = "closing"  # we sent close and wait for close-ok
    CLOSE_RECEIVED = "close received"  # the peer sent close and waits for our close-ok
    CLOSED = "closed"


class ConnectionEvent(Members):
    """The events that change a connection's state; those of a close include the direction."""

    HEADER = "protocol header"
    START = "connection.start"
    START_OK = "connection.start-ok"
    SECURE = "connection.secure"
    SECURE_OK = "connection.secure-ok"
    TUNE = "connection.tune"
    TUNE_OK = "connection.tune-ok"
    OPEN = "connection.open"
    OPEN_OK = "connection.open-ok"
    SEND_CLOSE = "our connection.close"
    RECEIVE_CLOSE = "the peer's connection.close"
    SEND_CLOSE_OK = "our connection.close-ok"
    RECEIVE_CLOSE_OK = "the peer's connection.close-ok"


class ChannelState(Members):
    """The states of a channel."""

    CLOSED = "closed"
    OPENING = "opening"
    OPEN = "open"
    CLOSING = "closing"  # we sent close and wait for close-ok; everything else is ignored
    CLOSE_RECEIVED = "close received"  # the peer sent close and waits for our close-ok


class ChannelEvent(Members):
    """The events that change a channel's state; METHOD is any method other than those that open and close."""

    OPEN = "channel.open"
    OPEN_OK = "channel.open-ok"
    METHOD = "a method or content"
    SEND_CLOSE = "our channel.close"
    RECEIVE_CLOSE = "the peer's channel.close"
    SEND_CLOSE_OK = "our channel.close-ok"
    RECEIVE_CLOSE_OK = "the peer's channel.close-ok"


_S, _E = ConnectionState, ConnectionEvent
_BEFORE_CLOSE: Final = [state for state in _S if state not in (_S.CLOSING, _S.CLOSE_RECEIVED, _S.CLOSED)]

CONNECTION_TRANSITIONS: Final[dict[tuple[ConnectionState, ConnectionEvent], ConnectionState]] = {
    (_S.IDLE, _E.HEADER): _S.GREETED,
    (_S.GREETED, _E.START): _S.STARTED,
    (_S.STARTED, _E.START_OK): _S.AUTHENTICATING,
    (_S.AUTHENTICATING, _E.SECURE): _S.CHALLENGED,
    (_S.CHALLENGED, _E.SECURE_OK): _S.AUTHENTICATING,
    (_S.AUTHENTICATING, _E.TUNE): _S.TUNING,
    (_S.TUNING, _E.TUNE_OK): _S.TUNED,
    (_S.TUNED, _E.OPEN): _S.OPENING,
    (_S.OPENING, _E.OPEN_OK): _S.OPEN,
    **{(state, _E.SEND_CLOSE): _S.CLOSING for state in _BEFORE_CLOSE},
    **{(state, _E.RECEIVE_CLOSE): _S.CLOSE_RECEIVED for state in _BEFORE_CLOSE},
    (_S.CLOSE_RECEIVED, _E.SEND_CLOSE_OK): _S.CLOSED,
    (_S.CLOSING, _E.RECEIVE_CLOSE_OK): _S.CLOSED,
    # Both sides may close at once: each answers the other's close and still waits for its own close-ok.
    (_S.CLOSING, _E.RECEIVE_CLOSE): _S.CLOSING,
    (_S.CLOSING, _E.SEND_CLOSE_OK): _S.CLOSING,
}

_C, _D = ChannelState, ChannelEvent

CHANNEL_TRANSITIONS: Final[dict[tuple[ChannelState, ChannelEvent], ChannelState]] = {
    (_C.CLOSED, _D.OPEN): _C.OPENING,
    (_C.OPENING, _D.OPEN_OK): _C.OPEN,
    (_C.OPEN, _D.METHOD): _C.OPEN,
    (_C.OPENING, _D.METHOD): _C.OPENING,  # a client need not wait for open-ok before it goes on
    (_C.OPENING, _D.SEND_CLOSE): _C.CLOSING,
    (_C.OPEN, _D.SEND_CLOSE): _C.CLOSING,
    (_C.OPENING, _D.RECEIVE_CLOSE): _C.CLOSE_RECEIVED,
    (_C.OPEN, _D.RECEIVE_CLOSE): _C.CLOSE_RECEIVED,
    (_C.CLOSE_RECEIVED, _D.SEND_CLOSE_OK): _C.CLOSED,
    (_C.CLOSING, _D.RECEIVE_CLOSE_OK): _C.CLOSED,
    (_C.CLOSING, _D.RECEIVE_CLOSE): _C.CLOSING,
    (_C.CLOSING, _D.SEND_CLOSE_OK): _C.CLOSING,
    (_C.CLOSING, _D.METHOD): _C.CLOSING,
}


def step_connection(state: ConnectionState, event: ConnectionEvent) -> ConnectionState:
    """Return the state after `event`. Raises ProtocolViolation (503, on an open connection 504) for an illegal one."""
    try:
        return CONNECTION_TRANSITIONS[state, event]
    except KeyError:
        if state is ConnectionState.OPEN:
            text = "CHANNEL_ERROR - unexpected method in connection state running"
            raise ProtocolViolation(Reply.CHANNEL_ERROR, text) from None
        text = f"COMMAND_INVALID - {event.value} on a connection that is {state.value}"
        raise ProtocolViolation(Reply.COMMAND_INVALID, text) from None


def step_channel(state: ChannelState, event: ChannelEvent) -> ChannelState:
    """Return the state after `event`. Raises ProtocolViolation (504) for one that is illegal here."""
    try:
        return CHANNEL_TRANSITIONS[state, event]
    except KeyError:
        if event is ChannelEvent.OPEN:
            text = "CHANNEL_ERROR - second 'channel.open' seen"
        elif state is ChannelState.CLOSED:
            text = "CHANNEL_ERROR - expected 'channel.open'"
        else:
            if event is ChannelEvent.RECEIVE_CLOSE_OK:
                raise ProtocolViolation(Reply.COMMAND_INVALID, "COMMAND_INVALID - unimplemented method") from None
            text = f"CHANNEL_ERROR - {event.value} on a channel that is {state.value}"
        raise ProtocolViolation(Reply.CHANNEL_ERROR, text) from None
