"""Limits of rate on the broker: each has a queue of tokens, and a queue that holds one message, the state.

Every message of a limited stage costs a token, whichever worker handles it. The state says up to which moment tokens
were published. One worker at a time holds it, since its queue has a single active consumer. The holder publishes the
tokens that are due and the next state, and acknowledges the old one, in one transaction. A worker that dies or is cut
off at any moment has therefore done all of that or nothing, and no token is published by two workers.

Both queues disappear when they were unused for longer than any token takes to become due.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from rabbitry._decode import json_decoder
from rabbitry.exceptions import Undecodable
from rabbitry.flow.stage import Argument

_UNUSED: Final = 7 * 86_400_000
"""Milliseconds after which an unused queue is deleted."""


class Minted(msgspec.Struct, frozen=True):
    """The state of a limit. until: the Unix time up to which tokens were published; 0 if that is not known."""

    until: float = 0.0


def tokens_queue(app: str, stage: str) -> str:
    """Return the name of the queue that holds the tokens of a stage's rate."""
    return f"{app}.tokens.{stage}"


def rate_queue(app: str, stage: str) -> str:
    """Return the name of the queue that holds the state of a stage's rate."""
    return f"{app}.rate.{stage}"


def tokens_arguments(own: Mapping[str, Argument]) -> dict[str, Argument]:
    """Return the arguments of a queue of tokens. own: those of the app's queues."""
    return {**own, "x-expires": _UNUSED}


def rate_arguments(own: Mapping[str, Argument]) -> dict[str, Argument]:
    """Return the arguments of a queue that holds a state. own: those of the app's queues."""
    return {**tokens_arguments(own), "x-single-active-consumer": True}


def read_minted(body: bytes) -> Minted:
    """Decode a state. A malformed one counts as one without a time."""
    try:
        return _decode(body)
    except Undecodable:
        return Minted()


_decode: Final = json_decoder(Minted)
encode_minted: Final = msgspec.json.Encoder().encode
