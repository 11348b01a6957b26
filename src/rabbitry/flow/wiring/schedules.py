"""Schedules on the broker: each has a queue that holds one message, the token.

The token says up to which moment ticks were published. One worker at a time holds it: the queue has a single active
consumer. When a tick is due, the holder publishes it and the next token and acknowledges the token in one transaction
(AMQP 0-9-1, class tx), so that a worker that dies at any moment has either done all of that or nothing. Its token then
goes to another worker. A worker that was cut off cannot publish a tick a second time, because the acknowledgement is
a part of the transaction and the token is no longer its own.

No worker can see whether there is a token, since another one may hold it. Therefore each worker publishes a token
without a time when it begins, and again while it waits. The holder takes all tokens that there are, the latest one
counts, and the next transaction leaves one. If none has a time, the schedule begins now.
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
_FARTHEST: Final = 10 * 366 * 86_400
"""Seconds by which a clock may have been ahead. Later times are near the end of what datetimes and cron can count."""


class Fired(msgspec.Struct, frozen=True):
    """A tick that was published. due: its own time. at: when it was published; both as Unix time. host: by whom."""

    due: int
    at: float
    host: str


class Token(msgspec.Struct, frozen=True):
    """The state of a schedule.

    done: the Unix time up to which ticks were published; 0 in a token without a time. fired: the last ones.
    """

    done: int = 0
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
    """Decode a token. A malformed one, or one with a time that no clock has, counts as one without a time.

    now: the Unix time.
    """
    try:
        token = _decode(body)
    except Undecodable:
        return Token()
    return Token(token.done, token.fired[-KEPT:]) if 0 <= token.done <= now + _FARTHEST else Token()


_decode: Final = json_decoder(Token)
encode_token: Final = msgspec.json.Encoder().encode
