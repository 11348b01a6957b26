"""Schedules on the broker: each has a queue that holds one message, the token.

The token says up to which moment ticks were published. One worker at a time holds it: the queue has a single active
consumer. When a tick is due, the holder publishes it and the next token and acknowledges the token in one transaction
(AMQP 0-9-1, class tx), so that a worker that dies at any moment has either done all of that or nothing. Its token then
goes to another worker. A worker that was cut off cannot publish a tick a second time, because the acknowledgement is
a part of the transaction and the token is no longer its own.

A worker that finds neither token nor consumer publishes a first token. Two may do so at once: the holder takes all
tokens that there are, the latest one counts, and the next transaction leaves one.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

import msgspec

from rabbitry._decode import json_decoder
from rabbitry.exceptions import Undecodable
from rabbitry.flow.stage import Argument

KEPT: Final = 10
"""Ticks that a token remembers, for people to look at."""
_INFIX: Final = ".schedule."


class Fired(msgspec.Struct, frozen=True):
    """A tick that was published. due: its own time. at: when it was published; both as Unix time. host: by whom."""

    due: int
    at: float
    host: str


class Token(msgspec.Struct, frozen=True):
    """The state of a schedule. done: the Unix time up to which ticks were published. fired: the last ones."""

    done: int
    fired: list[Fired] = []

    @property
    def since(self) -> datetime:
        """The moment after which the next tick comes."""
        return datetime.fromtimestamp(self.done, UTC)


def schedule_queue(app: str, stage: str) -> str:
    """Return the name of the queue that holds the token of a stage's schedule."""
    return f"{app}{_INFIX}{stage}"


def token_arguments(own: Mapping[str, Argument]) -> dict[str, Argument]:
    """Return the arguments of such a queue. own: those of the app's queues."""
    return {**own, "x-single-active-consumer": True}


def read_token(body: bytes, now: float) -> Token:
    """Decode a token. One that is malformed counts as a first one, so that ticks go on from now."""
    try:
        token = _decode(body)
        datetime.fromtimestamp(token.done, UTC)
    except (Undecodable, ValueError, OverflowError, OSError):  # no token, or a time that there is not
        return Token(int(now))
    return token


_decode: Final = json_decoder(Token)
encode_token: Final = msgspec.json.Encoder().encode
