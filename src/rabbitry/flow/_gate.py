"""The gate of one message: what decides, with a store, whether the message is handled."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from rabbitry.flow.outgoing import Outgoing


class Taken(NamedTuple):
    """The value that the handler is called with."""

    value: object


class Gate(Protocol):
    """One message of the stage, and the store that decides about it. is_skipped: whether it was done before."""

    is_skipped: bool

    def take(self) -> Taken | None:
        """Return the value if the handler is to be called. Raises Reject, Retry and Undecodable."""

    def release(self) -> None:
        """Note that the handler failed or was ended."""

    def note(self) -> Outgoing | None:
        """Return the message to the stage itself which notes that the results are confirmed; None if none is needed.

        Called in a thread, when the handler has returned. The worker publishes it once all results are confirmed.
        """
