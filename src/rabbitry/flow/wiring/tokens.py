"""Which queues hold an app's own tokens and states, and no messages of its stages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_SINGLE: Final = (".key.", ".rate.", ".schedule.", ".slot.")


def holds_tokens(name: str, arguments: Mapping[str, object]) -> bool:
    """Return whether a queue holds tokens or a state of a limit, a schedule or cancellations.

    Such a queue has messages without a consumer, or a consumer that keeps one without an acknowledgement.

    Args:
        name: The queue's name.
        arguments: Its arguments.
    """
    if "x-single-active-consumer" in arguments:
        return name.endswith(".cancelled") or any(infix in name for infix in _SINGLE)
    return ".tokens." in name and "x-expires" in arguments
