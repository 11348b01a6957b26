"""The trail of an address: the decisions about it, with time and node; short, and bounded."""

from __future__ import annotations

from typing import Final

import msgspec

LONGEST: Final = 1_500
"""Characters of a trail; the oldest decisions are dropped first."""
_LONGEST_DETAIL: Final = 160


class Step(msgspec.Struct, frozen=True, array_like=True):
    """A decision. word: one of OUTCOMES, or `retry`. node: `crawler a3f`, for example."""

    at: float
    word: str
    node: str
    detail: str = ""


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Step).decode


def with_step(trail: str, at: float, word: str, node: str, detail: str = "") -> str:
    """Return a trail with one more step."""
    step = _encode((round(at, 3), word, node, detail[:_LONGEST_DETAIL])).decode()
    if len(trail) + len(step) > LONGEST:
        cut = trail.find("\n", len(trail) + len(step) - LONGEST)
        trail = trail[cut + 1 :] if cut >= 0 else ""
    return f"{trail}{step}\n"


def steps(trail: str) -> list[Step]:
    """Return the steps of a trail, oldest first."""
    return [_decode(line) for line in trail.split("\n") if line]
