"""Bodies of messages as pages get them: masked, and in base64."""

from __future__ import annotations

import base64
from typing import NamedTuple

from rabbitry.telemetry import Masking


class Body(NamedTuple):
    """A body, or its beginning.

    Attributes:
        payload: Its bytes in base64, masked; empty if it is hidden.
        shown_bytes: How many bytes it had before.
        is_masked: Whether something in it is masked.
        is_hidden: Whether it is not shown, since what is no text can't be masked.
    """

    payload: str
    shown_bytes: int
    is_masked: bool
    is_hidden: bool


def shown_body(body: bytes, masking: Masking) -> Body:
    """Return a body as pages get it."""
    masked = masking.body(body)
    payload = base64.b64encode(masked or b"").decode()
    return Body(payload, len(body), is_masked=masked is not None and masked != body, is_hidden=masked is None)
